/**
 * The hold queue of the portable plane: what a packet ring is to the kernel's, in memory of our own.
 *
 *   push ─► │ 16: stamp, length, arrival │ frame … │ 16 │ frame … │      one block
 *           the header lies right before its frame and moves with it into the arena
 *   take hands over the block being filled; `send` hands frames out, straight from here
 *
 * Blocks are filled in turn, as a ring's are, so that the store may treat both alike (D7). A block
 * is handed over as soon as it is asked for: nothing waits for a timeout.
 *
 * Bounds: the blocks of `bytes`, and as much of arena; memory is backed where it was used. When the
 * next block is not ours yet, the frame is dropped and counted (`drops`): loss, never leak.
 */
import { FRAME_LEAD_BYTES } from '../ring/blocks.ts';
import type { FrameTable, Intake } from '../ring/frames.ts';
import type { HoldQueue } from './groups.ts';

const BLOCK_SHIFT = 18;
const BLOCK_BYTES = 1 << BLOCK_SHIFT;
const BLOCKS_MIN = 64;
const BYTES_MAX = 1 << 30;
const BATCH_MAX = 64;
const ALIGN = 16;
/** A frame takes its header and at least one unit. */
export const SOFT_BLOCK_FRAMES_MAX = BLOCK_BYTES / (FRAME_LEAD_BYTES + ALIGN);

const STAMP = 0;
const LENGTH = 4;
const ARRIVED = 8;

export class SoftQueue implements HoldQueue {
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift = BLOCK_SHIFT;
  readonly batchMax = BATCH_MAX;
  readonly originSec = Math.floor(Date.now() / 1000);
  readonly settleMs = 3;
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  /** 1 = handed over. */
  readonly #taken: Uint8Array;
  /** Frames of each block that wait to be handed over. */
  readonly #counts: Int32Array;
  readonly #out: (stamp: number, frame: Buffer) => void;
  readonly #closed: () => void;
  #filling = 0;
  #fill = 0;
  #next = 0;
  #dropped = 0;

  /** `out` takes each frame that leaves, with its stamp; `closed` is called once. */
  constructor(bytes: number, out: (stamp: number, frame: Buffer) => void, closed: () => void) {
    this.ringBlocks = Math.max(BLOCKS_MIN, Math.ceil(Math.min(bytes, BYTES_MAX) / BLOCK_BYTES));
    this.arenaBlocks = this.ringBlocks;
    const memory = new ArrayBuffer((this.ringBlocks + this.arenaBlocks) * BLOCK_BYTES);
    this.#bytes = Buffer.from(memory);
    this.#words = new Int32Array(memory);
    this.#times = new Float64Array(memory);
    this.#taken = new Uint8Array(this.ringBlocks);
    this.#counts = new Int32Array(this.ringBlocks);
    this.#out = out;
    this.#closed = closed;
  }

  bind(): void {
    // frames come by push
  }
  close(): void {
    this.#closed();
  }

  /** Something waits to be taken. */
  get waiting(): boolean {
    return this.#counts[this.#next]! > 0;
  }

  /** A copy of the frame waits from here on. `arrivedMs`: wall clock. */
  push(stamp: number, frame: Uint8Array, arrivedMs: number): void {
    const room = FRAME_LEAD_BYTES + ((frame.length + ALIGN - 1) & ~(ALIGN - 1));
    if (room > BLOCK_BYTES) throw new Error(`a frame of ${frame.length} bytes is larger than a block`);
    if (!this.#hasRoom(room)) {
      this.#dropped++;
      return;
    }
    const at = this.#filling * BLOCK_BYTES + this.#fill;
    this.#words[(at + STAMP) >> 2] = stamp;
    this.#words[(at + LENGTH) >> 2] = frame.length;
    this.#times[(at + ARRIVED) >> 3] = arrivedMs - this.originSec * 1000;
    this.#bytes.set(frame, at + FRAME_LEAD_BYTES);
    this.#fill += room;
    this.#counts[this.#filling] = this.#counts[this.#filling]! + 1;
  }
  #hasRoom(room: number): boolean {
    if (this.#taken[this.#filling] !== 0) return false;
    if (this.#fill + room <= BLOCK_BYTES) return true;
    const next = this.#after(this.#filling);
    if (this.#taken[next] !== 0 || this.#counts[next] !== 0) return false;
    this.#filling = next;
    this.#fill = 0;
    return true;
  }
  #after(block: number): number {
    return block + 1 === this.ringBlocks ? 0 : block + 1;
  }

  take(intake: Intake): number {
    const block = this.#next;
    const count = this.#counts[block]!;
    if (count === 0) return -1;
    let at = block * BLOCK_BYTES;
    for (let i = 0; i < count; i++) {
      const length = this.#words[(at + LENGTH) >> 2]!;
      intake.stamp[i] = this.#words[(at + STAMP) >> 2]!;
      intake.offset[i] = at + FRAME_LEAD_BYTES;
      intake.length[i] = length;
      intake.arrivedMs[i] = this.#times[(at + ARRIVED) >> 3]!;
      at += FRAME_LEAD_BYTES + ((length + ALIGN - 1) & ~(ALIGN - 1));
    }
    intake.count = count;
    this.#counts[block] = 0;
    this.#taken[block] = 1;
    this.#next = this.#after(block);
    if (block === this.#filling) {
      this.#filling = this.#next;
      this.#fill = 0;
    }
    return block;
  }
  giveBack(block: number): void {
    this.#taken[block] = 0;
  }
  copy(to: number, from: number, bytes: number): void {
    this.#bytes.copyWithin(to, from, from + bytes);
  }
  drops(): number {
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }

  /** The way out decides what becomes of each: none is refused here. */
  send(table: FrameTable, batch: Int32Array, count: number): number {
    for (let i = 0; i < count; i++) {
      const row = batch[i]!;
      const at = table.offset[row]!;
      this.#out(table.stamp[row]! >>> 0, this.#bytes.subarray(at, at + table.length[row]!));
    }
    return count;
  }

  readInto(into: Uint8Array, at: number, offset: number, length: number): void {
    into.set(this.#bytes.subarray(offset, offset + length), at);
  }
}
