/**
 * What the API asks of the daemon. `main` adapts the real parts to these; tests give their own.
 * Everything here answers at once or by promise; nothing here may block the event loop.
 */
import type { Command, GroupState, Reply } from '../core/types.ts';
import type { HeldEpoch, HeldFrame, HoldCounters, NicPlace } from '../ports.ts';
import type { AcrossView, HostFigures } from './across.ts';
import type { Audit } from './audit.ts';
import type { EventHub } from './events.ts';
import type { Metrics } from './metrics.ts';

export interface Answer {
  readonly reply: Reply;
  /** State after the command; undefined when there is no such group (any more). */
  readonly state: GroupState | undefined;
}

export interface ApiControl {
  /** Throws EdgeError when the journal or the data plane failed; the state is then unchanged. */
  submit(group: string, command: Command): Promise<Answer>;
  get(group: string): GroupState | undefined;
  list(): readonly GroupState[];
  /** Of a group across hosts, as the ledger last said; undefined of any other. */
  hosts(group: string): readonly HostFigures[] | undefined;
  /** undefined while nothing of the group is attached; so with `nics`, `held` and `dump` (empty). */
  counters(group: string): HoldCounters | undefined;
  nics(group: string): readonly NicPlace[];
  held(group: string): Promise<readonly HeldEpoch[]>;
  dump(group: string, bytesMax: number): AsyncIterable<readonly HeldFrame[]>;
}

export interface HealthSource {
  /** What is not in place, one sentence each; empty = ready. */
  missing(): readonly string[];
}

/** The part of pino that the API uses. */
export interface ApiLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ApiDeps {
  readonly control: ApiControl;
  readonly events: EventHub;
  readonly health: HealthSource;
  readonly metrics: Metrics;
  readonly log: ApiLog;
  readonly audit: Audit;
  readonly version: string;
  /** The machine's name, as configured. */
  readonly host: string;
  /** undefined without a ledger that others share. */
  readonly across?: () => AcrossView;
}
