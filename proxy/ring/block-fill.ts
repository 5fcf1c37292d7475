/**
 * Blocks of our own that frames are put into one by one, and handed over as a ring hands its blocks
 * over: in turn, so that the store may treat both alike (D7).
 *
 *   reserve ─► │ 16: stamp, length, arrival │ … lead │ frame … │ 16 │ … lead │ frame … │      one block
 *   take hands over the block being filled, at once: nothing waits for a timeout
 *   nothing is handed over, nothing waits ─► from the first block again: few blocks, in the caches
 *
 * Bounds: the blocks it is given. When the next one is not ours yet, there is no room, and the frame is
 * counted as dropped: loss, never leak. It copies nothing: whoever reserves a place fills it. Pure.
 */
import { FRAME_LEAD_BYTES } from './blocks.ts';
import type { Intake } from './frames.ts';

const ALIGN = 16;
const STAMP = 0;
const LENGTH = 4;
const ARRIVED = 8;

export class BlockFill {
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  readonly #blocks: number;
  readonly #blockBytes: number;
  readonly #lead: number;
  /** 1 = handed over. */
  readonly #taken: Uint8Array;
  /** Frames of each block that wait to be handed over. */
  readonly #counts: Int32Array;
  #filling = 0;
  #fill = 0;
  #next = 0;
  /** Blocks that are handed over. */
  #out = 0;
  #dropped = 0;

  /** Of `blocks` from the beginning of the memory. `lead`: bytes of a place before its frame, a multiple of 16. */
  constructor(memory: { readonly words: Int32Array; readonly times: Float64Array }, shape: { readonly blocks: number; readonly blockBytes: number; readonly lead: number }) {
    if (shape.lead < FRAME_LEAD_BYTES || shape.lead % ALIGN !== 0) throw new Error(`a lead of ${shape.lead} bytes`);
    this.#words = memory.words;
    this.#times = memory.times;
    this.#blocks = shape.blocks;
    this.#blockBytes = shape.blockBytes;
    this.#lead = shape.lead;
    this.#taken = new Uint8Array(shape.blocks);
    this.#counts = new Int32Array(shape.blocks);
  }
  /** Frames of one block at most. */
  static framesMax(blockBytes: number, lead: number): number {
    return Math.floor(blockBytes / lead); // one that could not be stored has no byte
  }

  /** Something waits to be taken. */
  get waiting(): boolean {
    return this.#counts[this.#next]! > 0;
  }

  /** Where the frame is to be put; -1 = there is no room. `arrivedMs`: since the source's own origin. */
  reserve(stamp: number, length: number, arrivedMs: number): number {
    const room = this.#roomOf(length);
    if (room > this.#blockBytes) throw new Error(`a frame of ${length} bytes is larger than a block`);
    if (!this.#hasRoom(room)) {
      this.#dropped++;
      return -1;
    }
    const at = this.#filling * this.#blockBytes + this.#fill;
    this.#words[(at + STAMP) >> 2] = stamp;
    this.#words[(at + LENGTH) >> 2] = length;
    this.#times[(at + ARRIVED) >> 3] = arrivedMs;
    this.#fill += room;
    this.#counts[this.#filling] = this.#counts[this.#filling]! + 1;
    return at + this.#lead;
  }
  #roomOf(length: number): number {
    return this.#lead + ((length + ALIGN - 1) & ~(ALIGN - 1));
  }
  #hasRoom(room: number): boolean {
    if (this.#out === 0 && this.#fill === 0 && this.#next === this.#filling) this.#filling = this.#next = 0;
    if (this.#taken[this.#filling] !== 0) return false;
    if (this.#fill + room <= this.#blockBytes) return true;
    const next = this.#after(this.#filling);
    if (this.#taken[next] !== 0 || this.#counts[next] !== 0) return false;
    this.#filling = next;
    this.#fill = 0;
    return true;
  }
  #after(block: number): number {
    return block + 1 === this.#blocks ? 0 : block + 1;
  }

  take(intake: Intake): number {
    const block = this.#next;
    const count = this.#counts[block]!;
    if (count === 0) return -1;
    let at = block * this.#blockBytes;
    for (let i = 0; i < count; i++) {
      const length = this.#words[(at + LENGTH) >> 2]!;
      intake.stamp[i] = this.#words[(at + STAMP) >> 2]!;
      intake.offset[i] = at + this.#lead;
      intake.length[i] = length;
      intake.arrivedMs[i] = this.#times[(at + ARRIVED) >> 3]!;
      at += this.#roomOf(length);
    }
    intake.count = count;
    this.#counts[block] = 0;
    this.#taken[block] = 1;
    this.#out++;
    this.#next = this.#after(block);
    if (block === this.#filling) {
      this.#filling = this.#next;
      this.#fill = 0;
    }
    return block;
  }
  giveBack(block: number): void {
    this.#taken[block] = 0;
    this.#out--;
  }
  /** Since the last call. */
  drops(): number {
    const dropped = this.#dropped;
    this.#dropped = 0;
    return dropped;
  }
}
