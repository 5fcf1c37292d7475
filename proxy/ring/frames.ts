/**
 * What the hold ring is made of: a table of frame descriptors, linked lists through it, and the
 * interfaces behind which frames come and go. Nothing here allocates after construction.
 *
 *   table   one row a frame: stamp, place in memory, length, colour, arrival. `framesMax` rows are
 *           allocated at start; when none is free the frame is dropped and counted (overflow).
 *   lists   singly linked through `next`; a frame is in one list at a time. Moving a whole list
 *           to the end of another is O(1): that is what a release costs.
 *
 * All numbers are int32 (colours too: serial arithmetic does not care about the sign), because an
 * int32 passes through a call without an allocation; times are float64 in typed arrays.
 */

/** One block's frames, filled by the source, read by the ring. A struct of arrays, reused. */
export class Intake {
  readonly stamp: Int32Array;
  /** Byte offset of the frame in the source's memory; its virtio_net_hdr lies right before it. */
  readonly offset: Int32Array;
  /** Bytes of the frame; 0 = the kernel could not store all of it, it must not be sent. */
  readonly length: Int32Array;
  /** Arrival by the wall clock, ms since the source's own origin. */
  readonly arrivedMs: Float64Array;
  count = 0;
  constructor(framesMax: number) {
    this.stamp = new Int32Array(framesMax);
    this.offset = new Int32Array(framesMax);
    this.length = new Int32Array(framesMax);
    this.arrivedMs = new Float64Array(framesMax);
  }
}

/** Where frames come from, and whose memory they lie in until they have left. */
export interface FrameSource {
  /** Ring blocks come first, then as many arena blocks; all of 1 << blockShift bytes. */
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift: number;
  /** The next filled block, its frames in `intake`; -1 = none. The block is ours until given back. */
  take(intake: Intake): number;
  giveBack(block: number): void;
  /** Moves bytes within the memory; the ranges do not overlap. */
  copy(to: number, from: number, bytes: number): void;
  /** Frames that were dropped for want of room since the last call. */
  drops(): number;
  /** So many have been found missing: of a source whose `drops` can't know of all. */
  missed?(frames: number): void;
}

/** Where frames go. */
export interface FrameSink {
  /** Most frames of one call. */
  readonly batchMax: number;
  /**
   * Hands the first `count` rows of `batch` to the kernel, in order, and returns how many it took;
   * a negative result is -errno of the first one. Rows taken are copied: their memory is free.
   */
  send(table: FrameTable, batch: Int32Array, count: number): number;
}

export class FrameTable {
  readonly framesMax: number;
  readonly stamp: Int32Array;
  readonly offset: Int32Array;
  readonly length: Int32Array;
  readonly colour: Int32Array;
  /** Late records: the receiver's colour at delivery. */
  readonly due: Int32Array;
  readonly arrivedMs: Float64Array;
  readonly next: Int32Array;
  /** Neighbours in the chain of the frame's block; -1 = none. */
  readonly blockNext: Int32Array;
  readonly blockPrev: Int32Array;
  live = 0;
  #free = 0;

  constructor(framesMax: number) {
    this.framesMax = framesMax;
    this.stamp = new Int32Array(framesMax);
    this.offset = new Int32Array(framesMax);
    this.length = new Int32Array(framesMax);
    this.colour = new Int32Array(framesMax);
    this.due = new Int32Array(framesMax);
    this.arrivedMs = new Float64Array(framesMax);
    this.next = new Int32Array(framesMax);
    this.blockNext = new Int32Array(framesMax);
    this.blockPrev = new Int32Array(framesMax);
    for (let i = 0; i < framesMax; i++) this.next[i] = i + 1 < framesMax ? i + 1 : -1;
  }

  /** A free row, or -1. */
  take(): number {
    const row = this.#free;
    if (row >= 0) {
      this.#free = this.next[row]!;
      this.live++;
    }
    return row;
  }

  /** A stamp is never 0 while its row is in use. */
  give(row: number): void {
    this.stamp[row] = 0;
    this.next[row] = this.#free;
    this.#free = row;
    this.live--;
  }
}

export class Lists {
  readonly head: Int32Array;
  readonly tail: Int32Array;
  readonly size: Int32Array;
  readonly #next: Int32Array;

  constructor(count: number, next: Int32Array) {
    this.head = new Int32Array(count).fill(-1);
    this.tail = new Int32Array(count).fill(-1);
    this.size = new Int32Array(count);
    this.#next = next;
  }

  push(list: number, row: number): void {
    this.#next[row] = -1;
    const tail = this.tail[list]!;
    if (tail < 0) this.head[list] = row;
    else this.#next[tail] = row;
    this.tail[list] = row;
    this.size[list] = this.size[list]! + 1;
  }

  /** Takes the first row off; -1 = empty. */
  shift(list: number): number {
    const row = this.head[list]!;
    if (row < 0) return -1;
    const next = this.#next[row]!;
    this.head[list] = next;
    if (next < 0) this.tail[list] = -1;
    this.size[list] = this.size[list]! - 1;
    return row;
  }

  /** Everything of `from` to the end of `to`. */
  append(to: number, from: number): void {
    const first = this.head[from]!;
    if (first < 0) return;
    const tail = this.tail[to]!;
    if (tail < 0) this.head[to] = first;
    else this.#next[tail] = first;
    this.tail[to] = this.tail[from]!;
    this.size[to] = this.size[to]! + this.size[from]!;
    this.head[from] = -1;
    this.tail[from] = -1;
    this.size[from] = 0;
  }
}
