/**
 * A sluiced of the bed's own: own configuration, state, socket and pins, started in the bed's host
 * namespace; stopped, frozen, killed and started again as the test likes.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Api } from './api.ts';
import { end, startIn, until, type Running } from './commands.ts';

export interface DaemonOptions {
  readonly namespace: string;
  /** Everything of the daemon is below this directory, but its pins. */
  readonly directory: string;
  readonly pins: string;
  /** The portable plane over these ports, its memory in this file; absent = ebpf. */
  readonly pcap?: { readonly ports: readonly string[]; readonly memory: string };
  readonly attach?: 'auto' | 'tcx' | 'clsact';
  readonly lanes?: 'auto' | 'off' | 'on';
  /** Where the journal is, if not below `directory`. */
  readonly state?: string;
  readonly cpu?: number;
  /** `control.tcp` of its settings. */
  readonly tcp?: object;
  readonly auditFile?: string;
  /** `hooks` of its settings. */
  readonly hooks?: object;
  /** Added to its environment. */
  readonly env?: Record<string, string>;
  /** Of several hosts: its name, its uplink, where the ledger is, and more keys of its settings. */
  readonly across?: {
    readonly host: string;
    readonly uplink: string;
    readonly endpoints: readonly string[];
    readonly tls?: object;
    readonly isolation?: object;
  };
}

/** The repository's root, from this file's place in the sources or in dist/. */
export function repositoryRoot(): string {
  let at = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(at, 'package.json'))) at = dirname(at);
  return at;
}

const acrossOf = ({ uplink, endpoints, tls, isolation }: NonNullable<DaemonOptions['across']>): object =>
  ({ uplink, ledger: { etcd: { endpoints, ...(tls === undefined ? {} : { tls }) } }, ...(isolation === undefined ? {} : { isolation }) });

export class Daemon {
  readonly socket: string;
  readonly #config: string;
  readonly #options: DaemonOptions;
  /** Groups that have rings of their own, from its next start on; undefined = the default. */
  rings: number | undefined;
  #running: Running | undefined;
  #api: Api | undefined;
  #said = '';

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.socket = join(options.directory, 'control.sock');
    this.#config = join(options.directory, 'sluice.yaml');
    const config = {
      host: options.across?.host ?? 'bed',
      control: { socket: this.socket, ...(options.tcp === undefined ? {} : { tcp: options.tcp }) },
      ...(options.auditFile === undefined ? {} : { audit: { file: options.auditFile } }),
      ...(options.across === undefined ? {} : acrossOf(options.across)),
      bridges: join(options.directory, 'bridges'),
      ...(options.hooks === undefined ? {} : { hooks: options.hooks }),
      state: options.state ?? join(options.directory, 'state'),
      ...(options.pcap === undefined ? { pins: options.pins, attach: options.attach ?? 'auto', ...(options.lanes === undefined ? {} : { lanes: options.lanes }) } : { plane: 'pcap', pcap: options.pcap }),
      log: { level: 'info', format: 'json' },
      ...(options.cpu === undefined ? {} : { worker: { cpu: options.cpu } }),
    };
    writeFileSync(this.#config, JSON.stringify(config));
  }

  /** Starts it and waits until it answers, `startMs` at most. `ready`: also until everything is in place. */
  async start(wanted: 'live' | 'ready' = 'ready', startMs = 20_000): Promise<void> {
    if (this.#running !== undefined) throw new Error('the daemon is running already');
    const running = startIn(this.#options.namespace, process.execPath, [
      join(repositoryRoot(), 'bin/sluiced'), '--config', this.#config,
    ], { ...(this.rings === undefined ? {} : { SLUICE_WORKER_RINGS: String(this.rings) }), ...this.#options.env });
    this.#running = running;
    let gone: number | string | undefined;
    void running.ended.then((code) => (gone = code));
    const api = new Api(this.socket);
    this.#api = api;
    await until(`sluiced is ${wanted}`, async () => {
      if (gone !== undefined) throw new Error(`sluiced ended with ${gone}: ${running.output()}`);
      const answer = await api.call('GET', wanted === 'live' ? '/healthz' : '/readyz').catch(() => undefined);
      return answer?.status === 200;
    }, startMs).catch((error: unknown) => {
      throw new Error(`${error instanceof Error ? error.message : String(error)}\n${running.output()}`);
    });
  }

  get api(): Api {
    if (this.#api === undefined) throw new Error('the daemon was never started');
    return this.#api;
  }

  /** Whoever waits for an answer waits no longer; what comes next is asked over a new connection. */
  async hangUp(): Promise<void> {
    const before = this.#api;
    this.#api = new Api(this.socket);
    await before?.close();
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  get pid(): number {
    const pid = this.#running?.child.pid;
    if (pid === undefined) throw new Error('the daemon is not running');
    return pid;
  }

  /** What it has logged, over all its lives. */
  log(): string {
    return this.#said + (this.#running?.output() ?? '');
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** SIGKILL, at once, and gone. */
  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  /** Resident memory of the process, bytes. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  /** Process ids of children: one with the portable plane, else none. */
  children(): number[] {
    const tasks = `/proc/${this.pid}/task`;
    return readdirSync(tasks).flatMap((task) =>
      readFileSync(join(tasks, task, 'children'), 'utf8').split(' ').filter(Boolean).map(Number),
    );
  }

  /** Ends the daemon and removes what outlives it: the pins, and with them every attachment; or the plane's memory. */
  async close(): Promise<void> {
    await this.stop();
    rmSync(this.#options.pcap?.memory ?? this.#options.pins, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    await end(running, signal, 10_000);
    await this.#api?.close();
    this.#said += running.output();
    this.#running = undefined;
  }
}
