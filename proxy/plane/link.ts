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
import { Meter } from './meter.ts';
import { ADVANCE, ASK, Orders, RECEIVER, RELEASE } from './orders.ts';
import type { Message, Request, WorkerOptions } from './protocol.ts';
import type { GroupId, HoldCounters, HoldOptions } from '../ports.ts';

export interface HoldLinkOptions {
  /** CPU for the hold loop; the machine's last one suits, the first takes most interrupts. */
  readonly cpu: number;
  /** Paths of the pinned maps. */
  readonly pins: WorkerOptions['pins'];
}

/** A thread runs compiled code, also when this file itself is run from its source (tests). */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/plane/worker.js' : './worker.js', import.meta.url);

export class HoldLink extends HoldDesk {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #orders = new Orders();
  readonly #bellFd: number;
  readonly #maps: LaneMaps;
  readonly #lanes = new Map<GroupId, LaneCells>();
  readonly #bytes = new Map<GroupId, number>();
  /** The newest colour that a frame may carry, by group. */
  readonly #newest = new Map<GroupId, Colour>();
  readonly #gone: Promise<void>;
  readonly #atExit = (): void => { this.#sayEnd(); };
  #over = false;
  #reason = 'the hold worker ended';

  constructor(options: HoldLinkOptions) {
    super();
    this.#maps = { lanes: mapCells(options.pins.lanes).buffer, queues: mapCells(options.pins.queues).buffer };
    this.#bellFd = libc.must(libc.eventfd(0, 0), 'eventfd', 'doorbell of the hold worker');
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const data: WorkerOptions = { port: port2, bellFd: this.#bellFd, orders: this.#orders.memory, cpu: options.cpu, pins: options.pins };
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
  /** The lane of a colour that comes into use, if one is free: before any frame may carry it, so only the first time. */
  override advance(id: GroupId, colour: Colour, epoch: Epoch): void {
    if (colourDiff(colour, this.#newest.get(id) ?? colour) > 0) {
      this.#newest.set(id, colour);
      this.#lanesOf(id).fill(colour);
    }
    super.advance(id, colour, epoch);
  }
  override restore(id: GroupId, restored: Colour, next: Colour, epoch: Epoch): Promise<void> {
    this.#newest.set(id, next);
    return super.restore(id, restored, next, epoch);
  }
  override open(id: GroupId, options: HoldOptions): Promise<void> {
    this.#bytes.set(id, options.bytes);
    this.#newest.set(id, options.newest);
    return super.open(id, options);
  }
  override counters(id: GroupId): HoldCounters {
    return withLanes(super.counters(id), this.#lanesOf(id), this.#bytes.get(id) ?? Infinity);
  }
  #lanesOf(id: GroupId): LaneCells {
    let cells = this.#lanes.get(id);
    if (cells === undefined) this.#lanes.set(id, cells = new LaneCells(id, this.#maps));
    return cells;
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
