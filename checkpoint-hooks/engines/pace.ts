/**
 * A beat without drift: beat k is due at start + k * interval, whatever the one before it took.
 *
 *      start    1        2        3        4        5
 *        |------|--------|--------|--------|--------|
 *               x        x   a slow call --------->|x   beats 3 and 4 are missed, not made up for
 *
 * A beat that is already over is missed and counted: a burst of empty epochs after a stall would
 * help nobody.
 */
export class Pace {
  private readonly startMs: number;
  private readonly intervalMs: number;
  private beat = 0;
  /** Beats that were over before anyone could wait for them. */
  missed = 0;

  constructor(startMs: number, intervalMs: number) {
    if (!(intervalMs > 0)) throw new RangeError(`interval of ${intervalMs} ms: it must be more than 0`);
    this.startMs = startMs;
    this.intervalMs = intervalMs;
  }

  /** When the next beat is due: always later than `nowMs`, except for the one due right now. */
  nextMs(nowMs: number): number {
    const due = Math.max(this.beat + 1, Math.ceil((nowMs - this.startMs) / this.intervalMs));
    this.missed += due - this.beat - 1;
    this.beat = due;
    return this.startMs + due * this.intervalMs;
  }
}
