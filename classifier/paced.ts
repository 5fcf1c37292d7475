/** Work that nobody has asked for: not more often than every so many ms, and a fiftieth of the time at most. */
const SHARE = 50;

export class Paced {
  readonly #everyMs: number;
  readonly #everyMsMax: number;
  #notBeforeMs: number;

  /** However long it takes, it waits for `everyMsMax` at most. First at once, or after `everyMs`. */
  constructor(everyMs: number, everyMsMax: number, first: 'at once' | 'later') {
    this.#everyMs = everyMs;
    this.#everyMsMax = everyMsMax;
    this.#notBeforeMs = first === 'at once' ? 0 : performance.now() + everyMs;
  }

  /** Where it is due; one at a time. What the work throws is thrown. */
  async maybe(work: () => void | Promise<void>): Promise<void> {
    const beganMs = performance.now();
    if (beganMs < this.#notBeforeMs) return;
    this.#notBeforeMs = Number.POSITIVE_INFINITY;
    try {
      await work();
    } finally {
      const endedMs = performance.now();
      this.#notBeforeMs = endedMs + Math.min(this.#everyMsMax, Math.max(this.#everyMs, SHARE * (endedMs - beganMs)));
    }
  }
}
