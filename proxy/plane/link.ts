/**
 * The hold plane in a worker thread (ebpf): starts it, and is the way there and back.
 *
 *   requests ─► orders in shared memory (those with an answer: MessagePort, and an order that keeps
 *               their place), then, where the loop sleeps and must not, the doorbell: an eventfd
 *   answers, facts ◄─ MessagePort                counters ◄─ memory that both share
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { colourDiff } from '../core/types.ts';
import type { Colour, Epoch } from '../core/types.ts';
import { mapCells } from '../edge/ffi/bpf.ts';
import * as libc from '../edge/ffi/libc.ts';
import { HoldDesk } from './desk.ts';
import { LaneCells, withLanes } from './lane-cells.ts';
import type { LaneMaps } from './lane-cells.ts';
import { LaneChoice, mayHaveLane } from './lane-choice.ts';
import type { LaneMode } from './lane-choice.ts';
import { LaneSupply } from './lane-supply.ts';
import type { LanePairs, Refusal } from './lane-supply.ts';
import { Meter } from './meter.ts';
import { ADVANCE, ASK, Orders, RECEIVER, RELEASE } from './orders.ts';
import { clockMs } from './protocol.ts';
import type { Message, Request, WorkerOptions } from './protocol.ts';
import type { GroupId, HoldCounters, HoldOptions } from '../ports.ts';

export interface HoldLinkOptions {
  /** CPU for the hold loop; the machine's last one suits, the first takes most interrupts. */
  readonly cpu: number;
  /** Paths of the pinned maps. */
  readonly pins: WorkerOptions['pins'];
  /** Absent = all epochs wait in the ring. */
  readonly lanes?: LanePairs & { /** Which epochs wait in a lane. */ readonly mode: LaneMode };
}
/** What this side keeps of a group. */
interface Known {
  readonly cells: LaneCells;
  readonly choice: LaneChoice;
  readonly bytes: number;
  /** The newest colour that a frame may carry, and the newest of which none is here any more. */
  newest: Colour | undefined;
  released: Colour | undefined;
  /** Counters of a Prometheus kind must not step back, as what goes from a lane to the ring is neither's for a moment. */
  arrived: number;
  arrivedBytes: number;
}

/** A thread runs compiled code, also when this file itself is run from its source (tests). */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/plane/worker.js' : './worker.js', import.meta.url);

export class HoldLink extends HoldDesk {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #orders = new Orders();
  readonly #bellFd: number;
  readonly #maps: LaneMaps;
  readonly #mode: LaneMode;
  readonly #supply: LaneSupply | undefined;
  readonly #known = new Map<GroupId, Known>();
  readonly #gone: Promise<void>;
  readonly #atExit = (): void => { this.#sayEnd(); };
  #over = false;
  #reason = 'the hold worker ended';

