/**
 * `sluice engine qemu` as a process: what it says, a JSON object a line, and its end.
 */
import { join } from 'node:path';
import { end, startIn, until, type Running } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import type { VmBed } from './bed.ts';

/** One line of the engine's; `event` names it, the rest is its own. */
export interface Said {
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface EngineOptions {
  /** The daemon's socket, or a relay's before it. */
  readonly socket: string;
  readonly intervalMs: number;
  readonly more?: readonly string[];
}

export class EngineProcess {
  readonly #running: Running;
  readonly store: string;

  constructor(bed: VmBed, options: EngineOptions) {
    this.store = join(bed.bed.directory, 'store');
    this.#running = startIn(bed.bed.host, process.execPath, [
      join(repositoryRoot(), 'bin/sluice'), '--socket', options.socket, '--json', 'engine', 'qemu',
      '-f', bed.groupFile, '--store', this.store, '--interval', `${options.intervalMs}ms`, ...(options.more ?? []),
    ]);
  }

  get isRunning(): boolean {
    return this.#running.child.exitCode === null && this.#running.child.signalCode === null;
  }

  /** All it has said on either output. */
  output(): string {
    return this.#running.output();
  }

  said(): Said[] {
    return this.output().split('\n').flatMap((line) => {
      try {
        const value: unknown = JSON.parse(line);
        return isSaid(value) ? [value] : [];
      } catch {
        return [];
      }
    });
  }

  /** Waits until it has said `count` of these; an engine that ended first is an error with its words. */
  async says(event: string, timeoutMs: number, count = 1): Promise<Said> {
    const found = (): Said[] => this.said().filter((said) => said.event === event);
    await until(`the engine says ${event}: ${this.output().slice(-2000)}`, () => found().length >= count || !this.isRunning, timeoutMs);
    const last = found()[count - 1];
    if (last === undefined) throw new Error(`the engine ended before it said ${event}: ${this.output()}`);
    return last;
  }

  stop(): Promise<number | string> {
    return end(this.#running, 'SIGTERM', 10_000);
  }

  kill(): Promise<number | string> {
    return end(this.#running, 'SIGKILL');
  }
}

const isSaid = (value: unknown): value is Said =>
  typeof value === 'object' && value !== null && 'event' in value && typeof value.event === 'string';
