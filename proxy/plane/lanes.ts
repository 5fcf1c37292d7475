/**
 * The lanes of one group as the hold loop drives them: which is next, how it is let go, when it is through.
 *
 *   FILLING ─┬─ out: OPEN, gate opened, a marker behind ────► marker back and all counted out ─► gate shut, FREE
 *            └─ spill: SPILLING, the same, into the ring ──►
 *
 * A lane ends when its marker has come round, every frame that went in has come out, and those that were spilled
 * have been seen in the ring. Once the marker is back, what is missing for `quietMs` is lost and counted; a marker
 * that does not come for a quarter of a second is sent again, and nothing is concluded, but that after eight of
 * them none will come (a device is down, another tool chose the queues): the lanes rest for a minute.
 * Nothing in it at all: nothing is opened or shut.
 *
 * Suspended, lanes that are free are not given out, and busy ones are not given out again. When a gate fails (another tool
 * took the queues, no memory) all are made anew at once, and where that fails once a second: what was in them is lost (I8).
 *
 * A group has no gates until somebody wants lanes for it. A gate is changed under a lock that all changes of devices
 * share (RTNL); whoever waits there keeps all groups waiting. So a wait that was long puts the lanes of all to rest for
 * some seconds, and the ring, which knows no lock, holds (Patience).
 */
import { LANES } from '../ring/stamp.ts';
import { LANE_STATE } from './lane-cells.ts';
import type { LaneCells } from './lane-cells.ts';
import { diff } from '../ring/window.ts';
import { NO_VALVES } from './valves.ts';
import type { Patience, Valves } from './valves.ts';

const RENEW_EVERY_MS = 1000;
const STALL_MS = 5;
const MARK_AGAIN_MS = 250;
const OWED_MS = 500;
const FILLERS_LEFT_MAX = 4;
const MARKS_MAX = 8;
const REST_MS = 60_000;

/** Nothing that a gate lets go arrives. */
export class LaneStuck extends Error {
  override readonly name = 'LaneStuck';
}

/** Why all lanes end at once: a gate refused, nothing comes out of them, their devices are gone. */
export type Failing = 'refused' | 'stuck' | 'gone';

/** What became of a lane's frames. */
export interface Ended {
  readonly colour: number;
  /** Of the frames that went in, those that did not come to the ring. */
  readonly through: number;
  /** Of these. */
  readonly lost: number;
  /** CLOCK_MONOTONIC, when its first frame came, ms. */
  readonly firstMs: number;
}

export class Lanes {
  readonly cells: LaneCells;
  readonly #quietMs: number;
  readonly #patience: Patience;
  #valves = NO_VALVES;
  readonly #outBase = new Int32Array(LANES);
  readonly #spilledBase = new Int32Array(LANES);
  /** Frames that its gate has let go, at most. */
  readonly #let = new Int32Array(LANES);
  readonly #lastCame = new Int32Array(LANES);
  readonly #lastMs = new Float64Array(LANES);
  readonly #seen = new Int32Array(LANES);
  readonly #turnedBase = new Int32Array(LANES);
  /** Markers that were sent in earlier lives; in this one. */
  readonly #markers = new Int32Array(LANES);
  readonly #marked = new Int32Array(LANES);
  /** Until when markers of earlier lives may still come; 0 = all have. */
  readonly #owedUntilMs = new Float64Array(LANES);
  /** Fillers sent in this life. */
  readonly #pushed = new Int32Array(LANES);
  readonly #trace = new Int32Array(LANES);
  readonly #sinceMs = new Float64Array(LANES);
  #suspended = false;
  #resting = false;
  #broken = true;
  #renewAtMs = Number.POSITIVE_INFINITY;

  /** `cells` has begun. No lane is used before there are gates. */
  constructor(cells: LaneCells, quietMs: number, patience: Patience) {
    this.cells = cells;
    this.#quietMs = quietMs;
    this.#patience = patience;
  }
  /** Sets these gates up. They are closed with the lanes, and where that throws: then there are none. */
  use(valves: Valves, nowMs: number): void {
    if (this.#valves !== NO_VALVES) {
      valves.close(); // they have some
      return;
    }
    try {
      valves.setUp();
    } catch (error) {
      this.#patience.waited(valves.waitedMs(), nowMs);
      valves.close();
      throw error;
    }
    this.#valves = valves;
    this.#broken = false;
    this.#forgetLate();
    this.#offer();
  }

