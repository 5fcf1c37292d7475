/**
 * The hold queue of the portable plane: what a packet ring is to the kernel's, in memory of our own
 * (ring/block-fill.ts). A frame is put into it as it comes; `send` hands frames out, straight from here.
 *
 * Bounds: the blocks of `bytes`, and as much of arena; memory is backed where it was used.
 */
import { BlockFill } from '../ring/block-fill.ts';
import { FRAME_LEAD_BYTES } from '../ring/blocks.ts';
import type { FrameTable, Intake } from '../ring/frames.ts';
import type { HoldQueue } from './groups.ts';

const BLOCK_SHIFT = 18;
const BLOCK_BYTES = 1 << BLOCK_SHIFT;
const BLOCKS_MIN = 64;
const BYTES_MAX = 1 << 30;
const BATCH_MAX = 64;
export const SOFT_BLOCK_FRAMES_MAX = BlockFill.framesMax(BLOCK_BYTES, FRAME_LEAD_BYTES);

export class SoftQueue implements HoldQueue {
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift = BLOCK_SHIFT;
  readonly batchMax = BATCH_MAX;
  readonly originSec = Math.floor(Date.now() / 1000);
  readonly settleMs = 3;
  readonly #bytes: Buffer;
  readonly #fill: BlockFill;
  readonly #out: (stamp: number, frame: Buffer) => void;
  readonly #closed: () => void;

  /** `out` takes each frame that leaves, with its stamp; `closed` is called once. */
  constructor(bytes: number, out: (stamp: number, frame: Buffer) => void, closed: () => void) {
    this.ringBlocks = Math.max(BLOCKS_MIN, Math.ceil(Math.min(bytes, BYTES_MAX) / BLOCK_BYTES));
    this.arenaBlocks = this.ringBlocks;
    const memory = new ArrayBuffer((this.ringBlocks + this.arenaBlocks) * BLOCK_BYTES);
    this.#bytes = Buffer.from(memory);
    this.#fill = new BlockFill({ words: new Int32Array(memory), times: new Float64Array(memory) }, { blocks: this.ringBlocks, blockBytes: BLOCK_BYTES, lead: FRAME_LEAD_BYTES });
    this.#out = out;
    this.#closed = closed;
  }

  bind(): void {
    // frames come by push
  }
  close(): void {
    this.#closed();
  }

  get waiting(): boolean {
    return this.#fill.waiting;
  }
  /** A copy of the frame waits from here on. `arrivedMs`: wall clock. */
  push(stamp: number, frame: Uint8Array, arrivedMs: number): void {
    const at = this.#fill.reserve(stamp, frame.length, arrivedMs - this.originSec * 1000);
    if (at >= 0) this.#bytes.set(frame, at);
  }
  take(intake: Intake): number {
    return this.#fill.take(intake);
  }
  giveBack(block: number): void {
    this.#fill.giveBack(block);
  }
  copy(to: number, from: number, bytes: number): void {
    this.#bytes.copyWithin(to, from, from + bytes);
  }
  drops(): number {
    return this.#fill.drops();
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
