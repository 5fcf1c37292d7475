/**
 * Is this host cut off, and what then: the prober's signs, the machine that judges them, the policy.
 *
 *    prober (a process) ─ round, answer ─► core/isolation ─┬─ isolated ─► event; takeovers refused; readyz
 *                                                          │      └ policy close ─► members' ports go down
 *                                                          └─ rejoined ─► event; ports up again
 *
 * `hold` (the default) changes nothing for the members: what they send out is held anyway, and no
 * epoch commits without the ledger. `close` is for VMs that must not even talk to each other on a
 * host that others may have given up. Ports of groups of this host alone are never closed.
 *
 * What is not known closes nothing and opens nothing: while nothing is probed, everything stays as it
 * is, and readyz says so.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { AddressView, IsolationView } from './api/across.ts';
import type { IsolationConfig } from './config.ts';
import { heedSign, unknownAt } from './core/isolation.ts';
import type { Isolation } from './core/isolation.ts';
import type { GroupState } from './core/types.ts';
import { localOf } from './core/watermarks.ts';
import { ClosedPorts } from './edge/closed-ports.ts';
import type { Switches } from './edge/closed-ports.ts';
import { Prober } from './edge/prober.ts';
import type { ProbeSign } from './edge/prober.ts';

/** While it is isolated: ports that come, or are set up by somebody, are closed too. */
const CLOSES_AGAIN_MS = 250;
export const CLOSED_FILE = 'closed-ports.json';

export interface IsolationParts {
  readonly config: IsolationConfig | undefined;
  readonly self: string;
  /** The state directory. */
  readonly state: string;
  readonly switches: Switches;
  readonly groups: () => readonly GroupState[];
  readonly tell: (type: 'isolated' | 'rejoined') => void;
  readonly log: Pick<Logger, 'warn' | 'error'>;
}

export class IsolationWatch {
  readonly #parts: IsolationParts;
  readonly #closed: ClosedPorts;
  readonly #prober: Prober | undefined;
  readonly #answeredMs = new Map<string, number>();
  readonly #rounds: number;
  #isolation: Isolation = unknownAt(performance.now());
  #timer: NodeJS.Timeout | undefined;
  #failed = '';

  constructor(parts: IsolationParts) {
    this.#parts = parts;
    this.#closed = new ClosedPorts(parts.switches, join(parts.state, CLOSED_FILE));
    const { config } = parts;
    this.#rounds = config === undefined ? 0 : Math.ceil(config.afterMs / config.everyMs);
    if (config?.policy !== 'close') this.#carryOut(() => this.#closed.open());
    if (config === undefined) return;
    this.#prober = new Prober({ addresses: config.addresses, everyMs: config.everyMs, onSign: (sign) => this.#hear(sign), onEnd: (why) => parts.log.error({}, why) });
    if (config.policy === 'close') this.#timer = setInterval(() => this.#level(), CLOSES_AGAIN_MS).unref();
  }

  /** A sentence while this host takes nothing over. */
  refusal(): string | undefined {
    const { config, self } = this.#parts;
    if (config === undefined || this.#isolation.phase !== 'isolated') return undefined;
    return `host ${self} is isolated, no answer from ${config.addresses.join(', ')}: take over on a host that is not, or here when one of them answers again`;
  }

  missing(): readonly string[] {
    const { config, self } = this.#parts;
    if (config === undefined) return [];
    const blind = this.#prober?.trouble;
    return [
      ...(blind === undefined ? [] : [`the isolation addresses are not probed: ${blind}`]),
      ...(this.#isolation.phase === 'isolated' ? [`host ${self} is isolated: no answer from ${config.addresses.join(', ')}${config.policy === 'close' ? '; its members\' ports are closed' : ''}`] : []),
    ];
  }

  view(): IsolationView | undefined {
    const { config } = this.#parts;
    if (config === undefined) return undefined;
    const nowMs = performance.now();
    const addresses = config.addresses.map((address): AddressView => {
      const atMs = this.#answeredMs.get(address);
      return { address, ...(atMs === undefined ? {} : { answeredMsAgo: Math.round(nowMs - atMs) }) };
    });
    return { phase: this.#isolation.phase, forMs: Math.round(nowMs - this.#isolation.sinceMs), policy: config.policy, addresses, closedPorts: [...this.#closed.names] };
  }

  /** Ports stay as they are. */
  close(): void {
    clearInterval(this.#timer);
    this.#prober?.close();
  }

  #hear(sign: ProbeSign): void {
    const atMs = performance.now();
    if (sign.kind === 'answer') this.#answeredMs.set(sign.address, atMs);
    const before = this.#isolation.phase;
    this.#isolation = heedSign(this.#isolation, { kind: sign.kind, atMs }, this.#rounds);
    const { phase } = this.#isolation;
    if (phase === before) return;
    if (phase === 'isolated') this.#parts.tell('isolated');
    else if (before === 'isolated') this.#parts.tell('rejoined');
    this.#level();
  }

  /** Ports as the phase wants them; between the two phases they stay as they are. */
  #level(): void {
    const { config, groups } = this.#parts;
    const { phase } = this.#isolation;
    if (phase === 'reachable') this.#carryOut(() => this.#closed.open());
    if (config?.policy !== 'close' || phase !== 'isolated') return;
    const ports = groups().filter(({ across, phase }) => across !== undefined && phase !== 'idle').flatMap(localOf).flatMap(({ nics }) => nics.map(({ port }) => port));
    this.#carryOut(() => this.#closed.close(ports));
  }

  /** What fails is said once, and tried again by the next sign or timer. */
  #carryOut(work: () => void): void {
    try {
      work();
      this.#failed = '';
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      if (why !== this.#failed) this.#parts.log.error({ err: error }, 'members\' ports could not be closed or opened');
      this.#failed = why;
    }
  }
}
