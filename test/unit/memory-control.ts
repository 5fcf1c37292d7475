/**
 * The API's view of the daemon in memory: the real core machine, without kernel and journal. Held
 * frames and counters are what the test puts there.
 */
import type { Answer, ApiControl, ApiDeps, ApiLog } from '../../proxy/api/deps.ts';
import { Access } from '../../proxy/api/access.ts';
import { Audit } from '../../proxy/api/audit.ts';
import type { AuditEntry } from '../../proxy/api/audit.ts';
import { EventHub, eventOf } from '../../proxy/api/events.ts';
import { Metrics } from '../../proxy/api/metrics.ts';
import { parseCredentials } from '../../proxy/credentials.ts';
import { step } from '../../proxy/core/step.ts';
import { colour } from '../../proxy/core/types.ts';
import type { Command, Effect, GroupState } from '../../proxy/core/types.ts';
import type { EdgeError, HeldEpoch, HeldFrame, HoldCounters, NicPlace } from '../../proxy/ports.ts';

export class MemoryControl implements ApiControl {
  readonly groups = new Map<string, GroupState>();
  readonly events: EventHub;
  readonly counts = new Map<string, HoldCounters>();
  heldEpochs: HeldEpoch[] = [];
  heldFrames: HeldFrame[] = [];
  places: NicPlace[] = [];
  /** When set, the next commands fail with it, as a full disk would make them. */
  failure: EdgeError | undefined;

  constructor(events: EventHub) {
    this.events = events;
  }
  submit(group: string, command: Command): Promise<Answer> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const { state, effects, reply } = step(this.groups.get(group), command);
    this.#take(group, state, effects);
    return Promise.resolve({ reply, state });
  }
  /** The data plane says that everything committed has left. */
  released(group: string): void {
    const before = this.groups.get(group);
    if (before === undefined) return;
    const { state, effects } = step(before, { kind: 'released', colour: colour(before.colourBase + before.committed) });
    this.#take(group, state, effects);
  }
  /** The data plane says that nothing of an ended protection is held any more. */
  drained(group: string): void {
    const { state, effects } = step(this.groups.get(group), { kind: 'drained' });
    this.#take(group, state, effects);
  }
  get(group: string): GroupState | undefined {
    return this.groups.get(group);
  }
  /** Its groups are of one host. */
  hosts(): undefined {
    return undefined;
  }
  list(): readonly GroupState[] {
    return [...this.groups.values()];
  }
  counters(group: string): HoldCounters | undefined {
    return this.counts.get(group);
  }
  nics(): readonly NicPlace[] {
    return this.places;
  }
  held(): Promise<readonly HeldEpoch[]> {
    return Promise.resolve(this.heldEpochs);
  }
  async *dump(): AsyncGenerator<readonly HeldFrame[], void, undefined> {
    for (const frame of this.heldFrames) yield await Promise.resolve([frame]);
  }
  #take(group: string, state: GroupState | undefined, effects: readonly Effect[]): void {
    if (state === undefined) this.groups.delete(group);
    else this.groups.set(group, state);
    for (const effect of effects) {
      if (effect.kind === 'emit') this.events.publish(eventOf(effect.event, state?.generation ?? 0, group, 0));
    }
  }
}

export interface World {
  readonly control: MemoryControl;
  readonly deps: ApiDeps;
  missing: string[];
  readonly audited: AuditEntry[];
}

/** As the unix socket is: whoever reaches it may do everything. */
export const OPEN = { access: Access.open(() => 'the test') };
/** Behind these lines of a tokens file. */
export const guarded = (...lines: readonly string[]): { readonly access: Access } => ({ access: Access.guarded(parseCredentials('tokens', lines.join('\n'))) });

const quiet: ApiLog = { debug: () => undefined, info: () => undefined, error: () => undefined };

export function world(log: ApiLog = quiet): World {
  const events = new EventHub('life1', 100);
  const control = new MemoryControl(events);
  const metrics = new Metrics({
    groups: () => control.list().map((state) => ({ state, counters: control.counters(state.spec.group) })),
    ports: () => [],
    eventClients: () => events.subscribers,
    planeLost: () => ({ starved: 3, tooLong: 0 }),
  });
  const made: World = { control, missing: [], audited: [], deps: { control, events, health: { missing: () => made.missing }, metrics, log, audit: new Audit((entry) => made.audited.push(entry)), version: '0.1.0', host: 'h1' } };
  return made;
}

export const ZERO_COUNTERS: HoldCounters = {
  heldFrames: 0, heldBytes: 0, oldestMs: 0, occupancy: 0, arrived: 0, arrivedBytes: 0, releasedFrames: 0, releasedBytes: 0, discardedFrames: 0,
  overflowFrames: 0, refusedFrames: 0, earlyFrames: 0, lateRecorded: 0, redelivered: 0, holdHistogram: [], holdSumMs: 0, wireHistogram: [], wireSumMs: 0,
};
