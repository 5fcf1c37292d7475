/**
 * When the next checkpoint is due. Pure: the clock is a parameter.
 *
 *     begun ──────── interval ────────► due, if the group has something to say
 *       └──────────── idleInterval ─────────────────────► due in any case
 *     high-water: due at once
 *
 * So a group that answers somebody is checkpointed as soon as it answers (Kemari's rule), but not
 * more often than every interval; an idle one just often enough not to lose much.
 */
export interface CadenceOptions {
  /** Least time between the beginnings of two checkpoints. */
  readonly intervalMs: number;
  /** Longest time between them. */
  readonly idleIntervalMs: number;
}

export class Cadence {
  private readonly options: CadenceOptions;
  private begunMs = -Infinity;
  private output = false;
  private pressed = false;

  constructor(options: CadenceOptions) {
    if (!(options.idleIntervalMs >= options.intervalMs)) throw new RangeError(`an idle interval of ${options.idleIntervalMs} ms is shorter than the interval of ${options.intervalMs} ms`);
    this.options = options;
  }

  /** The open epoch has output that waits for its commit. */
  outputPending(): void {
    this.output = true;
  }
  /** What is held comes near its bound. */
  highWater(): void {
    this.pressed = true;
  }
  /** Frames of the epoch that it opens will be told anew. */
  begin(nowMs: number): void {
    this.begunMs = nowMs;
    this.output = false;
    this.pressed = false;
  }

  dueMs(): number {
    if (this.pressed) return -Infinity;
    return this.begunMs + (this.output ? this.options.intervalMs : this.options.idleIntervalMs);
  }
}
