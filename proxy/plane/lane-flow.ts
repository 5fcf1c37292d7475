/**
 * Lanes and ring in one order (I6). Of one colour, what is in its lane came before what the ring has; of two,
 * the older goes first. So a release walks from lane to lane:
 *
 *   committed … 40 │ 41: lane, then ring │ 42: ring │ 43: lane, then ring │ target
 *       ring.release(40), all out ─► lane 41 out ─► ring.release(42), all out ─► lane 43 out ─► ring.release(43)
 *
 * "All out" is what the kernel's counts say (D8): a frame may still be on its way to the ring when its commit comes.
 *
 * Everything else (rollback, drain, a look at the frames) is the ring's affair alone: `after` spills all lanes
 * into it, oldest first, runs what was asked for and takes lanes into use again. A lane of which something came
 * out by itself spills too.
 */
import type { HoldRing } from '../ring/hold-ring.ts';
import { diff } from '../ring/window.ts';
import { LaneStuck } from './lanes.ts';
import type { Ended, Failing, Lanes } from './lanes.ts';
import type { Valves } from './valves.ts';
import { NEVER } from './never.ts';

const LOOK_MS = 1;
/** Of one lane in one breath: others have their turn. */
const BATCHES_MAX = 8;
/** Spilled frames that the ring has not seen: more might not find room there. */
const UNSEEN_MAX = 64;

export interface FlowHooks {
  /** A lane's frames begin to leave. */
  opened(): void;
  /** Every held frame of colours <= colour, which are committed, has left the ring, and none is on its way there. */
  isClean(colour: number): boolean;
  /** Wall clock, on the ring's scale, of a time on the common clock. */
  wallOf(ms: number): number;
}

export class LaneFlow {
  readonly lanes: Lanes;
  readonly #ring: HoldRing;
  readonly #hooks: FlowHooks;
  /** Colours up to this one may leave. */
  #target: number;
  #waiting: (() => void)[] = [];
  /** A drain goes on: no lane is given out. */
  #stopped = false;

  constructor(lanes: Lanes, ring: HoldRing, hooks: FlowHooks) {
    this.lanes = lanes;
    this.#ring = ring;
    this.#hooks = hooks;
    this.#target = ring.store.window.committed;
  }

  release(upTo: number): void {
    if (diff(upTo, this.#target) > 0) this.#target = upTo | 0;
  }

  /** Nothing of what may leave is later than this colour. */
  isThrough(colour: number): boolean {
    return diff(colour, this.#target) >= 0;
  }

  /** Runs `then` as soon as no lane has anything; `stop`: lanes stay out of use until `resume`. */
  after(then: () => void, stop = false): void {
    this.#stopped ||= stop;
    this.lanes.suspend();
    this.#waiting.push(then);
  }
  resume(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    if (this.#waiting.length === 0) this.lanes.resume();
  }

  /** The group closes: what was to come after is asked for now, and answered by whoever ends it. */
  end(): void {
    for (const then of this.#waiting.splice(0)) then();
  }

  /** As far as it goes now. True = what is ready must be sent first, then there is more to do. */
  step(nowMs: number): boolean {
    try {
      this.lanes.maybeRenew(nowMs);
      for (const colour of this.lanes.filling()) this.#ring.noticed(colour); // the kernel's notice only wakes us
      return this.#walk(nowMs);
    } catch (error) {
      const stuck = error instanceof LaneStuck;
      if (!stuck && !(error instanceof Error && error.name === 'SystemError')) throw error;
      this.#fail(nowMs, stuck ? 'stuck' : 'refused');
      return true;
    }
  }
  use(valves: Valves | undefined, nowMs: number): void {
    if (valves === undefined) this.#fail(nowMs, 'gone');
    else this.lanes.use(valves, nowMs);
  }
  #fail(nowMs: number, why: Failing): void {
    for (const ended of this.lanes.fail(nowMs, this.#ring.spilledSeen, why)) this.#settle(ended);
  }

  #walk(nowMs: number): boolean {
    const { lanes } = this;
    for (let lane = lanes.oldest(); lane >= 0; lane = lanes.oldest()) {
      const colour = lanes.cells.colour(lane);
      const leaves = diff(colour, this.#target) <= 0;
      if (!leaves && this.#waiting.length === 0) break;
      this.#releaseTo(leaves ? (colour - 1) | 0 : this.#target);
      if (this.#ring.readyFrames > 0) return true;
      if (leaves && lanes.isFilling(lane) && !this.#hooks.isClean((colour - 1) | 0)) return false;
      if (lanes.isFilling(lane)) this.#begin(lane, !leaves || lanes.hasSpilled(lane), nowMs);
      const spilling = lanes.unseen(lane, this.#ring.spilledSeen[lane]!);
      for (let batches = 0; spilling < UNSEEN_MAX && batches < (spilling > 0 ? 1 : BATCHES_MAX) && lanes.next(lane, nowMs); batches++) while (lanes.hasten(lane));
      const ended = lanes.maybeEnd(lane, nowMs, this.#ring.spilledSeen[lane]!);
      if (ended === undefined) return false;
      this.#settle(ended);
    }
    this.#releaseTo(this.#target);
    if (this.#waiting.length > 0) this.#run();
    return false;
  }

  #begin(lane: number, spill: boolean, nowMs: number): void {
    this.lanes.begin(lane, spill, nowMs);
    if (!spill && this.lanes.cells.low(lane, 'in') !== this.lanes.cells.low(lane, 'base')) this.#hooks.opened();
  }
  #releaseTo(colour: number): void {
    if (diff(colour, this.#ring.store.window.committed) > 0) this.#ring.release(colour);
  }
  #settle({ colour, through, lost, firstMs }: Ended): void {
    const { window, tally } = this.#ring.store;
    window.arrived[colour & 63] = window.arrived[colour & 63]! + through;
    tally.overflow += lost;
    this.#ring.joinSpilled(colour, this.#hooks.wallOf(firstMs));
  }
  #run(): void {
    const now = this.#waiting;
    this.#waiting = [];
    for (const then of now) then();
    // A restore counts the colours it took back as decided.
    this.release(this.#ring.store.window.committed);
    if (!this.#stopped) this.lanes.resume();
  }

  /** When to look again, if nothing wakes the loop before. */
  again(nowMs: number): number {
    const lane = this.lanes.oldest();
    const moves = lane >= 0 && (this.#waiting.length > 0 || diff(this.lanes.cells.colour(lane), this.#target) <= 0);
    if (moves && this.lanes.wantsNext(lane)) return nowMs;
    return Math.min(moves || this.#waiting.length > 0 ? nowMs + LOOK_MS : NEVER, this.lanes.maybeRenew(nowMs));
  }
}
