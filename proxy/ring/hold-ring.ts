/**
 * The hold ring of one group: which frames wait, which may go, in which order. Pure: no clock, no
 * input or output, nothing allocated per frame.
 *
 *   append ─┬─ held   colour <= committed ────────────────────────────► ready (first in, first out)
 *           │         else: section of its colour ── release(colour) ─► ▲
 *           │         out of a lane: before that section, see joinSpilled()
 *           ├─ early  receiver behind: queue of its nic ─ receiver() ─► │
 *           ├─ late   record until a release >= due ── restore() ─────► │ (and kept, due at `next`)
 *           └─ dead colour, or no room: dropped
 *
 *   sections   │ 41 │ 42 │ 43 │ 44 │      release(42): "every held frame of colours <= 42 leaves",
 *              └ready ───┘ └ waiting ┘     now or when it arrives; saying it twice changes nothing
 *
 * Order (I6): frames of one source port come in the order of their colours, sections move to the
 * end of `ready` in the order of colours, and an early queue moves from its head only. A record
 * stands for a frame that was delivered, so at a restore records go before everything else.
 *
 * Peek, send, then pop: a frame leaves only after the kernel took it. An invariant that does not
 * hold throws, and the process ends: what is held is lost, never let out.
 */
import { drain } from './drain.ts';
import type { FrameSource, Intake } from './frames.ts';
import { restore } from './restore.ts';
import { CLASS_HELD, CLASS_LATE, LANES, LEAD_MAX, LEAD_NOTICE, LEAD_SPILLED, nearColour, stampClass, stampColour, stampLead, stampNic } from './stamp.ts';
import { DRAIN_DISCARD, DRAIN_NONE, DRAIN_RELEASE, FrameStore, READY, earlyOf, recordOf, sectionOf, spilledOf } from './store.ts';
import type { DrainFate, StoreOptions } from './store.ts';
import { diff, slotOf } from './window.ts';

/** Where held frames may wait besides this ring. */
export interface Elsewhere {
  /** Frames of this colour may still come from there, spilled; of any other they come too late. */
  has(colour: number): boolean;
}
const NOWHERE: Elsewhere = { has: () => false };

export interface HeldColour {
  readonly epoch: number;
  readonly frames: number;
  readonly bytes: number;
  readonly oldestMs: number;
}

export class HoldRing {
  readonly store: FrameStore;
  /** Epochs whose first held frame was seen since the list was last emptied. */
  readonly outputs: number[] = [];
  /** Frames that ever came out of a lane, by colour modulo their number; an int32 circle. */
  readonly spilledSeen = new Int32Array(LANES);
  readonly #unlabelled: number[] = [];
  readonly #elsewhere: Elsewhere;

  constructor(options: StoreOptions, source: FrameSource, elsewhere = NOWHERE) {
    this.store = new FrameStore(options, source);
    this.#elsewhere = elsewhere;
  }

  get readyFrames(): number {
    return this.store.lists.size[READY]!;
  }

  /** The frames of a block just taken from the source. */
  accept(block: number, intake: Intake): void {
    this.store.blocks.filling(block);
    for (let i = 0; i < intake.count; i++) this.#append(intake, i);
    this.store.blocks.filled();
  }

  #append(intake: Intake, i: number): void {
    const { tally, window } = this.store;
    const stamp = intake.stamp[i]!;
    const length = intake.length[i]!;
    const cls = stampClass(stamp);
    const nic = stampNic(stamp);
    const colour = nearColour(stampColour(stamp), window.newest);
    const lead = cls === CLASS_HELD ? stampLead(stamp) : 0;
    if ((lead & LEAD_NOTICE) !== 0) {
      this.noticed(colour);
      return;
    }
    if ((lead & LEAD_SPILLED) !== 0 && !this.#maySpill(colour)) return;
    tally.arrived++;
    tally.arrivedBytes += length;
    if (cls === CLASS_HELD) window.arrived[colour & 63] = window.arrived[colour & 63]! + 1;
    if (length === 0 || cls === 0 || nic === 0) {
      tally.refused++;
      this.store.lose(stamp);
      return;
    }
    if (!window.admits(colour)) {
      if (cls !== CLASS_LATE) tally.discarded++;
      this.store.lose(stamp);
      return;
    }
    window.see(colour);
    if (cls === CLASS_LATE) this.#appendLate(intake, i, colour);
    else this.#appendQueued(intake, i, colour, cls, nic);
  }

