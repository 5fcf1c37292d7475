/**
 * Who owns which block of memory, and what is done when blocks run short (D7).
 *
 *   ring   ┌──┬──┬──┬──┬──┬──┬──┬──┐   the kernel fills them in order and cannot skip one:
 *          │ ours...│kernel's      │   the oldest block that is ours is where it will stop
 *          └──┴──┴──┴──┴──┴──┴──┴──┘
 *           oldest   ▲ taken next
 *   arena  ┌──┬──┬──┬──┬──┬──┬──┬──┐   ours alone, in any order: frames moved out of ring blocks
 *          └──┴──┴──┴──┴──┴──┴──┴──┘
 *
 * A block goes back when the last frame in it is gone. A block is retired every millisecond
 * however little is in it, so held frames would pin the whole ring in a quarter of a second:
 * when more than half the ring is ours, its oldest block is emptied into the arena if it is less
 * than half full (of frames that still live), and when less than an eighth is left, however full
 * it is. While epochs are short nothing is ever copied.
 *
 * Bounds: both sizes are fixed at start. With the arena full too, the ring fills up and the kernel
 * drops and counts. A frame of the arena takes its length, 16 bytes before it and alignment.
 */
import type { FrameSource, FrameTable } from './frames.ts';

/** Bytes before a frame that move with it: its virtio_net_hdr (10), rounded up. */
export const FRAME_LEAD_BYTES = 16;

export class BlockStore {
  readonly #source: FrameSource;
  readonly #table: FrameTable;
  /** First row of each block's chain; -1 = none. */
  readonly #chain: Int32Array;
  readonly #frames: Int32Array;
  readonly #bytes: Int32Array;
  readonly #ours: Uint8Array;
  readonly #arenaFree: Int32Array;
  #arenaFreeCount: number;
  #arenaOpen = -1;
  #arenaFill = 0;
  #oldest = 0;
  #span = 0;
  #filling = -1;

  constructor(source: FrameSource, table: FrameTable) {
    const blocks = source.ringBlocks + source.arenaBlocks;
    this.#source = source;
    this.#table = table;
    this.#chain = new Int32Array(blocks).fill(-1);
    this.#frames = new Int32Array(blocks);
    this.#bytes = new Int32Array(blocks);
    this.#ours = new Uint8Array(blocks);
    this.#arenaFree = new Int32Array(source.arenaBlocks);
    this.#arenaFreeCount = source.arenaBlocks;
    for (let i = 0; i < source.arenaBlocks; i++) this.#arenaFree[i] = blocks - 1 - i;
  }

  /** Share of all blocks in use, 0..1. */
  get occupancy(): number {
    const blocks = this.#source.ringBlocks + this.#source.arenaBlocks;
    return (this.#span + this.#source.arenaBlocks - this.#arenaFreeCount) / blocks;
  }
  /** Ring blocks from the oldest that is ours to the newest: what the kernel cannot use. */
  get ringSpan(): number {
    return this.#span;
  }

  /** `block` was taken from the source and stays ours at least until `filled`. */
  filling(block: number): void {
    if (this.#filling >= 0 || this.#ours[block] !== 0) throw new Error(`block ${block} is taken twice`);
    if (this.#span === 0) this.#oldest = block;
    if (block !== (this.#oldest + this.#span) % this.#source.ringBlocks) throw new Error(`block ${block} is out of order`);
    this.#ours[block] = 1;
    this.#span++;
    this.#filling = block;
  }
  filled(): void {
    const block = this.#filling;
    this.#filling = -1;
    if (this.#frames[block] === 0) this.#free(block);
  }

  /** Row `row`, whose offset is set, lives in its block from now on. */
  add(row: number): void {
    const table = this.#table;
    const block = table.offset[row]! >>> this.#source.blockShift;
    const first = this.#chain[block]!;
    table.blockPrev[row] = -1;
    table.blockNext[row] = first;
    if (first >= 0) table.blockPrev[first] = row;
    this.#chain[block] = row;
    this.#frames[block] = this.#frames[block]! + 1;
    this.#bytes[block] = this.#bytes[block]! + table.length[row]!;
  }

  remove(row: number): void {
    const table = this.#table;
    const block = table.offset[row]! >>> this.#source.blockShift;
    const next = table.blockNext[row]!;
    const prev = table.blockPrev[row]!;
    if (next >= 0) table.blockPrev[next] = prev;
    if (prev >= 0) table.blockNext[prev] = next;
    else this.#chain[block] = next;
    this.#bytes[block] = this.#bytes[block]! - table.length[row]!;
    const left = this.#frames[block]! - 1;
    this.#frames[block] = left;
    if (left < 0) throw new Error(`block ${block} has fewer frames than were removed`);
    if (left === 0 && block !== this.#filling) this.#free(block);
  }

  /** Empties ring blocks into the arena while the ring is short; at most `blocksMax` of them. */
  relieve(blocksMax: number): void {
    const { ringBlocks, blockShift } = this.#source;
    for (let i = 0; i < blocksMax && this.#span * 2 > ringBlocks; i++) {
      const sparse = this.#bytes[this.#oldest]! * 2 < 1 << blockShift;
      const urgent = (ringBlocks - this.#span) * 8 < ringBlocks;
      if (!(sparse || urgent) || !this.#empty(this.#oldest)) return;
    }
  }

  /** Moves the live frames of a ring block into the arena; false = the arena is full. */
  #empty(block: number): boolean {
    const table = this.#table;
    for (;;) {
      const row = this.#chain[block]!;
      if (row < 0) return true;
      const to = this.#reserve(table.length[row]! + FRAME_LEAD_BYTES);
      if (to < 0) return false;
      const from = table.offset[row]!;
      this.#source.copy(to, from - FRAME_LEAD_BYTES, table.length[row]! + FRAME_LEAD_BYTES);
      this.remove(row);
      table.offset[row] = to + FRAME_LEAD_BYTES;
      this.add(row);
    }
  }

  #reserve(bytes: number): number {
    const size = 1 << this.#source.blockShift;
    const room = (bytes + 15) & ~15;
    if (room > size) throw new Error(`a frame of ${bytes} bytes is larger than a block`);
    if (this.#arenaOpen < 0 || this.#arenaFill + room > size) {
      if (this.#arenaFreeCount === 0) return -1;
      const full = this.#arenaOpen;
      this.#arenaOpen = this.#arenaFree[--this.#arenaFreeCount]!;
      this.#arenaFill = 0;
      if (full >= 0 && this.#frames[full] === 0) this.#arenaFree[this.#arenaFreeCount++] = full;
    }
    const at = this.#arenaOpen * size + this.#arenaFill;
    this.#arenaFill += room;
    return at;
  }

  #free(block: number): void {
    if (block >= this.#source.ringBlocks) {
      if (block === this.#arenaOpen) this.#arenaFill = 0;
      else this.#arenaFree[this.#arenaFreeCount++] = block;
      return;
    }
    this.#ours[block] = 0;
    this.#source.giveBack(block);
    while (this.#span > 0 && this.#ours[this.#oldest] === 0) {
      this.#oldest = (this.#oldest + 1) % this.#source.ringBlocks;
      this.#span--;
    }
  }
}
