/**
 * The groups of the hold worker: what a request does to them. A request that needs an answer gets
 * exactly one; one that does not and names no open group is dropped (its frames are, too).
 */
import type { GroupId, HeldEpoch, HoldOptions, PlaneFact } from '../ports.ts';
import { epoch } from '../core/types.ts';
import { Intake } from '../ring/frames.ts';
import type { FrameSink, FrameSource } from '../ring/frames.ts';
import { stampNic } from '../ring/stamp.ts';
import { tour, tourOf } from '../ring/tour.ts';
import type { Place } from '../ring/tour.ts';
import { KernelCells } from './cells.ts';
import type { Meter } from './meter.ts';
import { ADVANCE, RECEIVER, RELEASE } from './orders.ts';
import { DUMP_ROW, clockMs } from './protocol.ts';
import type { Answer, Dump, Request } from './protocol.ts';
import type { Refusal } from './lane-supply.ts';
import type { Lanes } from './lanes.ts';
import type { Valves } from './valves.ts';
import { NEVER } from './never.ts';
import { Pump } from './pump.ts';

/** A descriptor for so many bytes of hold memory: at an average frame below it, rows run out first. */
const BYTES_PER_ROW = 256;
const ROWS_MIN = 1 << 14;
const ROWS_MAX = 1 << 21;
const AT_ONCE = Number.NEGATIVE_INFINITY;
const IDLE_MS_MAX = 1000;
/** One piece of a capture: about half a millisecond of the loop. */
const PIECE_BYTES_MAX = 1 << 20;
const PIECE_FRAMES_MAX = 1024;
/** Of a group that is not open (any more) nothing is held. */
const NOTHING: Dump = { rows: new Float64Array(0), bytes: new Uint8Array(0), next: undefined };

/** Where the frames of a group wait: source, sink and the memory of both. */
export interface HoldQueue extends FrameSource, FrameSink {
  /** Frames may be taken. */
  readonly waiting: boolean;
  /** Arrival times count from this second of the wall clock. */
  readonly originSec: number;
  /** A frame or record on its way here has been handed over by then: a block's time, twice over. */
  readonly settleMs: number;
  /** From here on frames arrive. */
  bind(): void;
  /** A copy of a frame, as it would leave. */
  readInto(into: Uint8Array, at: number, offset: number, length: number): void;
  close(): void;
}
export interface OpenGroup {
  readonly id: GroupId;
  readonly queue: HoldQueue;
  readonly pump: Pump;
  /** When it wants its next breath, if nothing comes before: an order, a request, frames. */
  dueMs: number;
}
export interface GroupsOptions {
  readonly cells: { readonly groups: ArrayBuffer; readonly nics: ArrayBuffer };
  /** Throws what is wrong outside: a device that is gone, memory, privileges. */
  readonly openQueue: (id: GroupId, options: HoldOptions) => HoldQueue;
  /** Where its frames may come to wait in the kernel besides; undefined = nowhere. */
  readonly openLanes?: (id: GroupId, options: HoldOptions) => Lanes | undefined;
  /** Gates of a group's lanes that are queues of this device. May throw. */
  readonly openValves?: (id: GroupId, ifindex: number) => Valves;
  /** Frames of one block at most. */
  readonly blockFramesMax: number;
  readonly meterOf: (request: Extract<Request, { op: 'open' }>) => Meter;
  readonly answer: (call: number, value: Answer) => void;
  /** The same; the memory goes with it. */
  readonly hand: (call: number, value: Dump) => void;
  readonly fail: (call: number, error: unknown) => void;
  readonly fact: (fact: PlaneFact) => void;
}

export class Groups {
  readonly open = new Map<GroupId, OpenGroup>();
  readonly #options: GroupsOptions;
  readonly #intake: Intake;
  /** Captures that wait for their next piece: at most one request of each client. */
  readonly #dumps: Extract<Request, { op: 'dump' }>[] = [];

  constructor(options: GroupsOptions) {
    this.#options = options;
    this.#intake = new Intake(options.blockFramesMax);
  }