  #appendQueued(intake: Intake, i: number, colour: number, cls: number, nic: number): void {
    const { store } = this;
    const drain = store.drainOf(nic);
    if (drain !== DRAIN_NONE) store.covered[nic] = store.covered[nic]! + 1;
    if (drain === DRAIN_DISCARD) {
      store.tally.discarded++;
      store.lose(intake.stamp[i]!);
      return;
    }
    const row = store.store(intake, i, colour);
    if (row < 0) return;
    if (cls === CLASS_HELD) {
      const leaves = drain === DRAIN_RELEASE || diff(colour, store.window.committed) <= 0;
      if (!leaves) this.#output(colour);
      // What comes directly waits behind what its colour's lane still spills.
      const place = (stampLead(intake.stamp[i]!) & LEAD_SPILLED) === 0 ? sectionOf(colour) : spilledOf(colour);
      store.lists.push(leaves ? READY : place, row);
      return;
    }
    store.tally.early++;
    if (drain === DRAIN_RELEASE) {
      if (diff(colour, store.reached(nic)) <= 0) store.lists.push(READY, row);
      else store.discard(row);
      return;
    }
    store.lists.push(earlyOf(nic), row);
    if (store.lists.size[earlyOf(nic)] === 1) store.moveEarly(nic);
  }

  /**
   * A record of a frame its receiver has got. Its due colour may have been rolled back while the
   * record was on its way: then it is sent again like those that restore() found. A lead at its
   * limit was cut down by the kernel (a frame that waited over a rollback): delivered already.
   */
  #appendLate(intake: Intake, i: number, colour: number): void {
    const { store } = this;
    const lead = stampLead(intake.stamp[i]!);
    let due = (colour + lead) | 0;
    const undone = diff(due, store.next) < 0 && store.window.dead[slotOf(due)] !== 0;
    if (undone) due = store.next;
    const again = undone && lead < LEAD_MAX;
    if (!again && diff(due, store.window.committed) <= 0) return;
    const row = store.store(intake, i, colour);
    if (row < 0) return;
    store.tally.recorded++;
    store.table.due[row] = due;
    store.window.see(due);
    store.lists.push(again ? READY : recordOf(due), row);
  }

  /** A lane that was given up counted its frames as lost: one that comes after all would leave out of order. */
  #maySpill(colour: number): boolean {
    if (!this.#elsewhere.has(colour)) return false;
    const lane = colour & (LANES - 1);
    this.spilledSeen[lane] = this.spilledSeen[lane]! + 1;
    return true;
  }

  /** The lane of `colour` is through: what came out of it goes before the rest. It arrived at `firstMs` at the earliest. */
  joinSpilled(colour: number, firstMs: number): void {
    const { lists, table } = this.store;
    const [spilled, section] = [spilledOf(colour), sectionOf(colour)];
    for (let row = lists.head[spilled]!; row >= 0; row = table.next[row]!) table.arrivedMs[row] = Math.min(table.arrivedMs[row]!, firstMs);
    lists.append(spilled, section);
    lists.append(section, spilled);
  }

  /** Held frames of this colour have gone elsewhere. */
  noticed(colour: number): void {
    const { window } = this.store;
    if (!window.admits(colour)) return;
    window.see(colour);
    if (diff(colour, window.committed) > 0) this.#output(colour);
  }

  /** First held frame of a colour: announced under its label, as soon as that is known. */
  #output(colour: number): void {
    const { window } = this.store;
    const slot = slotOf(colour);
    if (window.output[slot] !== 0) return;
    window.output[slot] = 1;
    const label = window.epoch[slot]!;
    if (Number.isNaN(label)) this.#unlabelled.push(colour);
    else this.outputs.push(label);
  }

  advance(colour: number, epoch: number): void {
    const named = colour | 0;
    this.store.window.name(named, epoch);
    const at = this.#unlabelled.indexOf(named);
    if (at < 0) return;
    this.#unlabelled.splice(at, 1);
    this.outputs.push(epoch);
  }

  /** Every held frame of colours <= colour leaves; records that are due by then are dropped. */
  release(colour: number): void {
    const { window, lists } = this.store;
    let c = (window.committed + 1) | 0;
    window.commit(colour | 0);
    for (; diff(c, window.committed) <= 0; c = (c + 1) | 0) {
      lists.append(READY, sectionOf(c));
      this.store.forgetAll(recordOf(c));
    }
  }

  restore(restored: number, nextColour: number, epoch: number): void {
    this.#unlabelled.length = 0;
    restore(this.store, restored | 0, nextColour | 0);
    this.advance(nextColour, epoch);
    this.store.window.commit((nextColour - 1) | 0);
  }

  /** Early frames for this nic of colours <= colour may go. */
  receiver(nic: number, colour: number): void {
    this.store.receiver(nic, colour | 0);
  }

  /** Everything held from and early for these nics (undefined: all), now and as it arrives. */
  drain(nics: readonly number[] | undefined, fate: DrainFate): void {
    drain(this.store, nics, fate);
  }

  /** The first frames that may go, in order; they stay. Returns how many. */
  peek(batch: Int32Array, max: number): number {
    const { next } = this.store.table;
    let count = 0;
    for (let row = this.store.lists.head[READY]!; row >= 0 && count < max; row = next[row]!) batch[count++] = row;
    return count;
  }

  /** The kernel took the first `count` of them. */
  pop(count: number): void {
    const { store } = this;
    for (let i = 0; i < count; i++) {
      const row = store.lists.shift(READY);
      if (row < 0) throw new Error('more frames were popped than were ready');
      this.#sent(row, stampClass(store.table.stamp[row]!));
    }
  }

  #sent(row: number, cls: number): void {
    const { store } = this;
    if (cls === CLASS_HELD) {
      store.tally.released++;
      store.tally.releasedBytes += store.table.length[row]!;
    } else if (cls === CLASS_LATE) {
      store.tally.redelivered++;
      if (diff(store.table.due[row]!, store.window.committed) > 0) {
        store.lists.push(recordOf(store.table.due[row]!), row);
        return;
      }
    }
    store.forget(row);
  }

  /** The kernel will not take the first ready frame. */
  giveUp(): void {
    const row = this.store.lists.shift(READY);
    if (row < 0) throw new Error('nothing is ready to be given up');
    this.store.tally.refused++;
    this.store.lose(this.store.table.stamp[row]!);
    this.store.forget(row);
  }

  /** Share of the tightest bound in use, 0..1. */
  get occupancy(): number {
    const { store } = this;
    return Math.max(store.storedBytes / store.bytesMax, store.blocks.occupancy, store.table.live / store.table.framesMax);
  }

  /** Arrival of the oldest held frame, NaN when none is held. */
  oldestArrivedMs(): number {
    const { store } = this;
    if (store.heldFrames === 0) return Number.NaN;
    let row = store.lists.head[READY]!;
    while (row >= 0 && stampClass(store.table.stamp[row]!) !== CLASS_HELD) row = store.table.next[row]!;
    for (let c = (store.window.committed + 1) | 0; row < 0 && diff(c, store.window.newest) <= 0; c = (c + 1) | 0) {
      row = store.lists.head[sectionOf(c)]!;
    }
    return row < 0 ? Number.NaN : store.table.arrivedMs[row]!;
  }

  /** Held frames by epoch, oldest first; oldestMs is the arrival of the first that still waits. */
  held(): HeldColour[] {
    const { window, lists, table } = this.store;
    const list: HeldColour[] = [];
    const oldest = this.oldestArrivedMs();
    for (let c = (window.newest - 2047) | 0; diff(c, window.newest) <= 0; c = (c + 1) | 0) {
      const frames = window.frames[slotOf(c)]!;
      if (frames === 0) continue;
      const head = lists.head[sectionOf(c)]!;
      const oldestMs = head < 0 ? oldest : table.arrivedMs[head]!;
      list.push({ epoch: window.label(c), frames, bytes: window.bytes[slotOf(c)]!, oldestMs });
    }
    return list;
  }
}
