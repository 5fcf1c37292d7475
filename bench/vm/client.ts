/**
 * The counting client, seen from who started it: where it is while it runs, its account at the end.
 */
import { join } from 'node:path';
import { end, startIn, until, type Running } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import type { ClientAccount, ClientReport } from './client-account.ts';
import { COUNT_PORT } from './guest.ts';

export class CountingClient {
  readonly #running: Running;

  /** Runs in `namespace` and counts through the guest at `ip`. */
  constructor(namespace: string, ip: string, spacingMs: number) {
    const program = join(repositoryRoot(), 'dist/bench/vm/client-child.js');
    this.#running = startIn(namespace, process.execPath, [program, ip, String(COUNT_PORT), String(spacingMs)]);
  }

  /** The latest report; undefined before the first. */
  where(): ClientReport | undefined {
    return lines(this.#running).findLast((line) => line.kind === 'report');
  }

  /** Waits until `more` further answers came; throws after `timeoutMs`. */
  async counts(more: number, timeoutMs: number): Promise<void> {
    const from = this.where()?.answers ?? 0;
    await until(`the client has ${more} more answers`, () => (this.where()?.answers ?? 0) >= from + more || this.#gone(), timeoutMs);
    if (this.#gone()) throw new Error(`the client ended: ${this.#running.output()}`);
  }

  async stop(): Promise<ClientAccount> {
    this.#running.child.kill('SIGTERM');
    await this.#running.ended;
    const account = lines(this.#running).find((line) => line.kind === 'account');
    if (account?.kind !== 'account') throw new Error(`the client gave no account: ${this.#running.output()}`);
    return account;
  }

  /** Ends it without its account; a client that has ended is left as it is. */
  async end(): Promise<void> {
    await end(this.#running, 'SIGKILL');
  }

  #gone(): boolean {
    return this.#running.child.exitCode !== null || this.#running.child.signalCode !== null;
  }
}

type Line = ClientReport | ClientAccount;
const isLine = (value: unknown): value is Line => typeof value === 'object' && value !== null && 'kind' in value;

function lines(running: Running): Line[] {
  return running.output().split('\n').flatMap((text) => {
    try {
      const value: unknown = JSON.parse(text);
      return isLine(value) ? [value] : [];
    } catch {
      return [];
    }
  });
}
