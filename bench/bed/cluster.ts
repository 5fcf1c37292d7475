/**
 * Several hosts with a sluiced each, and an etcd node each: the bed of hosts.ts and, beside its
 * uplinks, a network of its own for the ledger, so that a host can lose one and keep the other.
 *
 *   [h1: br0 ─ uplink] ═ switch: sw0 ─ outsider        members' frames
 *   [h1: mg 10.77.0.1] ═ switch: ledger                etcd and its clients
 *
 * `close()` ends and removes all; a signal: abandon.ts, which finds daemons and etcd by namespace.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ipBatch, until } from './commands.ts';
import { Daemon } from './daemon.ts';
import { Etcd, type EtcdOptions, type EtcdTls } from './etcd.ts';
import { HostsBed, type HostsOptions } from './hosts.ts';

const READY_MS = 30_000;

/** What each host's sluiced is started in. */
export interface Surroundings {
  prepare(bed: HostsBed): Promise<unknown>;
  env(bed: HostsBed, host: number): Record<string, string>;
}

/** As the operators' guide advises on a network of hosts side by side; etcd's own is 1000. */
const ELECTION_MS = 500;

export interface ClusterOptions extends HostsOptions, Pick<EtcdOptions, 'electionMs'> {
  /** The first so many hosts have an etcd node; default all. */
  readonly etcdNodes?: number;
  /** `isolation` of every host's settings. */
  readonly isolation?: object;
  /** What etcd shows, and what the hosts show it. */
  readonly tls?: { readonly etcd: EtcdTls; readonly host: EtcdTls };
}

export class Cluster {
  readonly bed: HostsBed;
  readonly etcd: Etcd;
  readonly #env: (host: number) => Record<string, string>;
  readonly #isolation: object | undefined;
  readonly #daemons: Daemon[];

  private constructor(bed: HostsBed, env: (host: number) => Record<string, string>, { electionMs = ELECTION_MS, tls, etcdNodes, isolation }: ClusterOptions) {
    this.bed = bed;
    this.#env = env;
    const addresses = bed.hosts.map((_, i) => `10.77.0.${i + 1}`);
    this.etcd = new Etcd({
      directory: bed.directory, port: 2379, nodes: etcdNodes ?? bed.hosts.length, addresses, namespaces: bed.hosts,
      electionMs, ...(tls === undefined ? {} : { tls: tls.etcd }),
    });
    this.#isolation = isolation;
    this.#daemons = bed.hosts.map((_, i) => this.#daemon(i, tls?.host));
  }

  get daemons(): readonly Daemon[] {
    return this.#daemons;
  }

  static async create(options: ClusterOptions, surroundings?: Surroundings): Promise<Cluster> {
    const bed = await HostsBed.create(options);
    let cluster: Cluster | undefined;
    try {
      await surroundings?.prepare(bed);
      cluster = new Cluster(bed, (host) => surroundings?.env(bed, host) ?? {}, options);
      await cluster.#start();
      return cluster;
    } catch (error) {
      await (cluster ?? bed).close();
      throw error;
    }
  }

  daemon(host: number): Daemon {
    const daemon = this.daemons[host];
    if (daemon === undefined) throw new Error(`the bed has no host ${host}`);
    return daemon;
  }
  /** A host's way to the ledger; its etcd node is behind it too. */
  async ledger(host: number, connected: boolean): Promise<void> {
    await ipBatch(this.bed.host(host), [`link set mg ${connected ? 'up' : 'down'}`]);
  }
  /** The ports of members, as a host's end or its beginning sets them. */
  async ports(host: number, up: boolean): Promise<void> {
    const mine = this.bed.members.filter((member) => member.host === host);
    await ipBatch(this.bed.host(host), mine.map(({ port }) => `link set ${port} ${up ? 'up' : 'down'}`));
  }

  async close(): Promise<void> {
    for (const daemon of this.daemons) await daemon.close();
    await this.etcd.close();
    await this.bed.close();
  }

  /** The host's sluiced is another one from now on: same state, and it shows etcd this. The one before is stopped. */
  async shows(host: number, tls: object): Promise<void> {
    await this.daemon(host).stop();
    this.#daemons[host] = this.#daemon(host, tls);
  }

  #daemon(i: number, tls: object | undefined): Daemon {
    const host = `h${i + 1}`;
    const directory = join(this.bed.directory, host);
    mkdirSync(directory, { recursive: true });
    const { endpoints } = this.etcd;
    const nearest = i % endpoints.length;
    return new Daemon({
      namespace: this.bed.host(i), directory, pins: this.bed.pins(i), env: this.#env(i),
      across: { host, uplink: 'uplink', endpoints: [...endpoints.slice(nearest), ...endpoints.slice(0, nearest)], ...(tls === undefined ? {} : { tls }), ...(this.#isolation === undefined ? {} : { isolation: this.#isolation }) },
    });
  }

  async #start(): Promise<void> {
    await ipBatch(this.bed.switch, ['link add name ledger type bridge', 'link set ledger up', 'link set lo up']);
    for (const [i, host] of this.bed.hosts.entries()) {
      await ipBatch(this.bed.switch, [`link add mg${i} type veth peer name mg netns ${host}`, `link set mg${i} master ledger up`]);
      await ipBatch(host, ['link set lo up', `addr add 10.77.0.${i + 1}/24 dev mg`, 'link set mg up']);
    }
    await this.etcd.start();
    await Promise.all(this.daemons.map((daemon) => daemon.start('live')));
    for (const { api } of this.daemons) await until('sluiced has the ledger', async () => (await api.call('GET', '/readyz')).status === 200, READY_MS);
  }
}
