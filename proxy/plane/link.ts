/**
 * The hold plane as the main thread sees it: starts the worker, passes commands on in order, and
 * turns its answers into promises and its facts into calls.
 *
 *   starting ──► running ──► stopped        nobody waits for ever: when the worker ends, for
 *                   └──────► dead           whatever reason, every open call is refused
 *
 * Commands that return void cost a message and a write to the doorbell. Counters are read from
 * shared memory without asking. Facts are delivered in the order in which they happened.
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import * as libc from '../edge/ffi/libc.ts';
import { EdgeError } from '../ports.ts';
import type { GroupId, HeldEpoch, HeldFrame, HoldCounters, HoldOptions, HoldPlane, NicIndex, PlaneFact } from '../ports.ts';
import type { Colour, Epoch, HeldFate } from '../core/types.ts';
import { epoch as asEpoch } from '../core/types.ts';
import { Meter } from './meter.ts';
import { BELL, DUMP_ROW, SHARED_BYTES, STOP, clockMs } from './protocol.ts';
import type { Answer, Dump, Message, Request, WorkerOptions } from './protocol.ts';

export interface HoldLinkOptions {
  /** CPU for the hold loop; the machine's last one suits, the first takes most interrupts. */
  readonly cpu: number;
  /** Paths of the pinned maps `groups` and `nics`. */
  readonly pins: WorkerOptions['pins'];
}

interface Call {
  readonly resolve: (value: Answer) => void;
  readonly reject: (error: Error) => void;
}
type Asked = Request extends infer R ? (R extends { call: number } ? Omit<R, 'call'> : never) : never;

/** A thread runs compiled code, also when this file itself is run from its source (tests). */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/plane/worker.js' : './worker.js', import.meta.url);
const CLASSES = ['held', 'held', 'early', 'late'] as const;
const EMPTY = new Meter();

export class HoldLink implements HoldPlane {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #shared = new Int32Array(new SharedArrayBuffer(SHARED_BYTES));
  readonly #bellFd: number;
  readonly #calls = new Map<number, Call>();
  readonly #meters = new Map<GroupId, Meter>();
  readonly #listeners: ((fact: PlaneFact) => void)[] = [];
  readonly #ended: Promise<void>;
  readonly #atExit = (): void => { this.#end(); };
  #nextCall = 1;
  #state: 'running' | 'stopped' | 'dead' = 'running';
  #reason = '';

