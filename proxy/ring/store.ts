/**
 * Everything the hold ring remembers, and the few moves from which its operations are made. A
 * frame is in exactly one list, and every frame that came in leaves by exactly one of these doors:
 *
 *              ┌─ section of its colour ─┐            ┌─ sent: gone from here, back at its port
 *   store() ──►├─ early queue of its nic ├─► ready ──►├─ sent and kept: an in-transit record (I3)
 *              ├─ record by its due colour             └─ given up: the kernel kept refusing it
 *              └────────────────────────────────────── discard(): dead, drained, no longer needed
 *
 * `gone` (D5): held and early frames that end by any door but `sent` are counted per nic, for the
 * caller to add to the kernel's cells once a breath; the kernel counts those that were sent.
 *
 * Bounds: frames, bytes (all classes together) and blocks; at a bound the new frame is dropped and
 * counted as overflow. It does not know time, and it decides nothing about colours.
 */
import { BlockStore } from './blocks.ts';
import { FrameTable, Lists } from './frames.ts';
import type { FrameSource, Intake } from './frames.ts';
import { CLASS_EARLY, CLASS_HELD, CLASS_LATE, NICS_MAX, stampClass, stampNic } from './stamp.ts';
import { ColourWindow, WINDOW, diff, slotOf } from './window.ts';

/** Lists: ready, then held sections and records by slot of their colour, then early queues by nic. */
export const READY = 0;
const SCRATCH = 1;
const SECTION = 2;
const RECORD = SECTION + WINDOW;
const EARLY = RECORD + WINDOW;
export const sectionOf = (colour: number): number => SECTION + slotOf(colour);
export const recordOf = (due: number): number => RECORD + slotOf(due);
export const earlyOf = (nic: number): number => EARLY + nic;
const SPILLED = EARLY + NICS_MAX;
/** Held frames that came out of their colour's lane, while that may bring more: they go before its section. */
export const spilledOf = (colour: number): number => SPILLED + slotOf(colour);

/** How frames of a nic are treated as they arrive. */
export const DRAIN_NONE = 0;
export const DRAIN_RELEASE = 1;
export const DRAIN_DISCARD = 2;
export type DrainFate = typeof DRAIN_RELEASE | typeof DRAIN_DISCARD;

export interface StoreOptions {
  readonly framesMax: number;
  readonly bytesMax: number;
  readonly colour: number;
  readonly epoch: number;
}

/** Counts that only grow. */
export class Tally {
  arrived = 0;
  arrivedBytes = 0;
  released = 0;
  releasedBytes = 0;
  discarded = 0;
  overflow = 0;
  refused = 0;
  early = 0;
  recorded = 0;
  redelivered = 0;
}

export class FrameStore {
  readonly table: FrameTable;
  readonly lists: Lists;
  readonly blocks: BlockStore;
  readonly window: ColourWindow;
  readonly tally = new Tally();
  readonly bytesMax: number;
  /** Frames of class HELD here, and their bytes. */
  heldFrames = 0;
  heldBytes = 0;
  /** Frames of class EARLY here. */
  earlyFrames = 0;
  /** Bytes of all frames here. */
  storedBytes = 0;
  /** Held elsewhere under the same bound. */
  bytesElsewhere = 0;
  readonly heldByNic = new Int32Array(NICS_MAX);
  readonly earlyByNic = new Int32Array(NICS_MAX);
  /** Nics that ever had a frame here, in order of appearance. */
  readonly nics = new Int32Array(NICS_MAX);
  nicCount = 0;
  readonly #seen = new Uint8Array(NICS_MAX);
  readonly goneHeld = new Int32Array(NICS_MAX);
  readonly goneEarly = new Int32Array(NICS_MAX);
  gone = 0;
  /** Colour that each nic's member has reached; meaningful where `receiverKnown`. */
  readonly receiverColour = new Int32Array(NICS_MAX);
  readonly receiverKnown = new Uint8Array(NICS_MAX);
  readonly #drains = new Uint8Array(NICS_MAX);
  #drainAll: DrainFate | typeof DRAIN_NONE = DRAIN_NONE;
  /** Frames that a drain has covered so far, by nic. */
  readonly covered = new Int32Array(NICS_MAX);
  /** Where the last restore went on; records of the execution before it are due there. */
  next: number;

  constructor(options: StoreOptions, source: FrameSource) {
    this.table = new FrameTable(options.framesMax);
    this.lists = new Lists(SPILLED + WINDOW, this.table.next);
    this.blocks = new BlockStore(source, this.table);
    this.window = new ColourWindow(options.colour, options.epoch);
    this.bytesMax = options.bytesMax;
    this.next = this.window.newest;
  }

