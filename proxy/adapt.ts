/**
 * Between the parts that don't know each other: control and hold plane as the API sees them, what
 * they report as events and log lines. No decision is made here.
 */
import type { Logger } from 'pino';
import type { AcrossView, HostFigures, PeerView } from './api/across.ts';
import type { ApiControl } from './api/deps.ts';
import { eventOf } from './api/events.ts';
import type { EventHub } from './api/events.ts';
import type { ApiEvent, EventType } from './api/contract.ts';
import type { Control, ControlEvent } from './control/control.ts';
import type { GateEvent } from '../classifier/attach.ts';
import type { DeviceStats } from '../classifier/stats.ts';
import type { PortStats } from './api/metrics.ts';
import { peerOf } from './core/isolation.ts';
import { hostsOf } from './core/hosts.ts';
import type { EtcdLedger } from './edge/etcd-ledger.ts';
import type { HoldCounters, HoldPlane } from './ports.ts';

/** Wall clock with the fraction of a millisecond: captures are compared with it. */
export const nowMs = (): number => performance.timeOrigin + performance.now();

export function apiControl(control: Control, plane: HoldPlane, ledger: EtcdLedger | undefined): ApiControl {
  const idOf = (group: string): number | undefined => control.attached(group)?.id;
  const counters = (group: string): HoldCounters | undefined => {
    const id = idOf(group);
    return id === undefined ? undefined : plane.counters(id);
  };
  return {
    submit: (group, command) => control.submit(group, command),
    get: (group) => control.get(group),
    list: () => control.list(),
    hosts: (group) => hostFigures(control, group, ledger),
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

function hostFigures(control: Control, group: string, ledger: EtcdLedger | undefined): readonly HostFigures[] | undefined {
  const hosts = control.progress(group);
  const most = Math.max(0, ...(hosts ?? []).map(({ acked }) => acked));
  return hosts?.map((one) => ({ ...one, behind: most - one.acked, alive: ledger?.hosts.has(one.host) === true }));
}

/** A peer whose heartbeat is this late is said to be; they come twice a second. */
const PEER_LATE_MS = 1500;

/** The other hosts of this daemon's groups, and those that are in the ledger. */
export function peersOf(control: Control, ledger: EtcdLedger): PeerView[] {
  const nowMs = performance.now();
  const selfHeardMs = ledger.hosts.get(ledger.self) ?? Number.NEGATIVE_INFINITY;
  const named = control.list().flatMap(({ spec, across }) => (across === undefined ? [] : hostsOf(spec)));
  return [...new Set([...named, ...ledger.hosts.keys()])].filter((host) => host !== ledger.self).sort().map((host) => {
    const heardMs = ledger.hosts.get(host);
    const phase = peerOf({ heardMs: heardMs ?? 0, selfHeardMs, isAlive: heardMs !== undefined }, nowMs, PEER_LATE_MS);
    return { host, phase, ...(heardMs === undefined ? {} : { silentMs: Math.round(nowMs - heardMs) }) };
  });
}

export const acrossView = (control: Control, ledger: EtcdLedger): Omit<AcrossView, 'isolation'> => ({
  ledger: { ok: ledger.ok, ackTransactions: ledger.counts.ackTxns, acks: ledger.counts.acks, failures: ledger.counts.failures, ...(ledger.storeBytes === undefined ? {} : { storeBytes: ledger.storeBytes }) },
  peers: peersOf(control, ledger),
});

/** Tells what changes with a peer. What is so when it is first seen is told only where it is bad. */
export function relayPeers(peers: () => readonly PeerView[], hub: EventHub, log: Logger): () => void {
  const known = new Map<string, PeerView['phase']>();
  return () => {
    const now = peers();
    const gone = [...known.keys()].filter((host) => !now.some((peer) => peer.host === host)); // of no group here, and its lease has run out
    for (const { host, phase } of [...now, ...gone.map((host) => ({ host, phase: 'lost' as const }))]) {
      const before = known.get(host);
      if (phase === before || phase === 'unknown') continue;
      known.set(host, phase);
      if (phase === 'there' && before === undefined) continue;
      publish(hub, log, { type: phase === 'there' ? 'peer-back' : `peer-${phase}`, atMs: nowMs(), host });
    }
  };
}

async function* none(): AsyncGenerator<never, void, undefined> {
  // nothing is held
}

/** Rare and worth a line; the others happen every epoch. */
const NOTABLE: ReadonlySet<EventType> = new Set<EventType>([
  'protected', 'unprotected', 'rolled-back', 'taken-over', 'joined', 'left', 'discarded', 'port-back', 'hold-back', 'fenced', 'rejoined', 'peer-late', 'peer-back',
]);
const ALARMING: ReadonlySet<EventType> = new Set<EventType>(['high-water', 'overflow', 'port-lost', 'hold-lost', 'leak-blocked', 'unvetted', 'refused', 'isolated', 'peer-lost']);

export function publish(hub: EventHub, log: Logger, event: ApiEvent): void {
  hub.publish(event);
  const level = ALARMING.has(event.type) ? 'warn' : NOTABLE.has(event.type) ? 'info' : 'debug';
  if (!log.isLevelEnabled(level)) return; // several an epoch
  const { type, ...fields } = event;
  log[level](fields, type);
}

/**
 * Control's events, and after a rollback or takeover how many frames it discarded: the hold plane
 * only counts, so the difference to the last one is taken here.
 */
export function relay(control: Control, counters: (group: string) => HoldCounters | undefined, hub: EventHub, log: Logger): () => void {
  const discarded = new Map<string, number>();
  return control.onEvent(({ group, generation, event }: ControlEvent) => {
    const atMs = nowMs();
    if (event.type === 'output-pending' || event.type === 'high-water' || event.type === 'overflow') {
      publish(hub, log, { atMs, group, generation, ...event });
      return;
    }
    publish(hub, log, eventOf(event, generation, group, atMs));
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
      case 'lanes-lost':
        log.warn(groupOf(control, event.id), 'the devices of its lanes are gone, and what waited in them: the ring holds, and lanes are made again when they are wanted');
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