  constructor(options: HoldLinkOptions) {
    super();
    this.#mode = options.lanes?.mode ?? 'off';
    this.#supply = options.lanes === undefined || options.lanes.mode === 'off' ? undefined : this.#supplyOf(options.lanes);
    this.#maps = { lanes: mapCells(options.pins.lanes).buffer, queues: mapCells(options.pins.queues).buffer };
    this.#bellFd = libc.must(libc.eventfd(0, 0), 'eventfd', 'doorbell of the hold worker');
    this.onFact((fact) => { if (fact.kind === 'released') this.#of(fact.id).released = fact.colour; });
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const data: WorkerOptions = { port: port2, bellFd: this.#bellFd, orders: this.#orders.memory, cpu: options.cpu, pins: options.pins, mayHaveLanes: this.#supply !== undefined };
    this.#worker = new Worker(WORKER, {
      name: 'sluice-hold', workerData: data, transferList: [port2], execArgv: [],
    });
    this.#port.on('message', (message: Message) => { this.receive(message); });
    this.#worker.on('error', (error) => { this.#reason = error instanceof Error ? error.message : String(error); });
    this.#gone = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#exited();
        resolve();
      });
    });
    process.on('exit', this.#atExit);
  }

  protected override meterOf(): Meter {
    return new Meter();
  }
  /** A lane for a colour that comes into use, if one is free and wanted: before any frame may carry it, so only the first time. */
  override advance(id: GroupId, colour: Colour, epoch: Epoch): void {
    const known = this.#of(id);
    if (colourDiff(colour, known.newest ?? colour) > 0) {
      known.newest = colour;
      const byLane = this.#mode !== 'off' && known.choice.next(this.counters(id));
      if (byLane) void this.#supply?.give(id);
      if (byLane && mayHaveLane(colour, known.released ?? colour)) known.cells.fill(colour);
    }
    super.advance(id, colour, epoch);
  }
  override restore(id: GroupId, restored: Colour, next: Colour, epoch: Epoch): Promise<void> {
    this.#of(id).newest = next;
    return super.restore(id, restored, next, epoch);
  }
  override async open(id: GroupId, options: HoldOptions): Promise<void> {
    this.#supply?.opened(id);
    const known = this.#learn(id, options.bytes, options.newest);
    await super.open(id, options);
    known.arrived = known.arrivedBytes = 0; // whoever read before that read an earlier life's
    if (this.#mode === 'on') await this.#supply?.give(id);
  }
  override close(id: GroupId): Promise<void> {
    this.#supply?.closed(id);
    return super.close(id);
  }
  override stop(): Promise<void> {
    this.#supply?.end();
    return super.stop();
  }
  override counters(id: GroupId): HoldCounters {
    const known = this.#of(id);
    const counters = withLanes(super.counters(id), known.cells, known.bytes);
    known.arrived = Math.max(known.arrived, counters.arrived);
    known.arrivedBytes = Math.max(known.arrivedBytes, counters.arrivedBytes);
    return counters.arrived === known.arrived && counters.arrivedBytes === known.arrivedBytes ? counters : atLeast(counters, known);
  }
  #supplyOf(pairs: LanePairs): LaneSupply {
    return new LaneSupply(pairs, {
      use: async (id, ifindex) => (await this.ask({ op: 'lanes', id, ifindex })) as Refusal | undefined,
      refused: (id, reason) => { this.tell({ kind: 'no-lanes', id, reason }); },
      clockMs,
    });
  }
  #of(id: GroupId): Known {
    return this.#known.get(id) ?? this.#learn(id, Infinity, undefined);
  }
  #learn(id: GroupId, bytes: number, newest: Colour | undefined): Known {
    const cells = this.#known.get(id)?.cells ?? new LaneCells(id, this.#maps);
    const known: Known = { cells, choice: new LaneChoice(this.#mode), bytes, newest, released: newest, arrived: 0, arrivedBytes: 0 };
    this.#known.set(id, known);
    return known;
  }

  /** Their devices are gone. They are made again when they are wanted again. */
  lanesLost(id: GroupId): void {
    void this.#supply?.lost(id);
  }
  protected override post(request: Request): void {
    const lazy = this.#write(request);
    if (this.#orders.wakes(lazy)) this.#ring();
  }
  protected override async end(): Promise<void> {
    this.#sayEnd();
    await this.#gone;
  }

  #sayEnd(): void {
    if (this.#over) return;
    this.#orders.stop();
    this.#ring();
  }

  readonly #ring = (): void => { libc.ring(this.#bellFd); };

  /** True = it matters only to frames that are still to come. */
  #write(request: Request): boolean {
    if ('call' in request) {
      this.#port.postMessage(request);
      this.#order(ASK, 0, 0, 0, 0);
      return false;
    }
    const { op, id, colour } = request;
    if (op === 'advance') this.#order(ADVANCE, id, colour, 0, request.epoch);
    else if (op === 'release') this.#order(RELEASE, id, colour, 0, request.askedAtMs);
    else for (const nic of request.nics) this.#order(RECEIVER, id, colour, nic, 0);
    return op !== 'release';
  }

  /** A loop that takes no orders any more is as good as dead; nothing leaves without it (I8). */
  #order(kind: number, id: GroupId, colour: number, nic: number, value: number): void {
    if (this.#orders.push(kind, id, colour | 0, nic, value, this.#ring)) return;
    this.#reason = 'the hold worker takes no orders any more';
    void this.#worker.terminate();
  }

  #exited(): void {
    process.off('exit', this.#atExit);
    this.#over = true;
    this.ended(this.#reason);
    this.#port.close();
    libc.close(this.#bellFd);
  }
}

/** The same with these two; the histograms are still read when they are asked for. */
const atLeast = (counters: HoldCounters, { arrived, arrivedBytes }: { readonly arrived: number; readonly arrivedBytes: number }): HoldCounters => ({
  ...counters, arrived, arrivedBytes,
  get holdHistogram() { return counters.holdHistogram; },
  get holdSumMs() { return counters.holdSumMs; },
  get wireHistogram() { return counters.wireHistogram; },
  get wireSumMs() { return counters.wireSumMs; },
});
