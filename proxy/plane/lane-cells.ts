/**
 * The lanes of one group as the kernel's programs and we share them: one cell each, and one for all. The
 * hold loop and the main thread both map them; who may write what stands in the kernel's ABI header.
 *
 *   NONE ── hold loop ──► FREE ── whoever cuts ──► FILLING ── hold loop ──► OPEN or SPILLING ──► FREE
 *
 * A state is stored before the count is read that depends on it (the programs do it the other way round), and
 * where two may store, by comparison: all of that sequentially consistent. Counts only grow, so that anyone
 * may read them at any time; as differences their low words are enough.
 */

import type { HoldCounters } from '../ports.ts';
import { LANES } from '../ring/stamp.ts';

/** Layout of the maps: a mirror of the kernel's ABI header, proved equal by a unit test. */
export const LANE_STATE = { none: 0, free: 1, filling: 2, open: 3, spilling: 4 } as const;
export type LaneState = (typeof LANE_STATE)[keyof typeof LANE_STATE];
export const LANE_LAYOUT = {
  size: 128, colour: 0, state: 4, full: 8, in: 16, inBytes: 24, out: 32, outBytes: 40, spilled: 48, spilledBytes: 56, markers: 64, firstNs: 72,
  base: 80, lost: 88, lostBytes: 96, turned: 104,
} as const;
export const QUEUE_LAYOUT = { size: 320, bytesMax: 0, bytesGone: 8, bytesIn: 64, bytesOut: 128, holdSumUs: 136, hold: 144 } as const;
export const HOLD_BUCKETS = 18;
/** A lane's `full`: the group's bound was met. */
export const OUT_OF_ROOM = 1;
/** Bytes that a frame in a lane takes beside its own. */
export const FRAME_COST = 768;

type Count = 'in' | 'inBytes' | 'out' | 'outBytes' | 'spilled' | 'spilledBytes' | 'markers' | 'firstNs' | 'base' | 'lost' | 'lostBytes' | 'turned';

export interface LaneMaps {
  readonly lanes: ArrayBuffer;
  readonly queues: ArrayBuffer;
}

export class LaneCells {
  readonly #words: Int32Array;
  readonly #queue: Uint32Array;

  constructor(id: number, { lanes, queues }: LaneMaps) {
    this.#words = new Int32Array(lanes, id * LANES * LANE_LAYOUT.size, (LANES * LANE_LAYOUT.size) >> 2);
    this.#queue = new Uint32Array(queues, id * QUEUE_LAYOUT.size, QUEUE_LAYOUT.size >> 2);
  }

  /** All lanes out of use and at zero, `bytesMax` for all of them. */
  begin(bytesMax: number): void {
    for (let lane = 0; lane < LANES; lane++) this.setState(lane, LANE_STATE.none);
    this.#words.fill(0);
    this.#queue.fill(0);
    this.#set(this.#queue, QUEUE_LAYOUT.bytesMax >> 2, bytesMax);
  }

