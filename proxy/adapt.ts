/**
 * Between the parts that don't know each other: control and hold plane as the API sees them, what
 * they report as events and log lines. No decision is made here.
 */
import type { Logger } from 'pino';
import type { ApiControl } from './api/deps.ts';
import { eventOf } from './api/events.ts';
import type { EventHub } from './api/events.ts';
import type { ApiEvent, EventType } from './api/contract.ts';
import type { Control, ControlEvent } from './control/control.ts';
import type { GateEvent } from '../classifier/attach.ts';
import type { DeviceStats } from '../classifier/stats.ts';
import type { PortStats } from './api/metrics.ts';
import type { HoldCounters, HoldPlane } from './ports.ts';

/** Wall clock with the fraction of a millisecond: captures are compared with it. */
export const nowMs = (): number => performance.timeOrigin + performance.now();

export function apiControl(control: Control, plane: HoldPlane): ApiControl {
  const idOf = (group: string): number | undefined => control.attached(group)?.id;
  const counters = (group: string): HoldCounters | undefined => {
    const id = idOf(group);
    return id === undefined ? undefined : plane.counters(id);
  };
  return {
    submit: (group, command) => control.submit(group, command),
    get: (group) => control.get(group),
    list: () => control.list(),
    hosts: (group) => control.progress(group),
    counters,
    nics: (group) => control.attached(group)?.nics ?? [],
    held: async (group) => {
      const id = idOf(group);
      return id === undefined ? [] : plane.held(id);
    },
    dump: (group, bytesMax) => {
      const id = idOf(group);
      return id === undefined ? none() : plane.dump(id, bytesMax);
    },
  };
}

async function* none(): AsyncGenerator<never, void, undefined> {
  // nothing is held
}

/** Rare and worth a line; the others happen every epoch. */
const NOTABLE: ReadonlySet<EventType> = new Set<EventType>([
  'protected', 'unprotected', 'rolled-back', 'taken-over', 'joined', 'left', 'discarded', 'port-back', 'hold-back',
]);
const ALARMING: ReadonlySet<EventType> = new Set<EventType>(['high-water', 'overflow', 'port-lost', 'hold-lost', 'leak-blocked', 'unvetted', 'refused']);

export function publish(hub: EventHub, log: Logger, event: ApiEvent): void {
  hub.publish(event);
  const { type, atMs, ...fields } = event;
  if (ALARMING.has(type)) log.warn({ ...fields, atMs }, type);
  else if (NOTABLE.has(type)) log.info({ ...fields, atMs }, type);
  else log.debug({ ...fields, atMs }, type);
}

/**
 * Control's events, and after a rollback or takeover how many frames it discarded: the hold plane
 * only counts, so the difference to the last one is taken here.
 */
export function relay(control: Control, counters: (group: string) => HoldCounters | undefined, hub: EventHub, log: Logger): () => void {
  const discarded = new Map<string, number>();
  return control.onEvent(({ group, generation, event }: ControlEvent) => {
    const atMs = nowMs();
    const state = control.get(group);
    if (event.type === 'output-pending' || event.type === 'high-water' || event.type === 'overflow') {
      publish(hub, log, { atMs, group, generation, ...event });
      return;
    }
    publish(hub, log, { ...eventOf(event, state, group, atMs), generation });
    if (event.type === 'protected' || event.type === 'unprotected') discarded.delete(group);
    if (event.type !== 'rolled-back' && event.type !== 'taken-over') return;
    const total = counters(group)?.discardedFrames ?? 0;
    const frames = Math.max(0, total - (discarded.get(group) ?? 0));
    discarded.set(group, total);
    publish(hub, log, { type: 'discarded', atMs, group, generation, epoch: event.epoch, frames });
  });
}

function groupOf(control: Control, id: number): { group?: string; generation?: number } {
  const state = control.list().find(({ spec }) => control.idOf(spec.group) === id);
  return state === undefined ? {} : { group: state.spec.group, generation: state.generation };
}

/** The gate's own reports. A device that is no member's port is shown under its name, of no group. */
export function relayGate(control: Control, hub: EventHub, log: Logger): (event: GateEvent) => void {
  return (event) => {
    const atMs = nowMs();
    switch (event.kind) {
      case 'trouble':
        log.error({}, event.message);
        return;
      case 'hold-lost':
      case 'hold-back':
        if (event.kind === 'hold-lost') control.holdLost(event.id); // attaching again waits for the new pair
        publish(hub, log, { type: event.kind, atMs, ...groupOf(control, event.id) });
        return;
      case 'port-lost':
      case 'port-back':
        publish(hub, log, { type: event.kind, atMs, ...groupOf(control, event.id), member: event.member, port: event.port });
        return;
      case 'leak-blocked':
      case 'unvetted':
      case 'refused':
        publish(hub, log, { type: event.kind, atMs, port: event.device, frames: event.frames });
    }
  };
}

/** The kernel's counters under the names that /metrics shows. */
export function portStats(control: Control, devices: readonly DeviceStats[]): PortStats[] {
  const owner = new Map(control.list().flatMap(({ spec }) => spec.members.flatMap(({ nics }) => nics.map(({ port }) => [port, spec.group] as const))));
  return devices.map(({ device, in: came, verdicts, counts }) => ({ port: device, group: owner.get(device) ?? '', in: came, verdict: verdicts, ...counts }));
}
