/**
 * Groups across hosts as a measurement drives them: one member of each group on each of its hosts, and
 * an engine that says its calls to all hosts at once, each over a connection of its own (bytes on the
 * socket, wire.ts: the client's CPU is not the daemon's).
 *
 *   g ─ calls[h1] ─ sluiced of h1      cut(e) at all ── ack(e) at all ──► committed by the least ack
 *     └ calls[h2] ─ sluiced of h2
 *
 * Nothing here judges what leaves: that is the chaos series' part (chaos.ts).
 */
import type { Cluster } from '../bed/cluster.ts';
import { until } from '../bed/commands.ts';
import { WireApi } from '../bed/wire.ts';
import { insist, said } from './engine.ts';
import type { GroupAnswer } from '../bed/api.ts';

const WAIT_MS = 60_000;
const HOLD_BYTES = '4MiB';

export interface Standing {
  readonly name: string;
  /** Index of the bed's member on each of its hosts. */
  readonly members: readonly number[];
  /** Of the wire, its own. */
  readonly vlan: number;
  /** By VXLAN instead, under this VNI, over the bed's roads. */
  readonly vni?: number;
  /** Hosts that are not in the bed, each with a member too (played.ts). */
  readonly elsewhere?: readonly string[];
}

export class FarmGroup {
  readonly name: string;
  readonly members: readonly number[];
  readonly #calls: readonly WireApi[];
  generation = 0;
  open = 1;

  private constructor(name: string, members: readonly number[], calls: readonly WireApi[]) {
    this.name = name;
    this.members = members;
    this.#calls = calls;
  }

  /** Applied, and not protected. `isAlone`: of the one host that its member is on, with the ledger of that host. */
  static async apply({ bed, daemons }: Cluster, { name, members, vlan, vni, elsewhere = [] }: Standing, isAlone = false): Promise<FarmGroup> {
    const places = members.map((i) => bed.member(i));
    const calls = await Promise.all(places.map(({ host }) => WireApi.open(daemons[host]?.socket ?? '')));
    const group = new FarmGroup(name, members, calls);
    const file = { commit: 'acks', hold: { bytes: HOLD_BYTES }, ...(isAlone ? {} : { wire: vni === undefined ? { vlan } : { vxlan: vni, hosts: bed.roads() } }) };
    const here = places.map(({ name: member, mac, port, host }) => ({ name: member, mac, port, ...(isAlone ? {} : { host: `h${host + 1}` }) }));
    const there = elsewhere.map((host, i) => ({ name: `${name}-${host}`, port: `tap-${host}`, mac: playedMac(vlan, i), host }));
    await insist(() => group.#call(0).group('PUT', `/v1/groups/${name}`, { ...file, members: [...here, ...there] }));
    return group;
  }

  async protect(): Promise<void> {
    const { generation } = await insist(async () => {
      const state = await this.#say(0, 'protect', {}).catch((error: unknown) => this.#isSo(error, 'already_protected'));
      return state.phase === 'protected' ? state : undefined; // said twice: the ledger has it, this host may not have heard yet
    });
    this.generation = generation;
    this.open = 1;
    await this.#everywhere((state) => state.phase === 'protected' && state.generation === generation);
  }
  async unprotect(): Promise<void> {
    await insist(() => this.#say(0, 'unprotect', { generation: this.generation, held: 'discard' }).catch((error: unknown) => this.#isSo(error, 'not_protected')));
    await this.#everywhere(({ phase }) => phase === 'idle');
  }

  get hosts(): number {
    return this.members.length;
  }
  cut(host: number): Promise<GroupAnswer> {
    return this.#say(host, 'cut', { generation: this.generation, epoch: this.open });
  }
  ack(host: number, epoch = this.open - 1): Promise<GroupAnswer> {
    return this.#say(host, 'ack', { generation: this.generation, epoch });
  }
  /** Seals the open epoch on all hosts at once. */
  async cutAll(): Promise<void> {
    await Promise.all(this.members.map((_, host) => this.cut(host)));
    this.open += 1;
  }
  /** One of its commands as POST /v1/commands takes it: a cut of the open epoch, an ack of the one before. */
  command(command: 'cut' | 'ack'): object {
    return { group: this.name, command, generation: this.generation, epoch: command === 'cut' ? this.open : this.open - 1 };
  }
  state(host: number): Promise<GroupAnswer> {
    return this.#call(host).group('GET', `/v1/groups/${this.name}`);
  }

  /** Deleted, and its connections closed; it is not protected any more. */
  async forget(): Promise<void> {
    await insist(() => this.#call(0).must('DELETE', `/v1/groups/${this.name}`));
    this.close();
  }
  close(): void {
    for (const call of this.#calls) call.close();
  }

  #call(host: number): WireApi {
    const call = this.#calls[host];
    if (call === undefined) throw new Error(`no host ${host}`);
    return call;
  }
  async #say(host: number, verb: string, body: object): Promise<GroupAnswer> {
    return this.#call(host).group('POST', `/v1/groups/${this.name}/${verb}`, body);
  }
  /** Said twice, where the first answer was late: then it is so. */
  #isSo(error: unknown, code: string): Promise<GroupAnswer> {
    return said(error, code) ? this.state(0) : Promise.reject(error instanceof Error ? error : new Error(String(error)));
  }
  async #everywhere(is: (state: GroupAnswer) => boolean): Promise<void> {
    // A host that has not heard of the group yet answers 404: it will.
    for (const host of this.members.keys()) await until(`group ${this.name} is there on its host ${host}`, async () => this.state(host).then(is, () => false), WAIT_MS);
  }
}

/** Of a member that nobody runs: locally administered, and no other's. */
const playedMac = (vlan: number, i: number): string =>
  [0x06, 0x50, i, vlan >> 8, vlan & 0xff, 1].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
