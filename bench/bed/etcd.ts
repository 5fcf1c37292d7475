/**
 * An etcd of three nodes (or one) on this machine: each may be killed, paused, and come back. Each
 * dies with whoever started it. With --pre-vote, as from etcd 3.5 on: without it a node that comes back
 * from a cut has a higher term than the others and costs them their leader. Addresses are loopback's unless given, ports follow from `port`.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { end, namespacePath, run, start, until, type Running } from './commands.ts';
import { cpuUs } from './cpu.ts';

export interface EtcdOptions {
  readonly directory: string;
  readonly port: number;
  readonly nodes?: number;
  /** Of each node; default 127.0.0.1. */
  readonly addresses?: readonly string[];
  /** A silent leader is replaced after one to two times this; etcd's own default is 1000. */
  readonly electionMs?: number;
  /** Where each node runs; default here. */
  readonly namespaces?: readonly string[];
  /** Of its file; beyond it etcd takes no writes. Default: etcd's own, 2 GiB. */
  readonly quotaBytes?: number;
  /** Clients come by TLS and show a certificate of this CA; the nodes among themselves do without. */
  readonly tls?: EtcdTls;
}
/** Files (PEM). The certificate is every node's, and etcdctl's, so it must be good for both ends. */
export interface EtcdTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

interface EndpointStatus {
  readonly Endpoint: string;
  readonly Status: { readonly header: { readonly member_id: number }; readonly leader: number; readonly raftIndex: number };
}

export class Etcd {
  readonly endpoints: readonly string[];
  readonly #options: EtcdOptions;
  readonly #peers: readonly string[];
  readonly #nodes: (Running | undefined)[];

  constructor(options: EtcdOptions) {
    this.#options = options;
    const count = options.nodes ?? 3;
    const urls = (shift: number, scheme: string): string[] => Array.from({ length: count }, (_, i) => `${scheme}://${options.addresses?.[i] ?? '127.0.0.1'}:${options.port + 2 * i + shift}`);
    this.endpoints = urls(0, options.tls === undefined ? 'http' : 'https');
    this.#peers = urls(1, 'http');
    this.#nodes = this.endpoints.map(() => undefined);
  }

