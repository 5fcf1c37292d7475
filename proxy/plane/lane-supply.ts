/**
 * Which groups have lanes. None has, until its frames want some:
 *
 *   none ── wanted ──► asked: devices, then queues and gates ─┬─► given ── devices lost ──► none, and again after a second
 *    ▲                                                        └─► refused: said, and again after a minute
 *    └─────────────────────────────────────────────────────────────────┘
 *
 * Of one group this goes one after the other. Whatever is refused, the ring holds as ever. A kernel that has no such
 * queues is not asked for ever: each time it would look for its module.
 */
import { constants } from 'node:os';
import type { GroupId } from '../ports.ts';

const AGAIN_MS = 1000;
const LATER_MS = 60_000;
const { ENOENT } = constants.errno;
/** Where another tool deletes queues while they are made, the kernel says the same. */
const WITHOUT_QUEUES = 2;

/** Devices whose queues are lanes. */
export interface LanePairs {
  /** They are there, and held frames may go in from here on; the ifindex of the one with the queues, 0 where there is no such group. */
  ensure(id: GroupId): Promise<number>;
  /** None is in use. */
  drop(id: GroupId): Promise<void>;
}
/** Why the hold loop can't use them. */
export interface Refusal {
  readonly errno: number;
  readonly reason: string;
}
export interface SupplyHooks {
  /** The hold loop's lanes are queues of this device from here on; 0 = there are none any more. */
  readonly use: (id: GroupId, ifindex: number) => Promise<Refusal | undefined>;
  readonly refused: (id: GroupId, reason: string) => void;
  readonly clockMs: () => number;
}
interface Supply {
  state: 'none' | 'asked' | 'given';
  /** Giving and taking. */
  turn: Promise<void>;
  againMs: number;
  /** Each reason once in a life of the group. */
  readonly said: Set<string>;
}

export class LaneSupply {
  readonly #pairs: LanePairs;
  readonly #hooks: SupplyHooks;
  readonly #groups = new Map<GroupId, Supply>();
  #missed = 0;

  constructor(pairs: LanePairs, hooks: SupplyHooks) {
    this.#pairs = pairs;
    this.#hooks = hooks;
  }

  /** Anew: the hold loop knows of no lanes of this group. */
  opened(id: GroupId): void {
    this.#groups.set(id, { state: 'none', turn: Promise.resolve(), againMs: 0, said: new Set() });
  }
  closed(id: GroupId): void {
    this.#groups.delete(id);
  }
  end(): void {
    this.#groups.clear();
  }

  /** Resolves when it has some or won't get any now. Never rejects. */
  give(id: GroupId): Promise<void> {
    const one = this.#groups.get(id);
    if (one === undefined) return Promise.resolve();
    if (one.state === 'none' && this.#missed < WITHOUT_QUEUES && this.#hooks.clockMs() >= one.againMs) {
      one.state = 'asked';
      one.turn = one.turn.then(() => this.#make(id, one));
    }
    return one.turn;
  }
  lost(id: GroupId): Promise<void> {
    const one = this.#groups.get(id);
    if (one === undefined) return Promise.resolve();
    one.turn = one.turn.then(() => this.#take(id, one));
    return one.turn;
  }

  async #make(id: GroupId, one: Supply): Promise<void> {
    const refusal = await this.#ask(id, one);
    if (refusal === undefined) {
      this.#missed = 0;
      one.state = 'given';
      return;
    }
    this.#missed = refusal.errno === ENOENT ? this.#missed + 1 : 0;
    this.#rest(one, LATER_MS);
    if (this.#groups.get(id) !== one) return; // closed meanwhile
    this.#say(id, one, refusal.errno === ENOENT ? `${refusal.reason}, as of a kernel without sch_tbf: modprobe sch_tbf (CONFIG_NET_SCH_TBF) and restart sluiced` : refusal.reason);
    await this.#pairs.drop(id).catch((error: unknown) => this.#say(id, one, textOf(error)));
  }
  async #ask(id: GroupId, one: Supply): Promise<Refusal | undefined> {
    try {
      const ifindex = await this.#pairs.ensure(id);
      if (ifindex === 0 || this.#groups.get(id) !== one) return { errno: 0, reason: 'the group is not attached' };
      return await this.#hooks.use(id, ifindex);
    } catch (error) {
      return { errno: 0, reason: textOf(error) };
    }
  }
  async #take(id: GroupId, one: Supply): Promise<void> {
    if (one.state !== 'given') return;
    one.state = 'asked';
    try {
      await this.#hooks.use(id, 0);
    } catch {
      return; // nor is the group open any more, or the loop there
    }
    this.#rest(one, AGAIN_MS);
  }
  #rest(one: Supply, ms: number): void {
    one.state = 'none';
    one.againMs = this.#hooks.clockMs() + ms;
  }
  #say(id: GroupId, { said }: Supply, reason: string): void {
    if (said.has(reason)) return;
    said.add(reason);
    this.#hooks.refused(id, reason);
  }
}

/** With what to do, where it says that. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'fix' in error && typeof error.fix === 'string' ? `${error.message}: ${error.fix}` : error.message;
}
