/**
 * The hold loop of one group, one bounded breath at a time.
 *
 *   breath   1 in     filled blocks from the source, at most BLOCKS or FRAMES of them
 *            2 room   ring blocks emptied into the arena where the ring runs short
 *            3 out    lanes that may go, and between them ready frames to the sink, at most OUT of them:
 *                     peek, send, then pop
 *            4 facts  what was released, what is new, what runs short; counters for anyone
 *
 * The clock is read once, by the caller. The answer says when it wants to breathe again: at once,
 * at a time, or when something arrives. Groups take turns, so a stuck one costs the others nothing.
 *
 * A refused send stays at the head and is tried again, at first at once and then a millisecond
 * apart, at most TRIES times (EAGAIN, the sender's own bound: WAIT_MS); then the frame is dropped
 * and counted. It never spins and never blocks those behind it for longer.
 *
 * Knows no sockets, no threads, no epochs beyond their labels.
 */
import type { GroupId, PlaneFact } from '../ports.ts';
import { colour, epoch } from '../core/types.ts';
import type { Intake } from '../ring/frames.ts';
import type { FrameSink, FrameSource } from '../ring/frames.ts';
import { HoldRing } from '../ring/hold-ring.ts';
import { CLASS_HELD, stampClass } from '../ring/stamp.ts';
import { DRAIN_DISCARD, DRAIN_RELEASE } from '../ring/store.ts';
import type { DrainFate, StoreOptions } from '../ring/store.ts';
import { diff } from '../ring/window.ts';
import type { GroupCells } from './cells.ts';
import { LaneFlow } from './lane-flow.ts';
import type { Lanes } from './lanes.ts';
import type { Valves } from './valves.ts';
import type { Meter } from './meter.ts';
import { NEVER } from './never.ts';
import { NicBalance, ReleaseProgress, quietMsOf } from './progress.ts';
import { publish } from './publish.ts';

const BLOCKS_MAX = 8;
const IN_FRAMES_MAX = 2048;
const OUT_FRAMES_MAX = 512;
const RELIEVE_BLOCKS_MAX = 16;
const TRIES_MAX = 8;
const TRIES_AT_ONCE = 3;
const RETRY_MS = 1;
const WAIT_MS = 250;
const EAGAIN = 11;
const DROPS_EVERY_MS = 10;
const OVERFLOW_FACT_EVERY_MS = 100;
/** The high-water fact may come again once occupancy has fallen below this share of the mark. */
const CALM_SHARE = 0.8;
/**
 * Bounds of a drain that releases. What was here when it was asked for leaves; a sender that never
 * pauses would keep the queue from being empty at any one instant, so what comes later has TAIL,
 * and all of it MAX. Then the rest is dropped and counted, and what still comes is for `quietMs`.
 */
const DRAIN_TAIL_MS = 200;
const DRAIN_MS_MAX = 5000;

/** One reading of the clocks, for a whole breath. */
export interface Instant {
  /** Monotonic, common to all threads. */
  readonly nowMs: number;
  /** Wall clock on the scale of the source's arrival times. */
  readonly wallMs: number;
}

export interface PumpOptions extends StoreOptions {
  readonly id: GroupId;
  readonly highWater: number;
  /** Wall-clock time of 0 on the scale of arrival times. */
  readonly originMs: number;
  /** A frame or record on its way to the ring is here by then. */
  readonly settleMs: number;
  /** Monotonic clock, read once more when the first frame of a release has been sent. */
  readonly clockMs: () => number;
  /** Where held frames wait besides the ring. */
  readonly lanes?: Lanes;
}

type Then = (frames: number) => void;
interface PendingDrain {
  readonly nics: readonly number[] | undefined;
  fate: DrainFate;
  readonly then: Then;
  /** Frames sent or given up by when everything that was ready at the start has left. */
  readonly doneAt: number;
  /** release: the rest is dropped then. */
  dropAtMs: number;
  /** discard: it has begun then, and ends a little later. */
  discardSinceMs: number;
}
interface PendingRestore {
  readonly notBeforeMs: number;
  /** Frames sent or given up by when everything that was ready then has left; NaN = not yet known. */
  doneAt: number;
  readonly then: () => void;
}

