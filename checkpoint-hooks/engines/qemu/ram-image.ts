/**
 * A guest's memory in its three places, and what moves between them. For the worker thread: every
 * call is synchronous, those that take long are generators that pause after each piece.
 *
 *     live (the guest's RAM) ──capture──► shadow ──settle──┬─► base image in the store (pwrite)
 *                                                          └─► RAM of the standby that waits
 *
 * `settle` comes when the delta is durable, so that the base and the standby never run ahead of the
 * store: both are at the newest durable checkpoint, or the deltas that are kept bring them there.
 *
 * The base need not be a picture of one moment. Deltas are a redo log: every page written since the
 * base was last synced is in one that is still there, and applying one twice does no harm.
 */
import { closeSync, fdatasyncSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { Memory } from './memory.ts';
import { PAGE_BYTES, PageTracker, runsOf } from './pages.ts';
import { Damaged, readPart, writePart } from './part.ts';
import type { PartPath } from './part.ts';

const PIECE_BYTES = 4 << 20;

export interface Moved {
  /** Bytes that had to be copied. */
  readonly movedBytes: number;
}

export class RamImage {
  private readonly bytes: number;
  private readonly shadow: Memory;
  private live: Memory;
  private tracker: PageTracker;
  private base: number | undefined;
  private standby: { readonly path: string; readonly memory: Memory } | undefined;

  constructor(livePath: string, bytes: number) {
    this.bytes = bytes;
    this.live = Memory.file(livePath, bytes);
    this.shadow = Memory.anonymous(bytes);
    this.tracker = new PageTracker(this.live, this.shadow);
  }

  /** First picture of a running guest, into a new base image that is on the disk at the end. */
  *seed(basePath: string): Generator<void, Moved> {
    this.openBase(basePath, 'wx+');
    let movedBytes = 0;
    for (const { at, bytes } of this.tracker.seed(PIECE_BYTES)) {
      this.writeBase(at, bytes);
      movedBytes += bytes;
      yield;
    }
    if (this.base !== undefined) fdatasyncSync(this.base);
    return { movedBytes };
  }

  /**
   * The shadow as the store has it: what differs in the guest is in the next delta. The deltas go
   * into the base again: the engine before may have died before it settled the last one, and a
   * prune takes them away.
   */
  *adopt(basePath: string, parts: readonly PartPath[]): Generator<void, Moved> {
    this.openBase(basePath, 'r+');
    yield* readImage(this.shadow, basePath, parts, this.bytes);
    this.tracker.distrust();
    for (const { path, sequence } of parts) {
      const { pages } = readPart(path, { ramBytes: this.bytes, sequence });
      for (const [page, n] of runsOf(pages)) this.writeBase(page * PAGE_BYTES, n * PAGE_BYTES);
      yield;
    }
    return { movedBytes: 0 };
  }

  capture(): number {
    return this.tracker.capture().length;
  }

  writePart({ path, sequence }: PartPath, state: Uint8Array): number {
    const pieces = [...runsOf(this.tracker.changed)].map(([page, n]) => this.shadow.view(page * PAGE_BYTES, n * PAGE_BYTES));
    return writePart(path, { ramBytes: this.bytes, sequence }, state, this.tracker.changed, pieces);
  }

  settle(): void {
    for (const [page, n] of runsOf(this.tracker.changed)) {
      this.writeBase(page * PAGE_BYTES, n * PAGE_BYTES);
      this.standby?.memory.copyFrom(this.shadow, page * PAGE_BYTES, n * PAGE_BYTES);
    }
    this.tracker.settle();
  }

  /** A standby's RAM made equal to the shadow; what it has already is not moved. */
  *bringStandby(path: string): Generator<void, Moved> {
    this.dropStandby();
    const standby = Memory.file(path, this.bytes);
    // Mapped from here on: a delta that settles meanwhile goes to it as well.
    this.standby = { path, memory: standby };
    let movedBytes = 0;
    for (let at = 0; at < this.bytes; at += PIECE_BYTES) {
      movedBytes += copyDifferent(standby, this.shadow, at, Math.min(PIECE_BYTES, this.bytes - at));
      yield;
    }
    return { movedBytes };
  }

  dropStandby(): void {
    this.standby?.memory.unmap();
    this.standby = undefined;
  }

  /**
   * The standby runs now: it is the guest. The shadow may be ahead of it by a capture that was
   * never durable; those pages are owed and therefore in the next delta. The map of it is kept: a
   * new one would be filled page by page while the guests stand still for the next capture.
   */
  turnLive(livePath: string): void {
    this.live.unmap();
    const known = this.standby?.path === livePath ? this.standby.memory : undefined;
    if (known === undefined) this.dropStandby();
    this.standby = undefined;
    this.live = known ?? Memory.file(livePath, this.bytes);
    this.tracker = this.tracker.turned(this.live);
  }

  close(): void {
    this.dropStandby();
    this.live.unmap();
    this.shadow.unmap();
    if (this.base !== undefined) closeSync(this.base);
    this.base = undefined;
  }

  private openBase(path: string, flags: string): void {
    if (this.base !== undefined) closeSync(this.base);
    this.base = undefined;
    this.base = flags === 'wx+' ? openSync(path, flags, 0o600) : openKept(path, flags);
    if (flags === 'wx+') ftruncateSync(this.base, this.bytes);
  }

  private writeBase(at: number, bytes: number): void {
    if (this.base === undefined) throw new Error('a delta before the first picture');
    if (writeSync(this.base, this.shadow.view(at, bytes), 0, bytes, at) !== bytes) throw new Error('the disk did not take a base image: is it full?');
  }
}

function openKept(path: string, flags: string): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Damaged(`${path} is missing`);
  }
}

/** Page by page only where a piece differs; bytes copied. */
function copyDifferent(to: Memory, from: Memory, at: number, bytes: number): number {
  if (to.isSame(from, at, bytes)) return 0;
  let copied = 0;
  for (let page = at; page < at + bytes; page += PAGE_BYTES) {
    if (to.isSame(from, page, PAGE_BYTES)) continue;
    to.copyFrom(from, page, PAGE_BYTES);
    copied += PAGE_BYTES;
  }
  return copied;
}

/** What the store has of a guest's memory, into `to`. */
export function* readImage(to: Memory, basePath: string, parts: readonly PartPath[], bytes: number): Generator<void> {
  const fd = openKept(basePath, 'r');
  try {
    if (fstatSync(fd).size !== bytes) throw new Damaged(`${basePath} does not have the guest's ${bytes} bytes`);
    for (let at = 0; at < bytes; at += PIECE_BYTES) {
      const piece = Math.min(PIECE_BYTES, bytes - at);
      if (readSync(fd, to.view(at, piece), 0, piece, at) !== piece) throw new Damaged(`${basePath} could not be read in full`);
      yield;
    }
  } finally {
    closeSync(fd);
  }
  for (const { path, sequence } of parts) {
    const part = readPart(path, { ramBytes: bytes, sequence });
    for (const [i, page] of part.pages.entries()) to.view(page * PAGE_BYTES, PAGE_BYTES).set(part.bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
    yield;
  }
}
