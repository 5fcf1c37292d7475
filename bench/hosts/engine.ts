/**
 * The checkpoint engine of a group across hosts: cuts and acks each host by the clock, commits
 * nothing (a commit is the least ack of all hosts), and takes the group over when a host is dead.
 *
 *   every 50 ms:  cut at each host, in any order, some ms apart ── store ── ack at each host
 *                                                           the last ack asked for = the oracle's commit
 *   dead host:    takeover at the first living host (one swap in the ledger), then at the others
 *
 * The members of one life stay where they are: same port on the host or on another one is the
 * caller's word. An epoch goes on through a ledger that is down: cuts and acks are the hosts' own,
 * so epochs pile up there and are committed when it is back. A host that does not answer is asked
 * again until it does or the engine is stopped: a repeat is ignored by who has done it already.
 *
 * `at` is told each step of each epoch as it happens, so that a fault can strike there.
 */
import { ApiRefusal, type GroupAnswer } from '../bed/api.ts';
import type { Cluster } from '../bed/cluster.ts';
import { sleep, until } from '../bed/commands.ts';
import { nowUs } from '../bed/libc.ts';
import type { Oracle } from '../bed/oracle.ts';
import type { Bounds } from './traffic.ts';

const INTERVAL_MS = 50;
const STORE_MS = 8;
const APART_MS = 4;
const TRIES_MS = 60_000;
const POLL_MS = 5;

/** Where an epoch is. `cut`, `acked`: this host has answered; `asked`: the last ack is on its way; `opened`: of a takeover, this host is in the new generation. */
export type Step = 'begin' | 'cut' | 'sealed' | 'acked' | 'asked' | 'end' | 'opened';

export interface Home {
  readonly name: string;
  readonly host: number;
}

export class HostsEngine {
  readonly #cluster: Cluster;
  readonly #oracle: Oracle;
  readonly #group: string;
  readonly bounds: readonly Bounds[];
  #homes: readonly Home[] = [];
  generation = 0;
  /** The epoch that is open. */
  open = 1;
  #committed = 0;
  #commitAtUs = nowUs();
  #commitGapUs = 0;
  #stopping = false;
  #running: Promise<unknown> | undefined;
  failure: Error | undefined;
  at: (step: Step, host?: number) => void = () => undefined;
  /** Between the cuts of two hosts, at most, milliseconds. */
  apartMs = APART_MS;

  constructor(cluster: Cluster, oracle: Oracle, group: string) {
    this.#cluster = cluster;
    this.#oracle = oracle;
    this.#group = group;
    this.bounds = cluster.daemons.map(() => ({ floor: 1, ceiling: 1 }));
  }