export class Pump {
  readonly ring: HoldRing;
  readonly meter: Meter;
  readonly #options: PumpOptions;
  readonly #source: FrameSource;
  readonly #sink: FrameSink;
  readonly #emit: (fact: PlaneFact) => void;
  readonly #intake: Intake;
  readonly #batch: Int32Array;
  readonly #progress: ReleaseProgress;
  readonly #balance: NicBalance;
  readonly #quietMs: number;
  #drains: PendingDrain[] = [];
  #restores: PendingRestore[] = [];
  #left = 0;
  #tries = 0;
  #refusedSinceMs = 0;
  #retryAtMs = 0;
  #wireFromMs = Number.NaN;
  readonly #flow: LaneFlow | undefined;
  #at: Instant = { nowMs: 0, wallMs: 0 };
  #scanned = false;
  #dropsAtMs = 0;
  #dropped = 0;
  #overflowSeen = 0;
  #overflowFactAtMs = 0;
  #high = false;
  #checkAtMs = 0;
  #lastTraffic = -1;

  constructor(options: PumpOptions, source: FrameSource, sink: FrameSink, cells: GroupCells, intake: Intake, meter: Meter, emit: (fact: PlaneFact) => void) {
    this.#options = options;
    this.#quietMs = quietMsOf(options.settleMs);
    this.#source = source;
    this.#sink = sink;
    this.#emit = emit;
    this.#intake = intake;
    this.#batch = new Int32Array(sink.batchMax);
    this.meter = meter;
    const { lanes } = options;
    this.ring = new HoldRing(options, source, lanes);
    this.#flow = lanes === undefined ? undefined : new LaneFlow(lanes, this.ring, {
      opened: () => { this.#onWire(); },
      isClean: (colour) => {
        this.#rise();
        return diff(colour, this.#progress.reported) <= 0;
      },
      wallOf: (ms) => this.#at.wallMs - (this.#at.nowMs - ms),
    });
    this.#progress = new ReleaseProgress(this.ring.store, cells, this.#quietMs);
    this.#balance = new NicBalance(this.ring.store, cells, this.#quietMs, (frames) => source.missed?.(frames));
  }