  /** Without gates nothing is in any of them, and nothing is to be looked at: that is most groups. */
  get #count(): number {
    return this.#valves === NO_VALVES ? 0 : LANES;
  }
  /** Of all that are busy the one with the oldest colour; -1 = none is. */
  oldest(): number {
    let found = -1;
    for (let lane = 0; lane < this.#count; lane++) {
      if (this.#isBusy(lane) && (found < 0 || diff(this.cells.colour(lane), this.cells.colour(found)) < 0)) found = lane;
    }
    return found;
  }
  /** A lane has this colour, and may bring more of its frames. */
  has(colour: number): boolean {
    const lane = colour & (LANES - 1);
    return this.#isBusy(lane) && this.cells.colour(lane) === (colour | 0);
  }
  isFilling(lane: number): boolean {
    return this.cells.state(lane) === LANE_STATE.filling;
  }
  /** Frames spilled in this life that the ring has not got. */
  unseen(lane: number, seen: number): number {
    return (this.cells.low(lane, 'spilled') - this.#spilledBase[lane]! - (seen - this.#seen[lane]!)) | 0;
  }
  /** Some of its frames came out by themselves: the rest must follow them. */
  hasSpilled(lane: number): boolean {
    return this.cells.low(lane, 'spilled') !== this.#spilledBase[lane];
  }
  get anyFull(): boolean {
    for (let lane = 0; lane < this.#count; lane++) if (this.#isBusy(lane) && this.cells.isOutOfRoom(lane)) return true;
    return false;
  }
  /** Frames in lanes, or on their way through them. */
  get frames(): number {
    let frames = 0;
    for (let lane = 0; lane < this.#count; lane++) if (this.#isBusy(lane)) frames += Math.max(0, this.cells.waiting(lane));
    return frames;
  }
  /** Colours whose lanes fill and have frames. */
  filling(): number[] {
    const colours: number[] = [];
    for (let lane = 0; lane < this.#count; lane++) if (this.isFilling(lane) && this.cells.waiting(lane) > 0) colours.push(this.cells.colour(lane));
    return colours;
  }

  /** What is in each lane now. */
  held(): { readonly colour: number; readonly frames: number; readonly bytes: number; readonly firstMs: number }[] {
    const { cells } = this;
    return Array.from({ length: LANES }, (_, lane) => lane).filter((lane) => this.#isBusy(lane) && cells.waiting(lane) > 0)
      .map((lane) => ({ colour: cells.colour(lane), frames: cells.waiting(lane), bytes: cells.waitingBytes(lane), firstMs: cells.count(lane, 'firstNs') / 1e6 }));
  }

  /** Nothing goes in any more, and what is in it comes out. */
  begin(lane: number, spill: boolean, nowMs: number): void {
    this.cells.setState(lane, spill ? LANE_STATE.spilling : LANE_STATE.open);
    this.#sinceMs[lane] = nowMs;
    if (this.#owedUntilMs[lane] !== 0 && nowMs >= this.#owedUntilMs[lane]!) this.#forgetMarkers(lane);
    if (!this.#isUntouched(lane)) this.#open(lane, nowMs);
  }
  /** Those of earlier lives that have not come are lost. */
  #forgetMarkers(lane: number): void {
    this.#markers[lane] = this.cells.low(lane, 'markers');
    this.#owedUntilMs[lane] = 0;
  }
  #open(lane: number, nowMs: number): void {
    this.#marked[lane] = this.#marked[lane]! + 1;
    this.#let[lane] = this.#came(lane) + this.#valves.batch;
    this.#lastCame[lane] = this.#came(lane);
    this.#lastMs[lane] = nowMs;
    this.#valves.open(lane);
    this.#valves.mark(lane);
  }
  /** Its marker has come round. One that was sent again may come in the lane's next life: that waits for one more. */
  #isBack(lane: number): boolean {
    return ((this.cells.low(lane, 'markers') - this.#markers[lane]!) | 0) > 0;
  }

  #came(lane: number): number {
    return (this.cells.low(lane, 'out') - this.#outBase[lane]! + this.cells.low(lane, 'spilled') - this.#spilledBase[lane]!) | 0;
  }
  /** Most of the last batch is out, and there is more. Of the largest super-frames a gate lets a third go. */
  wantsNext(lane: number): boolean {
    return this.#marked[lane]! > 0 && !this.#isBack(lane) && this.#let[lane]! - this.#came(lane) <= (2 * this.#valves.batch) / 3;
  }
  /** The next batch, if it is time, or if nothing comes though something should. */
  next(lane: number, nowMs: number): boolean {
    if (!this.wantsNext(lane) && !this.#stalls(lane, nowMs)) return false;
    this.#let[lane] = this.#came(lane) + this.#valves.batch;
    this.#lastCame[lane] = this.#came(lane);
    this.#lastMs[lane] = nowMs;
    this.#valves.open(lane);
    this.#push(lane);
    return true;
  }
  #push(lane: number): void {
    this.#pushed[lane] = this.#pushed[lane]! + 1;
    this.#valves.push(lane);
  }
  /**
   * What was let go and is not out yet waits in the backlog of this CPU. Where others want that, the kernel leaves
   * it to a thread of no priority; any frame we send has the rest forwarded at ours. False = there is none, or
   * nothing comes of it.
   */
  hasten(lane: number): boolean {
    const entered = (this.cells.low(lane, 'in') - this.cells.low(lane, 'base')) | 0;
    const came = this.#came(lane);
    if (this.#marked[lane] === 0 || Math.min(this.#let[lane]!, entered) <= came) return false;
    this.#push(lane);
    return this.#came(lane) !== came;
  }
  #stalls(lane: number, nowMs: number): boolean {
    if (this.#marked[lane] === 0 || (this.#isBack(lane) && this.cells.waiting(lane) <= 0)) return false;
    const came = this.#came(lane);
    if (came === this.#lastCame[lane]) return nowMs - this.#lastMs[lane]! >= STALL_MS;
    this.#lastCame[lane] = came;
    this.#lastMs[lane] = nowMs;
    return false;
  }

  /**
   * undefined = more is to come, look again. A lane that has ended is free again. `seen`: spilled frames of
   * this lane that the ring ever got, whatever became of them; int32 circle.
   */
  maybeEnd(lane: number, nowMs: number, seen: number): Ended | undefined {
    const { cells } = this;
    const untouched = this.#isUntouched(lane);
    if (!untouched && this.#marked[lane] === 0) this.#open(lane, nowMs); // one went in as the state changed
    const back = this.#isBack(lane);
    const missing = this.unseen(lane, seen);
    if (!untouched && !(back && cells.waiting(lane) <= 0 && missing <= 0) && !this.#isStill(lane, back, nowMs, missing)) return undefined;
    const ended = this.#end(lane, seen);
    if (!untouched) this.#shut(lane);
    this.#free(lane, nowMs);
    return ended;
  }

  /** What pushed and came behind the marker goes first: it would take the places of the next life's frames. */
  #shut(lane: number): void {
    for (let left = this.#pushed[lane]!; left > FILLERS_LEFT_MAX; left -= this.#valves.batch) {
      this.#valves.open(lane);
      this.#valves.push(lane);
    }
    this.#valves.shut(lane);
  }

  /** Neither count moves any more. Without its marker: that is sent again, and nothing is concluded. */
  #isStill(lane: number, back: boolean, nowMs: number, missing: number): boolean {
    const { cells } = this;
    const trace = (Math.imul(cells.low(lane, 'out'), 31) + Math.imul(cells.low(lane, 'spilled'), 961) + Math.imul(missing, 29791) + cells.low(lane, 'in')) | 0;
    if (trace !== this.#trace[lane]) {
      this.#trace[lane] = trace;
      this.#sinceMs[lane] = nowMs;
      return false;
    }
    if (nowMs - this.#sinceMs[lane]! < (back ? this.#quietMs : MARK_AGAIN_MS)) return false;
    if (back) return true;
    if (this.#marked[lane]! >= MARKS_MAX) throw new LaneStuck(`of lane ${lane} no marker comes back`);
    this.#sinceMs[lane] = nowMs;
    this.#open(lane, nowMs);
    return false;
  }

  suspend(): void {
    this.#suspended = true;
    this.#withdraw();
  }
  resume(): void {
    this.#suspended = false;
    this.#offer();
  }
  get #isInUse(): boolean {
    return !this.#suspended && !this.#broken && !this.#resting;
  }
  #offer(): void {
    if (this.#isInUse) for (let lane = 0; lane < LANES; lane++) this.cells.moved(lane, LANE_STATE.none, LANE_STATE.free);
  }
  #withdraw(): void {
    for (let lane = 0; lane < LANES; lane++) this.cells.moved(lane, LANE_STATE.free, LANE_STATE.none);
  }

  /** None is used, and what was in them ends here, oldest colour first. */
  fail(nowMs: number, seen: Int32Array, why: Failing): Ended[] {
    this.#broken = true;
    this.#withdraw();
    for (let lane = 0; lane < LANES; lane++) if (this.#isBusy(lane)) this.cells.setState(lane, LANE_STATE.spilling);
    this.#renewAtMs = nowMs;
    if (why === 'stuck') this.#rest(nowMs);
    if (why === 'refused') this.maybeRenew(nowMs);
    const ends: Ended[] = [];
    for (let lane = this.oldest(); lane >= 0; lane = this.oldest()) {
      ends.push(this.#end(lane, seen[lane]!));
      this.#free(lane, nowMs);
      this.#forgetMarkers(lane); // with the queues
    }
    if (why === 'gone') this.#giveUp();
    return ends;
  }
  #giveUp(): void {
    this.#valves.close();
    this.#valves = NO_VALVES;
    this.#renewAtMs = Number.POSITIVE_INFINITY;
  }
  #rest(nowMs: number): void {
    this.#renewAtMs = nowMs + REST_MS;
    try {
      this.#valves.setUp(); // what is still in the queues goes
    } catch {
      // the ring drops what comes of it
    }
  }
  /** When it wants to be asked again; Infinity = all is well. */
  maybeRenew(nowMs: number): number {
    this.#patience.waited(this.#valves.waitedMs(), nowMs);
    const rests = nowMs < this.#patience.untilMs;
    if (rests !== this.#resting) {
      this.#resting = rests;
      if (rests) this.#withdraw();
      else this.#offer();
    }
    if (!this.#broken) return rests ? this.#patience.untilMs : Number.POSITIVE_INFINITY;
    const atMs = Math.max(this.#renewAtMs, this.#patience.untilMs);
    if (nowMs < atMs) return atMs;
    this.#renewAtMs = nowMs + RENEW_EVERY_MS;
    try {
      this.#valves.setUp();
    } catch {
      return this.#renewAtMs; // the device is gone, or the kernel can't: held frames go by the ring
    }
    this.#broken = false;
    this.#forgetLate();
    this.#offer();
    return Number.POSITIVE_INFINITY;
  }

  /** What came out after it was given up, into the ring that drops it, and before the queues were made anew. */
  #forgetLate(): void {
    const { cells } = this;
    for (let lane = 0; lane < LANES; lane++) {
      const spilled = cells.low(lane, 'spilled');
      this.#seen[lane] = (this.#seen[lane]! + spilled - this.#spilledBase[lane]!) | 0;
      this.#spilledBase[lane] = spilled;
      this.#outBase[lane] = cells.low(lane, 'out');
      cells.settle(lane, cells.waiting(lane), cells.waitingBytes(lane));
    }
  }

  close(): void {
    for (let lane = 0; lane < LANES; lane++) this.cells.setState(lane, LANE_STATE.none);
    this.#valves.close();
  }

  #isBusy(lane: number): boolean {
    return this.cells.state(lane) >= LANE_STATE.filling;
  }
  #isUntouched(lane: number): boolean {
    return this.cells.low(lane, 'in') === this.cells.low(lane, 'base');
  }
  /** What did not come out, and what was spilled and did not arrive, is lost: the ring drops it if it comes after all. */
  #end(lane: number, seen: number): Ended {
    const { cells } = this;
    const missing = Math.max(0, cells.waiting(lane));
    cells.settle(lane, cells.waiting(lane), cells.waitingBytes(lane));
    const spilled = (cells.low(lane, 'spilled') - this.#spilledBase[lane]!) | 0;
    const unseen = Math.max(0, (spilled - (seen - this.#seen[lane]!)) | 0);
    this.#seen[lane] = seen;
    return {
      colour: cells.colour(lane),
      through: (cells.low(lane, 'in') - cells.low(lane, 'base') - (cells.low(lane, 'turned') - this.#turnedBase[lane]!) - spilled) | 0,
      lost: missing + unseen,
      firstMs: cells.count(lane, 'firstNs') / 1e6,
    };
  }
  #free(lane: number, nowMs: number): void {
    const { cells } = this;
    cells.rebase(lane);
    this.#outBase[lane] = cells.low(lane, 'out');
    this.#spilledBase[lane] = cells.low(lane, 'spilled');
    this.#turnedBase[lane] = cells.low(lane, 'turned');
    this.#markers[lane] = this.#markers[lane]! + this.#marked[lane]!;
    const owed = (this.#markers[lane] - cells.low(lane, 'markers')) | 0;
    if (owed <= 0) this.#owedUntilMs[lane] = 0;
    else if (this.#owedUntilMs[lane] === 0) this.#owedUntilMs[lane] = nowMs + OWED_MS;
    this.#marked[lane] = 0;
    this.#pushed[lane] = 0;
    cells.setState(lane, this.#isInUse ? LANE_STATE.free : LANE_STATE.none);
  }
}
