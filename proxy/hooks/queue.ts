/**
 * What waits for one target: in order, one at a time, never more than `max`.
 *
 *     add ─► [ waiting ≤ max ] ─► deliver, one ─► done | failed ─► the next
 *              └── full: the newest is dropped and counted; what waits keeps its order
 *
 * In order, because `port-back` that overtakes its `port-lost` is a false alarm. A target that hangs
 * delays and drops its own events only. It has no clock: what `deliver` takes is bounded by deliver. New
 * settings are another `deliver` of the same queue: what waits keeps its place and goes by the new one.
 */
import type { HookReport } from './protocol.ts';

export interface Waiting {
  readonly id: string;
  readonly type: string;
  /** The event as JSON. */
  readonly text: string;
}
/** Undefined = delivered, else why not. Never rejects. */
export type Deliver = (one: Waiting) => Promise<string | undefined>;

export class TargetQueue {
  readonly #target: string;
  #deliver: Deliver;
  readonly #report: (report: HookReport) => void;
  readonly #max: number;
  readonly #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;

  constructor(target: string, deliver: Deliver, report: (report: HookReport) => void, max: number) {
    this.#target = target;
    this.#deliver = deliver;
    this.#report = report;
    this.#max = max;
  }

  add(one: Waiting): void {
    if (this.#waiting.length >= this.#max) {
      this.#report({ target: this.#target, outcome: 'dropped', why: `${this.#max} events wait already` });
      return;
    }
    this.#waiting.push(one);
    this.#running ??= this.#run();
  }

  /** For all but the one that is under way. */
  turnTo(deliver: Deliver): void {
    this.#deliver = deliver;
  }

  /** Nothing waits and nothing runs. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const why = await this.#deliver(next);
      this.#report({ target: this.#target, ...(why === undefined ? { outcome: 'done' } : { outcome: 'failed', why }) });
    }
    this.#running = undefined;
  }
}