  /**
   * `askedAtMs`: when the command was given, for the time to the first frame. Where nothing of it
   * was ever here (it was sealed before this ring was made) the fact follows at once.
   */
  release(upTo: number, askedAtMs: number): void {
    const idle = this.ring.readyFrames === 0;
    (this.#flow ?? this.ring).release(upTo);
    const isOut = diff(upTo | 0, this.#progress.reported) <= 0;
    if (idle && !isOut && (this.#flow !== undefined || this.ring.readyFrames > 0)) this.#wireFromMs = askedAtMs;
    if (isOut) this.#emit({ kind: 'released', id: this.#options.id, colour: colour(upTo) });
  }

  restore(restored: number, next: number, label: number, askedAtMs: number, then: () => void): void {
    this.gathered(() => {
      this.ring.restore(restored, next, label);
      this.#restores.push({ notBeforeMs: Math.max(askedAtMs, this.#at.nowMs) + this.#options.settleMs, doneAt: Number.NaN, then });
    });
  }

  drain(nics: readonly number[] | undefined, fate: DrainFate, askedAtMs: number, then: Then): void {
    this.gathered(() => {
      const nowMs = Math.max(askedAtMs, this.#at.nowMs);
      this.ring.drain(nics, fate);
      const doneAt = this.#left + this.ring.readyFrames;
      this.#drains.push({ nics, fate, then, doneAt, dropAtMs: nowMs + DRAIN_MS_MAX, discardSinceMs: nowMs });
      this.#checkAtMs = 0;
    }, true);
  }

  /** Runs `then` when the ring has everything that is held; `stop`: as long as a drain lasts all of it comes there. */
  gathered(then: () => void, stop = false): void {
    if (this.#flow === undefined) then();
    else this.#flow.after(then, stop);
  }

  /** Lanes behind these gates from here on; undefined = none any more, and what was in them is lost. What the gates throw is thrown, and there are none. */
  useGates(valves: Valves | undefined): void {
    this.#flow?.use(valves, this.#at.nowMs);
  }

  /** The group closes: what is held is dropped, and who waits is answered. */
  end(): void {
    this.#flow?.end();
    for (const { then } of this.#drains) then(0);
    for (const { then } of this.#restores) then();
    this.#drains = [];
    this.#restores = [];
    this.#options.lanes?.close();
  }

  /** When to breathe again: a time (now or earlier = at once), or NEVER = when frames arrive. */
  breath(at: Instant): number {
    this.#at = at;
    this.ring.store.bytesElsewhere = this.#options.lanes?.cells.used ?? 0;
    const scanned = this.#in();
    this.#scanned = scanned;
    this.ring.store.blocks.relieve(RELIEVE_BLOCKS_MAX);
    while (this.#flow?.step(at.nowMs) === true) {
      this.#out(at);
      if (this.ring.readyFrames > 0) break;
    }
    this.#out(at);
    this.#balance.flush();
    this.#publish(); // before the facts: who hears that an epoch is out finds it so in the counters
    this.#watchOverflow(at.nowMs);
    this.#facts(at.nowMs, scanned);
    this.#settle(at.nowMs, scanned);
    this.#publish();
    return this.#again(at.nowMs, scanned);
  }

  get lanes(): Lanes | undefined {
    return this.#options.lanes;
  }

  /** True when the source had nothing more. */
  #in(): boolean {
    for (let blocks = 0, frames = 0; blocks < BLOCKS_MAX && frames < IN_FRAMES_MAX; blocks++) {
      const block = this.#source.take(this.#intake);
      if (block < 0) return true;
      this.ring.accept(block, this.#intake);
      frames += this.#intake.count;
    }
    return false;
  }

  #out(at: Instant): void {
    if (at.nowMs < this.#retryAtMs) return;
    for (let frames = 0; frames < OUT_FRAMES_MAX; ) {
      const count = this.ring.peek(this.#batch, this.#batch.length);
      if (count === 0) return;
      const sent = this.#sink.send(this.ring.store.table, this.#batch, count);
      if (sent > 0) this.#took(sent, at.wallMs);
      else if (!this.#refused(-sent, at.nowMs)) return;
      frames += Math.max(1, sent);
    }
  }

  #took(sent: number, wallMs: number): void {
    const { table } = this.ring.store;
    let anyHeld = false;
    for (let i = 0; i < sent; i++) {
      const row = this.#batch[i]!;
      if (stampClass(table.stamp[row]!) !== CLASS_HELD) continue;
      this.meter.held(Math.max(0, wallMs - table.arrivedMs[row]!));
      anyHeld = true;
    }
    this.ring.pop(sent);
    this.#left += sent;
    this.#tries = 0;
    if (anyHeld) this.#onWire();
  }

  /** The first frame of a release was given to the kernel, or let go there. */
  #onWire(): void {
    if (Number.isNaN(this.#wireFromMs)) return;
    this.meter.onWire(Math.max(0, this.#options.clockMs() - this.#wireFromMs));
    this.#wireFromMs = Number.NaN;
  }

  /** True = try the head (again) now. */
  #refused(errno: number, nowMs: number): boolean {
    if (this.#tries++ === 0) this.#refusedSinceMs = nowMs;
    const worn = errno === EAGAIN ? nowMs - this.#refusedSinceMs >= WAIT_MS : this.#tries >= TRIES_MAX;
    if (worn) {
      this.ring.giveUp();
      this.#left++;
      this.#tries = 0;
      return true;
    }
    if (errno !== EAGAIN && this.#tries < TRIES_AT_ONCE) return true;
    this.#retryAtMs = nowMs + RETRY_MS;
    return false;
  }

  #watchOverflow(nowMs: number): void {
    const { store } = this.ring;
    if (nowMs - this.#dropsAtMs >= DROPS_EVERY_MS) {
      this.#dropsAtMs = nowMs;
      this.#dropped += this.#source.drops();
    }
    const total = this.#dropped + store.tally.overflow;
    if (total > this.#overflowSeen && nowMs - this.#overflowFactAtMs >= OVERFLOW_FACT_EVERY_MS) {
      this.#emit({ kind: 'overflow', id: this.#options.id, frames: total - this.#overflowSeen });
      this.#overflowSeen = total;
      this.#overflowFactAtMs = nowMs;
    }
    const occupancy = this.#occupancy();
    if (!this.#high && occupancy >= this.#options.highWater) {
      this.#high = true;
      this.#emit({ kind: 'high-water', id: this.#options.id, occupancy, heldBytes: store.heldBytes });
    } else if (this.#high && occupancy < this.#options.highWater * CALM_SHARE) {
      this.#high = false;
    }
  }

  /** A lane that is full has met the high-water mark. */
  #occupancy(): number {
    const { lanes, bytesMax, highWater } = this.#options;
    if (lanes === undefined) return this.ring.occupancy;
    return Math.max(this.ring.occupancy, (lanes.cells.used + this.ring.store.storedBytes) / bytesMax, lanes.anyFull ? highWater : 0);
  }

  #facts(nowMs: number, scanned: boolean): void {
    const { outputs } = this.ring;
    for (const label of outputs) this.#emit({ kind: 'output-pending', id: this.#options.id, epoch: epoch(label) });
    if (outputs.length > 0) outputs.length = 0;
    this.#rise();
    const traffic = this.ring.store.tally.arrived + this.#left;
    if (traffic !== this.#lastTraffic) {
      this.#lastTraffic = traffic;
      this.#checkAtMs = Math.min(this.#checkAtMs, nowMs + this.#quietMs);
    }
    if (nowMs < this.#checkAtMs) return;
    this.#balance.check(nowMs, scanned, (this.#options.lanes?.frames ?? 0) === 0);
    this.#checkAtMs = this.#balance.waiting ? nowMs + this.#quietMs / 2 : NEVER;
  }

  /** Says up to which colour everything has left, when that has risen. Counters first: who hears of it finds it so there. */
  #rise(): void {
    const risen = this.#progress.maybeRisen(this.#at.nowMs, this.#scanned);
    if (risen === undefined) return;
    if (this.#flow?.isThrough(risen) === true) this.#wireFromMs = Number.NaN; // it held nothing that could have been the first
    this.#publish();
    this.#emit({ kind: 'released', id: this.#options.id, colour: colour(risen) });
  }

  /** Drains and restores that have come to their end. */
  #settle(nowMs: number, scanned: boolean): void {
    if (this.#drains.length > 0) {
      this.#drains = this.#drains.filter((drain) => !this.#drained(drain, nowMs, scanned));
      if (this.#drains.length === 0) this.#flow?.resume();
    }
    if (this.#restores.length > 0) this.#restores = this.#restores.filter((restore) => !this.#restored(restore, nowMs, scanned));
  }

  #drained(drain: PendingDrain, nowMs: number, scanned: boolean): boolean {
    if (drain.fate === DRAIN_RELEASE) this.#maybeDropRest(drain, nowMs);
    if (!this.#atEnd(drain, nowMs, scanned)) return false;
    drain.then(this.ring.store.endDrain(this.#nicsOf(drain)));
    return true;
  }

  #maybeDropRest(drain: PendingDrain, nowMs: number): void {
    if (this.#left >= drain.doneAt) drain.dropAtMs = Math.min(drain.dropAtMs, nowMs + DRAIN_TAIL_MS);
    if (nowMs < drain.dropAtMs) return;
    this.ring.drain(drain.nics, DRAIN_DISCARD);
    drain.fate = DRAIN_DISCARD;
    drain.discardSinceMs = nowMs;
  }

  /** A release ends when nothing is left anywhere; a discard does not wait for that longer than `quietMs`. */
  #atEnd(drain: PendingDrain, nowMs: number, scanned: boolean): boolean {
    const empty = this.#nicsOf(drain).every((nic) => this.#balance.empty(nic));
    if (drain.fate === DRAIN_RELEASE) return empty;
    const sinceMs = nowMs - drain.discardSinceMs;
    if (sinceMs >= DRAIN_TAIL_MS) return true; // so many frames of others come that no breath sees the end
    return scanned && sinceMs >= (empty ? this.#options.settleMs : this.#quietMs);
  }

  #nicsOf(drain: PendingDrain): number[] {
    const { store } = this.ring;
    return [...(drain.nics ?? store.nics.subarray(0, store.nicCount))];
  }

  #restored(restore: PendingRestore, nowMs: number, scanned: boolean): boolean {
    if (Number.isNaN(restore.doneAt)) {
      if (nowMs < restore.notBeforeMs || !scanned) return false;
      restore.doneAt = this.#left + this.ring.readyFrames;
    }
    if (this.#left < restore.doneAt) return false;
    restore.then();
    return true;
  }

  #publish(): void {
    publish(this.meter, this.ring, { occupancy: this.#occupancy(), dropped: this.#dropped, originMs: this.#options.originMs });
  }

  #again(nowMs: number, scanned: boolean): number {
    if (!scanned) return nowMs;
    const ready = this.ring.readyFrames > 0;
    if (ready && this.#retryAtMs <= nowMs) return nowMs;
    let again = ready ? this.#retryAtMs : NEVER;
    if (this.#restores.length > 0 || this.#drains.length > 0) again = Math.min(again, nowMs + RETRY_MS);
    if (this.#progress.waiting) again = Math.min(again, nowMs + this.#quietMs / 4);
    if (this.#high || this.#dropped + this.ring.store.tally.overflow > this.#overflowSeen) again = Math.min(again, nowMs + OVERFLOW_FACT_EVERY_MS);
    return Math.min(again, this.#checkAtMs, this.#flow?.again(nowMs) ?? NEVER);
  }
}