  /** What it throws is a broken invariant: the loop ends. */
  handle(request: Request): void {
    if ('call' in request) this.#call(request);
    else if (request.op === 'advance') this.obey(ADVANCE, request.id, request.colour, 0, request.epoch);
    else if (request.op === 'release') this.obey(RELEASE, request.id, request.colour, 0, request.askedAtMs);
    else for (const nic of request.nics) this.obey(RECEIVER, request.id, request.colour, nic, 0);
  }

  /** An order (orders.ts); of a group that is not open it means nothing. */
  obey(kind: number, id: GroupId, colour: number, nic: number, value: number): void {
    const group = this.open.get(id);
    if (group === undefined) return;
    const { pump } = group;
    group.dueMs = AT_ONCE;
    if (kind === ADVANCE) pump.ring.advance(colour, value);
    else if (kind === RELEASE) pump.release(colour, value);
    else if (kind === RECEIVER) pump.ring.receiver(nic, colour);
    else throw new Error(`an order of unknown kind ${kind}`);
  }

  /**
   * A breath of each group that wants one, by turns; when the first of all wants to breathe again. One
   * alone would sleep until it is due, has an order or has frames waiting: until then it is passed over,
   * IDLE_MS_MAX at most.
   */
  breathe(nowMs: number, wallMs: number): number {
    let againMs = NEVER;
    for (const group of this.open.values()) {
      const { pump, queue } = group;
      if (group.dueMs <= nowMs || queue.waiting) {
        group.dueMs = Math.min(nowMs + IDLE_MS_MAX, pump.breath({ nowMs, wallMs: wallMs - queue.originSec * 1000 }));
      }
      againMs = Math.min(againMs, group.dueMs);
    }
    // One that was passed over may have been handed frames since, by another that took what they share.
    for (const { queue } of this.open.values()) if (queue.waiting) return Math.min(againMs, nowMs);
    return againMs;
  }

  /** Do early frames wait for a receiver? */
  anyEarly(): boolean {
    for (const { pump } of this.open.values()) if (pump.ring.store.earlyFrames > 0) return true;
    return false;
  }

  #call(request: Extract<Request, { call: number }>): void {
    const { answer } = this.#options;
    const { call, id } = request;
    if (request.op === 'open') {
      this.#answerOpen(request);
      return;
    }
    if (request.op === 'close') {
      this.#close(id);
      answer(call, undefined);
      return;
    }
    if (request.op === 'dump') {
      this.#dump(request);
      return;
    }
    const group = this.open.get(id);
    if (group === undefined) this.#options.fail(call, new Error(`group ${id} is not open`));
    else this.#ask(group, request);
  }

  /** A capture reads the ring, so it begins when all that is held is there. */
  #dump(request: Extract<Request, { op: 'dump' }>): void {
    const group = this.open.get(request.id);
    const begin = (): void => void this.#dumps.push(request);
    if (group === undefined || request.from !== undefined) {
      begin();
      return;
    }
    group.dueMs = AT_ONCE;
    group.pump.gathered(begin);
  }

  /** One piece of one capture, between two breaths of every group. True = more wait. */
  dumpSome(): boolean {
    const request = this.#dumps.shift();
    if (request === undefined) return false;
    const group = this.open.get(request.id);
    const piece = group === undefined ? NOTHING : pieceOf(group, request.from, request.bytesMax);
    this.#options.hand(request.call, piece);
    return this.#dumps.length > 0;
  }

  /** The only request that may fail for reasons outside. */
  #answerOpen(request: Extract<Request, { op: 'open' }>): void {
    const { call, id, options } = request;
    this.#close(id);
    try {
      this.#open(id, options, this.#options.meterOf(request));
    } catch (error) {
      this.#options.fail(call, error);
      return;
    }
    this.#options.answer(call, undefined);
  }

  #ask(group: OpenGroup, request: Extract<Request, { op: 'restore' | 'drain' | 'held' | 'lanes' }>): void {
    const { answer } = this.#options;
    const { call } = request;
    group.dueMs = AT_ONCE;
    switch (request.op) {
      case 'restore':
        group.pump.restore(request.restored, request.next, request.epoch, clockMs(), () => { answer(call, undefined); });
        break;
      case 'drain':
        group.pump.drain(request.nics, request.fate, clockMs(), (frames) => { answer(call, frames); });
        break;
      case 'held':
        answer(call, held(group));
        break;
      case 'lanes':
        answer(call, this.#gates(group, request.ifindex));
    }
  }

  #gates({ id, pump }: OpenGroup, ifindex: number): Refusal | undefined {
    try {
      pump.useGates(ifindex === 0 ? undefined : this.#options.openValves?.(id, ifindex));
      return undefined;
    } catch (error) {
      if (!(error instanceof Error && 'errno' in error && typeof error.errno === 'number')) throw error;
      return { errno: error.errno, reason: error.message };
    }
  }

  #open(id: GroupId, options: HoldOptions, meter: Meter): void {
    const { cells } = this.#options;
    const frames = Math.min(ROWS_MAX, Math.max(ROWS_MIN, Math.ceil(options.bytes / BYTES_PER_ROW)));
    const kernel = new KernelCells(id, cells.groups, cells.nics);
    const queue = this.#options.openQueue(id, options);
    let lanes: Lanes | undefined;
    try {
      lanes = this.#options.openLanes?.(id, options);
      const pump = new Pump(
        {
          id, framesMax: frames, bytesMax: options.bytes, colour: options.colour, epoch: options.epoch,
          highWater: options.highWater, originMs: queue.originSec * 1000, settleMs: queue.settleMs, clockMs,
          ...(lanes === undefined ? {} : { lanes }),
        },
        queue, queue, kernel, this.#intake, meter, this.#options.fact,
      );
      queue.bind();
      this.open.set(id, { id, queue, pump, dueMs: AT_ONCE });
    } catch (error) {
      lanes?.close();
      queue.close();
      throw error;
    }
  }

  #close(id: GroupId): void {
    const group = this.open.get(id);
    if (group === undefined) return;
    this.open.delete(id);
    group.pump.end();
    group.queue.close();
  }

  closeAll(): void {
    for (const id of [...this.open.keys()]) this.#close(id);
  }
}

