/** The gates of lanes, as the lanes need them, and what is learnt of the lock they are changed under. */

/** How long none is asked for after a change that waited long. */
const CALM_MS = 5000;

/** What all lanes of a loop learn of the kernel's lock. Milliseconds, the common clock. */
export class Patience {
  untilMs = Number.NEGATIVE_INFINITY;
  /** `ms`: spent in waits that were long, since `nowMs`. */
  waited(ms: number, nowMs: number): void {
    if (ms > 0) this.untilMs = Math.max(this.untilMs, nowMs + ms + CALM_MS);
  }
}

/** The gates; all of them may throw. */
export interface Valves {
  /** All made anew and shut, empty. */
  setUp(): void;
  /** For so many frames. */
  readonly batch: number;
  open(lane: number): void;
  /** Lets them go. */
  push(lane: number): void;
  shut(lane: number): void;
  /** Ms that calls took which waited long, since this was asked last. */
  waitedMs(): number;
  mark(lane: number): void;
  close(): void;
}

/** Of a group that has none. */
export const NO_VALVES: Valves = {
  batch: 1, waitedMs: () => 0, close: () => undefined,
  setUp: unused, open: unused, push: unused, shut: unused, mark: unused,
};
function unused(): never {
  throw new Error('a lane is used that has no gate');
}