  /** Starts all that don't run, and waits until they answer together. */
  async start(): Promise<void> {
    for (const i of this.endpoints.keys()) this.startNode(i);
    await until('etcd answers', () => this.#isHealthy(), 30_000);
  }

  /** `aheadS`: its clocks of time since boot show so many seconds more, as on another machine. */
  startNode(i: number, aheadS = 0): void {
    const { directory, namespaces, electionMs = 1000, quotaBytes, tls } = this.#options;
    if (this.#nodes[i] !== undefined) return;
    const data = this.#dataOf(i);
    mkdirSync(data, { recursive: true, mode: 0o700 });
    const [client = '', peer = ''] = [this.endpoints[i], this.#peers[i]];
    const args = [
      'etcd', '--name', `n${i}`, '--data-dir', data, '--log-level', 'error', '--initial-cluster-token', directory,
      '--listen-client-urls', client, '--advertise-client-urls', client, '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer,
      '--pre-vote', '--election-timeout', String(electionMs), '--heartbeat-interval', String(electionMs / 10),
      '--initial-cluster', this.#cluster(), '--auto-compaction-mode', 'periodic', '--auto-compaction-retention', '5m',
      ...(quotaBytes === undefined ? [] : ['--quota-backend-bytes', String(quotaBytes)]),
      ...(tls === undefined ? [] : ['--client-cert-auth', '--trusted-ca-file', tls.ca, '--cert-file', tls.cert, '--key-file', tls.key]),
    ];
    const namespace = namespaces?.[i];
    const inside = namespace === undefined ? [] : ['nsenter', `--net=${namespacePath(namespace)}`];
    const clock = aheadS === 0 ? [] : ['unshare', '--time', '--monotonic', String(aheadS), '--boottime', String(aheadS)];
    this.#nodes[i] = start('setpriv', ['--pdeathsig', 'KILL', ...inside, ...clock, ...args]);
  }

  /**
   * From now on the node's disk takes so long for each sync, until what is returned is called. Its system
   * calls are held up by strace: a cgroup's limit is by bytes, and syncs of a small log are few bytes.
   */
  async slowDisk(i: number, syncMs: number): Promise<() => Promise<void>> {
    const pid = this.#nodes[i]?.child.pid;
    const namespace = this.#options.namespaces?.[i];
    if (pid === undefined) throw new Error(`etcd node ${i} does not run`);
    const inside = namespace === undefined ? [] : ['nsenter', `--net=${namespacePath(namespace)}`];
    const us = String(syncMs * 1e3);
    const strace = start('setpriv', ['--pdeathsig', 'KILL', ...inside, 'strace', '-f', '-q', '-o', '/dev/null', '-e', 'trace=fsync,fdatasync', '-e', `inject=fsync,fdatasync:delay_enter=${us}`, '-p', String(pid)]);
    let gone: number | string | undefined;
    void strace.ended.then((code) => (gone = code));
    await until('strace holds etcd', () => {
      if (gone !== undefined) throw new Error(`strace ended with ${gone}: ${strace.output()}`);
      return tracerOf(pid) !== 0;
    });
    return async () => void (await end(strace, 'SIGTERM'));
  }

  /** What it has now, into a file. */
  async save(file: string): Promise<void> {
    await this.#ctl([this.endpoints[0] ?? ''], ['snapshot', 'save', file]);
  }
  /** All nodes die and come back with what is in the file, as an operator brings back a backup. */
  async restore(file: string): Promise<void> {
    await this.close();
    for (const [i, peer] of this.#peers.entries()) {
      const data = this.#dataOf(i);
      rmSync(data, { recursive: true });
      await this.ctl(['snapshot', 'restore', file, '--name', `n${i}`, '--data-dir', data, '--initial-cluster', this.#cluster(), '--initial-cluster-token', this.#options.directory, '--initial-advertise-peer-urls', peer]);
    }
    await this.start();
  }

  runs(i: number): boolean {
    return this.#nodes[i] !== undefined;
  }
  async kill(i: number): Promise<void> {
    const node = this.#nodes[i];
    this.#nodes[i] = undefined;
    if (node !== undefined) await end(node, 'SIGKILL');
  }
  pause(i: number): void {
    this.#nodes[i]?.child.kill('SIGSTOP');
  }
  wake(i: number): void {
    this.#nodes[i]?.child.kill('SIGCONT');
  }

  /** CPU time of all nodes, microseconds. */
  cpuUs(): number {
    return this.#nodes.flatMap((node) => node?.child.pid ?? []).reduce((sum, pid) => sum + cpuUs(pid), 0);
  }

  /** The node that leads now, by its number; waited for while one is elected, or a node is slow to say. */
  async leader(): Promise<number> {
    let node = -1;
    await until('etcd has a leader', async () => (node = await this.#leads().catch(() => -1)) >= 0, 60_000);
    return node;
  }

  /** Entries in its log, ever: one a transaction. */
  async entries(): Promise<number> {
    return Math.max(...(await this.#status()).map(({ Status }) => Status.raftIndex));
  }

  async #status(): Promise<EndpointStatus[]> {
    return JSON.parse(await this.ctl(['endpoint', 'status', '-w', 'json'])) as EndpointStatus[];
  }

  async #leads(): Promise<number> {
    const rows = await this.#status();
    const leading = rows.find(({ Status }) => Status.header.member_id === Status.leader);
    return this.endpoints.findIndex((endpoint) => leading?.Endpoint === endpoint);
  }

  #dataOf(i: number): string {
    return join(this.#options.directory, `etcd${i}`);
  }
  #cluster(): string {
    return this.#peers.map((url, n) => `n${n}=${url}`).join(',');
  }

  ctl(args: readonly string[]): Promise<string> {
    return this.#ctl(this.endpoints, args);
  }
  #ctl(endpoints: readonly string[], args: readonly string[]): Promise<string> {
    const { namespaces: [namespace] = [], tls } = this.#options;
    const inside = namespace === undefined ? [] : ['nsenter', `--net=${namespacePath(namespace)}`];
    const known = tls === undefined ? [] : ['--cacert', tls.ca, '--cert', tls.cert, '--key', tls.key];
    return run('env', ['ETCDCTL_API=3', ...inside, 'etcdctl', '--command-timeout=2s', '--endpoints', endpoints.join(','), ...known, ...args]);
  }

  async #isHealthy(): Promise<boolean> {
    return this.ctl(['endpoint', 'health']).then(() => true, () => false);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#nodes.keys()].map((i) => this.kill(i)));
  }
}

const tracerOf = (pid: number): number => Number(/TracerPid:\t(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