  state(lane: number): number {
    return Atomics.load(this.#words, at(lane, LANE_LAYOUT.state));
  }
  setState(lane: number, state: LaneState): void {
    Atomics.store(this.#words, at(lane, LANE_LAYOUT.state), state);
  }
  /** False: it was not in `from`. */
  moved(lane: number, from: LaneState, to: LaneState): boolean {
    return Atomics.compareExchange(this.#words, at(lane, LANE_LAYOUT.state), from, to) === from;
  }
  /** int32 */
  colour(lane: number): number {
    return this.#words[at(lane, LANE_LAYOUT.colour)]!;
  }
  isOutOfRoom(lane: number): boolean {
    return this.#words[at(lane, LANE_LAYOUT.full)] === OUT_OF_ROOM;
  }

  /** Whoever cuts, before the colour is in use: its held frames go into a lane if that one is free. */
  fill(colour: number): void {
    const lane = colour & (LANES - 1);
    if (this.state(lane) !== LANE_STATE.free) return;
    this.#words[at(lane, LANE_LAYOUT.colour)] = colour | 0;
    this.moved(lane, LANE_STATE.free, LANE_STATE.filling);
  }
  /** What comes from here on is counted anew. */
  rebase(lane: number): void {
    this.#words[at(lane, LANE_LAYOUT.full)] = 0;
    for (const word of [0, 1]) this.#words[at(lane, LANE_LAYOUT.base) + word] = this.#words[at(lane, LANE_LAYOUT.in) + word]!;
  }
  /** Frames that will never come out of it; below 0, that came out as more. The lane's balance is 0 then. */
  settle(lane: number, frames: number, bytes: number): void {
    this.#add(lane, 'lost', frames);
    this.#add(lane, 'lostBytes', bytes);
    const gone = QUEUE_LAYOUT.bytesGone >> 2;
    this.#set(this.#queue, gone, double(this.#queue, gone) + bytes + frames * FRAME_COST);
  }

  /** Low word, for differences. */
  low(lane: number, count: Count): number {
    return Atomics.load(this.#words, at(lane, LANE_LAYOUT[count]));
  }
  count(lane: number, count: Count): number {
    const word = at(lane, LANE_LAYOUT[count]);
    return this.#words[word + 1]! * 2 ** 32 + (this.#words[word]! >>> 0);
  }
  /** Frames in it, or between here and there. */
  waiting(lane: number): number {
    return (this.low(lane, 'in') - this.low(lane, 'turned') - this.low(lane, 'out') - this.low(lane, 'spilled') - this.low(lane, 'lost')) | 0;
  }
  /** The same in bytes. Both are below 0 where a frame came out as several, until its lane ends. */
  waitingBytes(lane: number): number {
    return this.count(lane, 'inBytes') - this.count(lane, 'outBytes') - this.count(lane, 'spilledBytes') - this.count(lane, 'lostBytes');
  }
  /** Of all lanes: bytes as the bound counts them. */
  get used(): number {
    const { bytesIn, bytesOut, bytesGone } = QUEUE_LAYOUT;
    return Math.max(0, double(this.#queue, bytesIn >> 2) - double(this.#queue, bytesOut >> 2) - double(this.#queue, bytesGone >> 2));
  }
  sum(count: Count): number {
    let total = 0;
    for (let lane = 0; lane < LANES; lane++) total += this.count(lane, count);
    return total;
  }
  /** Hold times of frames that left: counts by bucket, and their sum, ms. */
  holds(): { readonly buckets: readonly number[]; readonly sumMs: number } {
    const buckets = Array.from({ length: HOLD_BUCKETS }, (_, i) => double(this.#queue, (QUEUE_LAYOUT.hold >> 2) + 2 * i));
    return { buckets, sumMs: double(this.#queue, QUEUE_LAYOUT.holdSumUs >> 2) / 1e3 };
  }

  #add(lane: number, count: 'lost' | 'lostBytes', value: number): void {
    this.#set(this.#words, at(lane, LANE_LAYOUT[count]), this.count(lane, count) + value);
  }
  /** A whole number, below 0 too. */
  #set(words: Int32Array | Uint32Array, word: number, value: number): void {
    const high = Math.floor(value / 2 ** 32);
    words[word] = value - high * 2 ** 32;
    words[word + 1] = high;
  }
}

const at = (lane: number, offset: number): number => (lane * LANE_LAYOUT.size + offset) >> 2;
const double = (words: Uint32Array, word: number): number => (words[word + 1]! | 0) * 2 ** 32 + words[word]!;

/** The ring's counters, and what is and was in lanes; `bytes`: the group's bound. Read for the reply of every epoch, which wants no histogram. */
export function withLanes(ring: HoldCounters, cells: LaneCells, bytes: number): HoldCounters {
  const went = cells.sum('in');
  if (went === 0) return ring;
  let frames = 0;
  let heldBytes = 0;
  let oldestNs = Infinity;
  for (let lane = 0; lane < LANES; lane++) {
    const waiting = cells.waiting(lane);
    if (waiting <= 0) continue;
    frames += waiting;
    heldBytes += Math.max(0, cells.waitingBytes(lane));
    oldestNs = Math.min(oldestNs, cells.count(lane, 'firstNs'));
  }
  const ageMs = oldestNs === Infinity ? 0 : Math.max(0, Number(process.hrtime.bigint()) - oldestNs) / 1e6;
  const { discardedFrames, overflowFrames, refusedFrames, earlyFrames, lateRecorded, redelivered } = ring;
  return {
    heldFrames: ring.heldFrames + frames, heldBytes: ring.heldBytes + heldBytes, oldestMs: Math.max(ring.oldestMs, ageMs),
    occupancy: Math.max(ring.occupancy, cells.used / bytes),
    arrived: ring.arrived + went - cells.sum('turned') - cells.sum('spilled'), arrivedBytes: ring.arrivedBytes + cells.sum('inBytes') - cells.sum('spilledBytes'),
    releasedFrames: ring.releasedFrames + cells.sum('out'), releasedBytes: ring.releasedBytes + cells.sum('outBytes'),
    discardedFrames, overflowFrames, refusedFrames, earlyFrames, lateRecorded, redelivered,
    get holdHistogram() {
      const { buckets } = cells.holds();
      return ring.holdHistogram.map((count, i) => count + (buckets[i] ?? 0));
    },
    get holdSumMs() { return ring.holdSumMs + cells.holds().sumMs; },
    get wireHistogram() { return ring.wireHistogram; },
    get wireSumMs() { return ring.wireSumMs; },
  };
}