  drainOf(nic: number): number {
    return this.#drainAll !== DRAIN_NONE ? this.#drainAll : this.#drains[nic]!;
  }
  /** A drain may change from release to discard; it goes on counting then. */
  beginDrain(nics: readonly number[] | undefined, fate: DrainFate): void {
    for (const nic of nics ?? this.nics.subarray(0, this.nicCount)) {
      if (this.drainOf(nic) === DRAIN_NONE) this.covered[nic] = this.heldByNic[nic]! + this.earlyByNic[nic]!;
      if (nics !== undefined) this.#drains[nic] = fate;
      this.meet(nic);
    }
    if (nics === undefined) this.#drainAll = fate;
  }
  /** These nics hold again, or are gone. Returns the frames their drain covered. */
  endDrain(nics: readonly number[]): number {
    let frames = 0;
    for (const nic of nics) {
      frames += this.covered[nic]!;
      this.covered[nic] = 0;
      this.#drains[nic] = DRAIN_NONE;
    }
    return frames;
  }

  /** The nic's member has reached `colour`: early frames up to it may go, in their order. */
  receiver(nic: number, colour: number): void {
    if (this.receiverKnown[nic] === 0 || diff(colour, this.receiverColour[nic]!) > 0) this.receiverColour[nic] = colour;
    this.receiverKnown[nic] = 1;
    this.moveEarly(nic);
  }
  /** How far an early frame of a drained nic may be ahead: the kernel refuses any later one. */
  reached(nic: number): number {
    return this.receiverKnown[nic] === 0 ? this.window.named : this.receiverColour[nic]!;
  }
  moveEarly(nic: number): void {
    if (this.receiverKnown[nic] === 0) return;
    const { lists, table } = this;
    const list = earlyOf(nic);
    const reached = this.receiverColour[nic]!;
    for (let row = lists.head[list]!; row >= 0 && diff(table.colour[row]!, reached) <= 0; row = lists.head[list]!) {
      lists.push(READY, lists.shift(list));
    }
  }

  /** A row for frame `i` of the intake, in no list yet; -1 = no room, counted. */
  store(intake: Intake, i: number, colour: number): number {
    const { table } = this;
    const stamp = intake.stamp[i]!;
    const length = intake.length[i]!;
    const row = this.storedBytes + this.bytesElsewhere + length > this.bytesMax ? -1 : table.take();
    if (row < 0) {
      this.tally.overflow++;
      this.lose(stamp);
      return -1;
    }
    table.stamp[row] = stamp;
    table.offset[row] = intake.offset[i]!;
    table.length[row] = length;
    table.colour[row] = colour;
    table.arrivedMs[row] = intake.arrivedMs[i]!;
    this.storedBytes += length;
    this.blocks.add(row);
    this.#count(stamp, colour, 1, length);
    return row;
  }

  /** The frame will never leave: tell the kernel's counters. */
  lose(stamp: number): void {
    const cls = stampClass(stamp);
    const nic = stampNic(stamp);
    if (cls === CLASS_HELD) this.goneHeld[nic] = this.goneHeld[nic]! + 1;
    else if (cls === CLASS_EARLY) this.goneEarly[nic] = this.goneEarly[nic]! + 1;
    else return;
    this.gone++;
    this.meet(nic);
  }

  meet(nic: number): void {
    if (this.#seen[nic] !== 0) return;
    this.#seen[nic] = 1;
    this.nics[this.nicCount++] = nic;
  }

  /** Frees a row that is in no list and was sent or is a record no longer needed. */
  forget(row: number): void {
    const { table } = this;
    const length = table.length[row]!;
    this.storedBytes -= length;
    this.#count(table.stamp[row]!, table.colour[row]!, -1, -length);
    this.blocks.remove(row);
    table.give(row);
  }

  /** Frees a row that is in no list and must not leave. */
  discard(row: number): void {
    const stamp = this.table.stamp[row]!;
    if (stampClass(stamp) !== CLASS_LATE) this.tally.discarded++;
    this.lose(stamp);
    this.forget(row);
  }

  discardAll(list: number): void {
    for (let row = this.lists.shift(list); row >= 0; row = this.lists.shift(list)) this.discard(row);
  }

  forgetAll(list: number): void {
    for (let row = this.lists.shift(list); row >= 0; row = this.lists.shift(list)) this.forget(row);
  }

  /** Takes every row out of `list` and keeps, in order, those that `keep` does not take over. */
  sift(list: number, keep: (row: number) => boolean): void {
    const { lists } = this;
    lists.append(SCRATCH, list);
    for (let row = lists.shift(SCRATCH); row >= 0; row = lists.shift(SCRATCH)) {
      if (keep(row)) lists.push(list, row);
    }
  }

  #count(stamp: number, colour: number, frames: number, bytes: number): void {
    const cls = stampClass(stamp);
    const nic = stampNic(stamp);
    if (cls === CLASS_HELD) {
      const slot = slotOf(colour);
      this.window.frames[slot] = this.window.frames[slot]! + frames;
      this.window.bytes[slot] = this.window.bytes[slot]! + bytes;
      this.heldFrames += frames;
      this.heldBytes += bytes;
      this.heldByNic[nic] = this.heldByNic[nic]! + frames;
    } else if (cls === CLASS_EARLY) {
      this.earlyFrames += frames;
      this.earlyByNic[nic] = this.earlyByNic[nic]! + frames;
    }
    this.meet(nic);
  }
}
