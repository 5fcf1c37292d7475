/**
 * Others' turn in between, where work has had the event loop for long: a look at all of 600 devices takes
 * a tenth of a second, and no command of any group would be answered meanwhile.
 */
export class Turns {
  readonly #longMs: number;
  #sinceMs = performance.now();

  /** `longMs`: how long the loop may be had at a time. */
  constructor(longMs: number) {
    this.#longMs = longMs;
  }

  /** Resolves at once where it is too early. */
  async give(): Promise<void> {
    if (performance.now() - this.#sinceMs < this.#longMs) return;
    await othersTurn();
    this.#sinceMs = performance.now();
  }
}

export const othersTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
