/**
 * What changed in a guest's memory since it was last looked at.
 *
 *     live    ████░░██████░░░░████   the guest's own RAM file, mapped; ░ = holes, never written
 *     shadow  ████░░███▒██░░░░████   what it was at the last capture
 *                      └ differs: copied into the shadow, its number into `changed`
 *
 * Afterwards the shadow is the guest at this capture, and stays so until the next: a delta is the
 * list of pages, its bytes are read from the shadow whenever they are needed.
 *
 * A capture whose delta never became durable leaves its pages `owed`: the next delta has them too,
 * whether they changed again or not, because the store never learned of them.
 *
 * A page that was there once is looked at for ever: if the guest gives its memory back (a balloon),
 * the file has a hole where the shadow has bytes.
 *
 * Compare: blocks of RAM_GRAIN_BYTES by the C library's memcmp, pages only where a block differs.
 */
import { RAM_GRAIN_BYTES } from './guest.ts';
import type { Extent, Memory } from './memory.ts';

export const PAGE_BYTES = 4096;

export class PageTracker {
  private readonly live: Memory;
  private readonly shadow: Memory;
  /** One byte a page: 1 = in no durable delta yet. */
  private readonly owed: Uint8Array;
  /** One byte a page: 1 = the file had it once. */
  private readonly seen: Uint8Array;
  private list: Uint32Array;
  private count = 0;

  constructor(live: Memory, shadow: Memory) {
    if (live.bytes !== shadow.bytes || live.bytes % RAM_GRAIN_BYTES !== 0) throw new RangeError(`${live.bytes} and ${shadow.bytes} bytes cannot be compared`);
    this.live = live;
    this.shadow = shadow;
    this.owed = new Uint8Array(live.bytes / PAGE_BYTES);
    this.seen = new Uint8Array(live.bytes / PAGE_BYTES);
    this.list = new Uint32Array(live.bytes / PAGE_BYTES);
  }

  /** Numbers of the pages of the last capture, in ascending order. */
  get changed(): Uint32Array {
    return this.list.subarray(0, this.count);
  }

  /** The same shadow and debts, beside another process's memory of the same guest. */
  turned(live: Memory): PageTracker {
    const next = new PageTracker(live, this.shadow);
    next.owed.set(this.owed);
    next.seen.set(this.seen);
    return next;
  }

  /** Only while the guest is stopped: what it writes meanwhile would be torn. */
  capture(): Uint32Array {
    this.count = 0;
    this.look();
    for (let page = this.seen.indexOf(1); page >= 0; ) {
      const hole = this.seen.indexOf(0, page);
      const end = hole < 0 ? this.seen.length : hole;
      this.compare(page * PAGE_BYTES, end * PAGE_BYTES);
      page = this.seen.indexOf(1, end);
      if (end === this.seen.length) break;
    }
    return this.changed;
  }

  /** The shadow was filled from elsewhere: where it has bytes, the guest is looked at. */
  distrust(): void {
    for (let page = 0; page < this.seen.length; page += 1) {
      if (!this.shadow.isZero(page * PAGE_BYTES, PAGE_BYTES)) this.seen[page] = 1;
    }
  }

  /** The last capture is in the store: nothing is owed. */
  settle(): void {
    this.owed.fill(0);
    this.count = 0;
  }

  /** Copies what the file has into the shadow, while the guest may write: a first picture, torn and all. */
  *seed(pieceBytes: number): Generator<Extent> {
    for (const extent of this.live.extents()) {
      for (let at = extent.at; at < extent.at + extent.bytes; at += pieceBytes) {
        const bytes = Math.min(pieceBytes, extent.at + extent.bytes - at);
        this.shadow.copyFrom(this.live, at, bytes);
        yield { at, bytes };
      }
    }
  }

  private look(): void {
    for (const { at, bytes } of this.live.extents()) this.seen.fill(1, at / PAGE_BYTES, Math.ceil((at + bytes) / PAGE_BYTES));
  }

  private compare(from: number, to: number): void {
    let at = from;
    while (at < to) {
      const end = Math.min(to, at - (at % RAM_GRAIN_BYTES) + RAM_GRAIN_BYTES);
      if (this.isOwed(at, end) || !this.live.isSame(this.shadow, at, end - at)) this.comparePages(at, end);
      at = end;
    }
  }

  private isOwed(from: number, to: number): boolean {
    for (let page = from / PAGE_BYTES; page < to / PAGE_BYTES; page += 1) if (this.owed[page] === 1) return true;
    return false;
  }

  private comparePages(from: number, to: number): void {
    for (let at = from; at < to; at += PAGE_BYTES) {
      const page = at / PAGE_BYTES;
      const same = this.live.isSame(this.shadow, at, PAGE_BYTES);
      if (same && this.owed[page] === 0) continue;
      if (!same) this.shadow.copyFrom(this.live, at, PAGE_BYTES);
      this.owed[page] = 1;
      this.list[this.count] = page;
      this.count += 1;
    }
  }
}

/** Pages that follow each other, as one piece: [first page, how many]. */
export function* runsOf(pages: Uint32Array): Generator<readonly [number, number]> {
  for (let i = 0; i < pages.length; ) {
    const first = pages[i] ?? 0;
    let n = 1;
    while (pages[i + n] === first + n) n += 1;
    yield [first, n];
    i += n;
  }
}
