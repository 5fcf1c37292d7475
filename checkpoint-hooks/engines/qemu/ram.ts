/**
 * A guest's RAM as the engine sees it: requests to its worker, answered as promises. When the worker
 * ends, for whatever reason, everyone who waits is refused.
 */
import { Worker } from 'node:worker_threads';
import { Damaged } from './part.ts';
import type { RamAnswer, RamAsked, RamDone, RamRequest, RamWorkerData } from './ram-protocol.ts';

/** A thread runs compiled code, also when this file itself is run from its source (tests). */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? '../../../dist/checkpoint-hooks/engines/qemu/ram-worker.js' : './ram-worker.js', import.meta.url);

interface Call {
  readonly resolve: (done: RamDone) => void;
  readonly reject: (error: Error) => void;
}

export class GuestRam {
  private readonly worker: Worker;
  private readonly calls = new Map<number, Call>();
  private nextId = 1;
  private ended: string | undefined;

  constructor(name: string, options: RamWorkerData) {
    this.worker = new Worker(WORKER, { name: `ram-${name}`, workerData: options, execArgv: [] });
    this.worker.on('message', (answer: RamAnswer) => this.receive(answer));
    this.worker.on('error', (error: unknown) => this.end(error instanceof Error ? error.message : String(error)));
    this.worker.on('exit', () => this.end('its thread has ended'));
  }

  ask(request: RamRequest): Promise<RamDone> {
    if (this.ended !== undefined) return Promise.reject(new Error(this.ended));
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.calls.set(id, { resolve, reject });
      const asked: RamAsked = { id, request };
      this.worker.postMessage(asked);
    });
  }

  async close(): Promise<void> {
    if (this.ended === undefined) await this.ask({ do: 'close' }).catch(() => undefined);
    await this.worker.terminate();
  }

  private receive(answer: RamAnswer): void {
    const call = this.calls.get(answer.id);
    this.calls.delete(answer.id);
    if ('done' in answer) call?.resolve(answer.done);
    else call?.reject(answer.isDamage ? new Damaged(answer.failed) : new Error(answer.failed));
  }

  private end(why: string): void {
    this.ended ??= why;
    for (const { reject } of this.calls.values()) reject(new Error(this.ended));
    this.calls.clear();
  }
}