  get committed(): number {
    return this.#committed;
  }
  /** The hosts that the group's members live on. */
  get hosts(): readonly number[] {
    return [...new Set(this.#homes.map(({ host }) => host))].sort();
  }
  /** The longest time without a commit since it was last asked, milliseconds. */
  gapMs(): number {
    const gapUs = Math.max(this.#commitGapUs, nowUs() - this.#commitAtUs);
    this.#commitGapUs = 0;
    return gapUs / 1e3;
  }

  state(host: number): Promise<GroupAnswer> {
    return this.#cluster.daemon(host).api.group('GET', `/v1/groups/${this.#group}`);
  }
  say(host: number, verb: string, body: object): Promise<GroupAnswer> {
    return this.#cluster.daemon(host).api.group('POST', `/v1/groups/${this.#group}/${verb}`, body);
  }

  async protect(file: object, homes: readonly Home[]): Promise<void> {
    await this.apply(file, homes);
    const [first = 0] = this.hosts;
    const { generation } = await insist<GroupAnswer>(async () => {
      const state = await this.say(first, 'protect', {}).catch((error: unknown) => said(error, 'already_protected') ? this.state(first) : Promise.reject(asError(error)));
      return state.phase === 'protected' ? state : undefined; // said twice where the first answer was late
    });
    this.generation = generation;
    let seen: GroupAnswer | undefined;
    for (const host of this.hosts) await until('the group is protected', async () => isProtected(seen = await this.state(host).catch(() => undefined), generation), TRIES_MS)
      .catch((error: unknown) => Promise.reject(new Error(`${asError(error).message}: generation ${generation}, h${host + 1} says ${JSON.stringify(seen)}`)));
  }

  /** The group is there, and not protected. */
  async apply(file: object, homes: readonly Home[]): Promise<void> {
    this.#homes = homes;
    const { api } = this.#cluster.daemon(this.hosts[0] ?? 0);
    await insist(() => api.group('PUT', `/v1/groups/${this.#group}`, file));
  }

  /** Ends the group everywhere, whatever its hosts think of it: nothing that is held leaves. */
  async forget(): Promise<void> {
    const [first = 0] = this.hosts;
    const { generation } = this;
    if (generation > 0) await insist(() => this.say(first, 'unprotect', { generation, held: 'discard' }).catch((error: unknown) => said(error, 'not_protected') || said(error, 'no_such_group') ? true : Promise.reject(asError(error))));
    for (const host of this.bounds.keys()) await until(`h${host + 1} has ended the group`, () => this.#leave(host), TRIES_MS);
    const { api } = this.#cluster.daemon(first);
    await until('the group is deleted', async () => [200, 204, 404].includes((await api.call('DELETE', `/v1/groups/${this.#group}`)).status), TRIES_MS);
    for (const host of this.bounds.keys()) await until(`h${host + 1} has forgotten the group`, async () => await this.#phase(host) === undefined, TRIES_MS);
  }

  run(): void {
    this.#stopping = false;
    this.#commitAtUs = nowUs();
    this.#running = Promise.all([this.#loop(), this.#watch()]).catch((error: unknown) => {
      this.failure = asError(error);
      this.#stopping = true;
    });
  }
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
    this.#running = undefined;
  }

  /** Seals the open epoch at every host and acks it there: everything sent before is to go out. */
  async epoch(): Promise<void> {
    const epoch = this.open;
    this.at('begin');
    for (const host of shuffled(this.hosts)) {
      if (!(await this.#cut(host, epoch))) return;
      this.at('cut', host);
      await sleep(Math.random() * this.apartMs);
    }
    this.open = epoch + 1;
    this.at('sealed');
    await sleep(STORE_MS);
    const hosts = shuffled(this.hosts);
    await Promise.all(hosts.map(async (host, i) => {
      if (i === hosts.length - 1) {
        this.#oracle.begin('commit', epoch, nowUs());
        setImmediate(() => this.at('asked'));
      }
      if (await this.#tell(host, 'ack', epoch)) this.at('acked', host);
    }));
    this.at('end');
  }

  /** The group goes on in the next generation from the epoch that all hosts acked. Returns that epoch. */
  async takeover(members: readonly object[], homes: readonly Home[]): Promise<number> {
    const hosts = [...new Set(homes.map(({ host }) => host))].sort();
    const generation = this.generation + 1;
    const [first = 0, ...others] = hosts;
    let epoch = (await this.state(first)).committed;
    let answered = this.#oracle.begin('takeover', epoch, nowUs());
    const answer = await insist<GroupAnswer>(() => this.say(first, 'takeover', { generation, epoch, members }).catch((error: unknown) => {
      if (said(error, 'epoch_out_of_order')) { // an ack of the dead host that this one had not heard of
        answered(false);
        epoch += 1;
        answered = this.#oracle.begin('takeover', epoch, nowUs());
        return undefined;
      }
      throw asError(error);
    }));
    this.generation = generation;
    this.open = answer.open;
    this.#homes = homes;
    this.at('opened', first);
    for (const host of others) {
      await insist(() => this.say(host, 'takeover', { generation, epoch }));
      this.at('opened', host);
    }
    answered(true);
    for (const bounds of this.bounds) Object.assign(bounds, { floor: this.open, ceiling: this.open });
    return epoch;
  }

  /** Protection was ended and begun again: epochs count from 1, nothing that was held before may be seen. */
  beginAgain(generation: number): void {
    this.#oracle.begin('takeover', 0, nowUs())(true);
    this.generation = generation;
    this.open = 1;
    this.#committed = 0;
    for (const bounds of this.bounds) Object.assign(bounds, { floor: 1, ceiling: 1 });
  }

  /** False: the engine was stopped before the host had done it. */
  async #cut(host: number, epoch: number): Promise<boolean> {
    const bounds = this.bounds[host];
    if (bounds === undefined) throw new Error(`no host ${host}`);
    const told = this.#homes.filter((home) => home.host === host).map(({ name }) => this.#oracle.begin('cut', epoch, nowUs(), name));
    bounds.ceiling = epoch + 1;
    if (!(await this.#tell(host, 'cut', epoch))) return false;
    for (const tell of told) tell(true);
    bounds.floor = epoch + 1;
    return true;
  }

  /** Until the host has answered; a refusal is an answer, and the end of this engine. */
  async #tell(host: number, verb: 'cut' | 'ack', epoch: number): Promise<boolean> {
    for (;;) {
      try {
        await this.say(host, verb, { generation: this.generation, epoch });
        return true;
      } catch (error) {
        if (this.#stopping) return false;
        if (error instanceof ApiRefusal && error.status !== 503 && error.status !== 404) throw error;
      }
      await sleep(POLL_MS);
    }
  }

  /** undefined = the host does not know the group (or does not answer). */
  async #phase(host: number): Promise<GroupAnswer | undefined> {
    return this.state(host).catch((error: unknown) => error instanceof ApiRefusal && error.status === 404 ? undefined : Promise.reject(asError(error)));
  }
  async #leave(host: number): Promise<boolean> {
    const state = await this.#phase(host);
    if (state === undefined || state.phase === 'idle') return true;
    if (state.phase === 'fenced') await this.say(host, 'unprotect', { generation: state.generation, held: 'discard' }).catch(() => undefined); // asked again
    return false;
  }

  async #loop(): Promise<void> {
    while (!this.#stopping) {
      const began = nowUs();
      await this.epoch();
      const restMs = INTERVAL_MS - (nowUs() - began) / 1e3;
      if (restMs > 0) await sleep(restMs);
    }
  }

  /** What the group has committed, as its last host sees it. */
  async #watch(): Promise<void> {
    while (!this.#stopping) {
      const committed = await this.state(this.hosts.at(-1) ?? 0).then((state) => state.generation === this.generation ? state.committed : 0, () => 0);
      if (committed > this.#committed) {
        this.#committed = committed;
        this.#commitGapUs = Math.max(this.#commitGapUs, nowUs() - this.#commitAtUs);
        this.#commitAtUs = nowUs();
      }
      await sleep(POLL_MS);
    }
  }
}

/** Asks until it is so: a ledger that is late is asked again, anything else is thrown. */
export async function insist<T>(ask: () => Promise<T | undefined>): Promise<T> {
  const endUs = nowUs() + TRIES_MS * 1e3;
  let last = 'it is not so';
  while (nowUs() < endUs) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      if (!said(error, 'ledger_down') && !said(error, 'no_such_group')) throw error;
      last = asError(error).message;
    }
    await sleep(POLL_MS);
  }
  throw new Error(`asked for ${TRIES_MS} ms in vain: ${last}`);
}

const isProtected = (state: GroupAnswer | undefined, generation: number): boolean => state?.phase === 'protected' && state.generation === generation;
export const said = (error: unknown, code: string): boolean => error instanceof ApiRefusal && error.code === code;
const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function shuffled<T>(list: readonly T[]): T[] {
  return list.map((value) => ({ value, at: Math.random() })).sort((a, b) => a.at - b.at).map(({ value }) => value);
}
