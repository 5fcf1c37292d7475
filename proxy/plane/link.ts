/**
 * The hold plane in a worker thread (ebpf): starts it, and is the way there and back.
 *
 *   requests ─► MessagePort, then the doorbell (an eventfd: the worker sleeps in the kernel)
 *   answers, facts ◄─ MessagePort                counters ◄─ memory that both share
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import * as libc from '../edge/ffi/libc.ts';
import { HoldDesk } from './desk.ts';
import { Meter } from './meter.ts';
import { BELL, SHARED_BYTES, STOP } from './protocol.ts';
import type { Message, Request, WorkerOptions } from './protocol.ts';

export interface HoldLinkOptions {
  /** CPU for the hold loop; the machine's last one suits, the first takes most interrupts. */
  readonly cpu: number;
  /** Paths of the pinned maps `groups` and `nics`. */
  readonly pins: WorkerOptions['pins'];
}

/** A thread runs compiled code, also when this file itself is run from its source (tests). */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/plane/worker.js' : './worker.js', import.meta.url);

export class HoldLink extends HoldDesk {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #shared = new Int32Array(new SharedArrayBuffer(SHARED_BYTES));
  readonly #bellFd: number;
  readonly #gone: Promise<void>;
  readonly #atExit = (): void => { this.#sayEnd(); };
  #over = false;
  #reason = 'the hold worker ended';

  constructor(options: HoldLinkOptions) {
    super();
    this.#bellFd = libc.must(libc.eventfd(0, 0), 'eventfd', 'doorbell of the hold worker');
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const data: WorkerOptions = { port: port2, bellFd: this.#bellFd, shared: this.#shared.buffer, cpu: options.cpu, pins: options.pins };
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
  protected override post(request: Request): void {
    this.#port.postMessage(request);
    // A bell that still says 1 has been rung, and the worker clears it before it reads.
    if (Atomics.exchange(this.#shared, BELL, 1) === 0) libc.ring(this.#bellFd);
  }
  protected override async end(): Promise<void> {
    this.#sayEnd();
    await this.#gone;
  }

  #sayEnd(): void {
    if (this.#over) return;
    Atomics.store(this.#shared, STOP, 1);
    libc.ring(this.#bellFd);
  }

  #exited(): void {
    process.off('exit', this.#atExit);
    this.#over = true;
    this.ended(this.#reason);
    this.#port.close();
    libc.close(this.#bellFd);
  }
}