function held({ pump, queue }: OpenGroup): HeldEpoch[] {
  const wallMs = Date.now();
  const rows = new Map<number, HeldEpoch>();
  const add = (at: number, frames: number, bytes: number, oldestMs: number): void => {
    const before = rows.get(at);
    rows.set(at, { epoch: epoch(at), frames: frames + (before?.frames ?? 0), bytes: bytes + (before?.bytes ?? 0), oldestMs: Math.max(oldestMs, before?.oldestMs ?? 0) });
  };
  for (const { epoch: at, frames, bytes, oldestMs } of pump.ring.held()) {
    add(at, frames, bytes, Number.isNaN(oldestMs) ? 0 : Math.max(0, wallMs - queue.originSec * 1000 - oldestMs));
  }
  for (const { colour, frames, bytes, firstMs } of pump.lanes?.held() ?? []) {
    add(pump.ring.store.window.label(colour), frames, bytes, Math.max(0, clockMs() - firstMs));
  }
  return [...rows.values()].sort((a, b) => a.epoch - b.epoch);
}

/** A copy of some frames, which stay. Two passes, to copy each byte once. */
function pieceOf({ pump, queue }: OpenGroup, from: Place | undefined, bytesMax: number): Dump {
  const { store } = pump.ring;
  const { table, window } = store;
  const rows: number[] = [];
  const numbers: number[] = [];
  let total = 0;
  const next = tour(store, from ?? tourOf(store), (row, cls) => {
    const bytes = table.length[row]!;
    if (rows.length === PIECE_FRAMES_MAX || total + bytes > Math.min(bytesMax, PIECE_BYTES_MAX)) return false;
    total += bytes;
    rows.push(row);
    numbers.push(window.label(table.colour[row]!), stampNic(table.stamp[row]!), cls, queue.originSec * 1000 + table.arrivedMs[row]!, bytes);
    return true;
  });
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const row of rows) {
    queue.readInto(bytes, at, table.offset[row]!, table.length[row]!);
    at += table.length[row]!;
  }
  if (numbers.length !== rows.length * DUMP_ROW) throw new Error('a dumped frame lacks a number');
  return { rows: Float64Array.from(numbers), bytes, next };
}