  constructor(options: HoldLinkOptions) {
    this.#bellFd = libc.must(libc.eventfd(0, 0), 'eventfd', 'doorbell of the hold worker');
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const data: WorkerOptions = { port: port2, bellFd: this.#bellFd, shared: this.#shared.buffer, cpu: options.cpu, pins: options.pins };
    this.#worker = new Worker(WORKER, {
      name: 'sluice-hold', workerData: data, transferList: [port2], execArgv: [],
    });
    this.#port.on('message', (message: Message) => { this.#receive(message); });
    this.#worker.on('error', (error) => { this.#reason = error instanceof Error ? error.message : String(error); });
    this.#ended = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#exited();
        resolve();
      });
    });
    process.on('exit', this.#atExit);
  }

  open(id: GroupId, options: HoldOptions): Promise<void> {
    const meter = new Meter();
    this.#meters.set(id, meter);
    return this.#void({ op: 'open', id, options, meter: meter.memory });
  }
  close(id: GroupId): Promise<void> {
    this.#meters.delete(id);
    return this.#void({ op: 'close', id });
  }
  advance(id: GroupId, colour: Colour, epoch: Epoch): void {
    this.#send({ op: 'advance', id, colour, epoch });
  }
  release(id: GroupId, colour: Colour): void {
    this.#send({ op: 'release', id, colour, askedAtMs: clockMs() });
  }
  restore(id: GroupId, restored: Colour, next: Colour, epoch: Epoch): Promise<void> {
    return this.#void({ op: 'restore', id, restored, next, epoch });
  }
  receiver(id: GroupId, nics: readonly NicIndex[], colour: Colour): void {
    this.#send({ op: 'receiver', id, nics, colour });
  }
  async drain(id: GroupId, nics: readonly NicIndex[] | undefined, held: HeldFate): Promise<number> {
    return (await this.#ask({ op: 'drain', id, nics, fate: held === 'release' ? 1 : 2 })) as number;
  }
  async held(id: GroupId): Promise<readonly HeldEpoch[]> {
    return (await this.#ask({ op: 'held', id })) as readonly HeldEpoch[];
  }
  async *dump(id: GroupId, bytesMax: number): AsyncGenerator<readonly HeldFrame[], void, undefined> {
    let from: Dump['next'];
    for (let left = bytesMax; ; ) {
      const piece = (await this.#ask({ op: 'dump', id, from, bytesMax: left })) as Dump;
      if (piece.rows.length > 0) yield framesOf(piece);
      if (piece.next === undefined || piece.rows.length === 0) return;
      left -= piece.bytes.length;
      from = piece.next;
    }
  }
  counters(id: GroupId): HoldCounters {
    return (this.#meters.get(id) ?? EMPTY).read(performance.timeOrigin + performance.now());
  }
  onFact(listener: (fact: PlaneFact) => void): void {
    this.#listeners.push(listener);
  }
  async stop(): Promise<void> {
    if (this.#state === 'running') this.#state = 'stopped';
    this.#end();
    await this.#ended;
  }

  #end(): void {
    Atomics.store(this.#shared, STOP, 1);
    libc.ring(this.#bellFd);
  }

  #send(request: Request): void {
    if (this.#state !== 'running') return;
    this.#port.postMessage(request);
    // A bell that still says 1 has been rung, and the worker clears it before it reads.
    if (Atomics.exchange(this.#shared, BELL, 1) === 0) libc.ring(this.#bellFd);
  }

  #ask(asked: Asked): Promise<Answer> {
    if (this.#state !== 'running') return Promise.reject(this.#down());
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#send({ ...asked, call });
    });
  }
  async #void(asked: Asked): Promise<void> {
    await this.#ask(asked);
  }

  #receive(message: Message): void {
    if (message.op === 'fact') {
      for (const listener of this.#listeners) listener(message.fact);
      return;
    }
    const call = this.#calls.get(message.call);
    this.#calls.delete(message.call);
    if (message.op === 'answer') call?.resolve(message.value);
    else call?.reject(new EdgeError('plane_down', message.message, message.fix));
  }

  #exited(): void {
    process.off('exit', this.#atExit);
    const stopped = this.#state === 'stopped';
    this.#state = stopped ? 'stopped' : 'dead';
    for (const call of this.#calls.values()) call.reject(this.#down());
    this.#calls.clear();
    this.#port.close();
    libc.close(this.#bellFd);
    if (stopped) return;
    const reason = this.#reason === '' ? 'the hold worker ended' : this.#reason;
    for (const listener of this.#listeners) listener({ kind: 'dead', reason });
  }

  #down(): EdgeError {
    const why = this.#reason === '' ? '' : `: ${this.#reason}`;
    return new EdgeError('plane_down', `the hold loop has ended${why}`, 'restart sluiced; what was held is lost, nothing leaks');
  }
}

function framesOf(dump: Dump): HeldFrame[] {
  const frames: HeldFrame[] = [];
  let at = 0;
  for (let i = 0; i < dump.rows.length; i += DUMP_ROW) {
    const bytes = dump.rows[i + 4]!;
    frames.push({
      epoch: asEpoch(dump.rows[i]!), nic: dump.rows[i + 1]!, class: CLASSES[dump.rows[i + 2]!] ?? 'held',
      arrivedNs: BigInt(Math.round(dump.rows[i + 3]! * 1e3)) * 1000n,
      bytes: dump.bytes.subarray(at, at + bytes), wireBytes: bytes,
    });
    at += bytes;
  }
  return frames;
}
