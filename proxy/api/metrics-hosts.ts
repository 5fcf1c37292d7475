/** Metrics of groups across hosts: how far each host is, who is heard, whether this one is cut off. */
import { Counter, Gauge } from '../doors/metrics.ts';
import type { Registry } from 'prom-client';
import type { AcrossView, HostFigures } from './across.ts';

interface HostsSource {
  groups(): readonly { readonly state: { readonly spec: { readonly group: string } }; readonly hosts?: readonly HostFigures[] }[];
  readonly across?: () => AcrossView;
}
type Row<T> = readonly [name: string, help: string, pick: (from: T) => number];

const PER_HOST: readonly Row<HostFigures>[] = [
  ['sluice_host_acked_epoch', 'Last epoch that a host of the group has acked, as this daemon last heard', (h) => h.acked],
  ['sluice_host_behind_epochs', 'Epochs that some host of the group has acked and this one has not', (h) => h.behind],
  ['sluice_host_late', '1 while the group waits for this host', (h) => Number(h.late)],
];
const LEDGER: readonly Row<AcrossView['ledger']>[] = [
  ['sluice_ledger_ack_transactions_total', 'Transactions by which acks were written; the acks of several groups share one', (l) => l.ackTransactions],
  ['sluice_ledger_acks_total', 'Acks written', (l) => l.acks],
  ['sluice_ledger_failures_total', 'Calls of the ledger that failed or were late', (l) => l.failures],
];

export function addHosts(source: HostsSource, registers: Registry[]): void {
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[], rows: (across: AcrossView) => readonly (readonly [Record<L, string>, number])[]): void => {
    new Gauge({ name, help, labelNames, registers, collect() {
      this.reset();
      const across = source.across?.();
      for (const [labels, value] of across === undefined ? [] : rows(across)) this.set(labels, value);
    } });
  };
  for (const [name, help, pick] of PER_HOST) {
    new Gauge({ name, help, labelNames: ['group', 'host'], registers, collect() {
      this.reset();
      for (const { state, hosts } of source.groups()) for (const host of hosts ?? []) this.set({ group: state.spec.group, host: host.host }, pick(host));
    } });
  }
  for (const [name, help, pick] of LEDGER) {
    new Counter({ name, help, registers, collect() {
      this.reset();
      this.inc(source.across === undefined ? 0 : pick(source.across().ledger));
    } });
  }
  gauge('sluice_ledger_up', '1 while the ledger answers', ['ledger'], ({ ledger }) => [[{ ledger: 'etcd' }, Number(ledger.ok)]]);
  gauge('sluice_ledger_store_bytes', 'Size of etcd\'s file: it keeps every ack until it is compacted, and takes none when it is full', ['ledger'], ({ ledger: { storeBytes } }) => (storeBytes === undefined ? [] : [[{ ledger: 'etcd' }, storeBytes]]));
  gauge('sluice_peer_up', '1 while another host\'s lease in the ledger lives', ['host'], ({ peers }) => peers.map(({ host, silentMs }) => [{ host }, Number(silentMs !== undefined)]));
  gauge('sluice_peer_silent_seconds', 'Since another host\'s last heartbeat in the ledger: the age of its lease', ['host'], ({ peers }) => peers.flatMap(({ host, silentMs }) => (silentMs === undefined ? [] : [[{ host }, silentMs / 1000] as const])));
  gauge('sluice_isolated', '1 while no isolation address answers this host', ['policy'], ({ isolation }) => (isolation === undefined ? [] : [[{ policy: isolation.policy }, Number(isolation.phase === 'isolated')]]));
  gauge('sluice_isolation_answer_age_seconds', 'Since an isolation address last answered', ['address'], ({ isolation }) => (isolation?.addresses ?? []).flatMap(({ address, answeredMsAgo }) => (answeredMsAgo === undefined ? [] : [[{ address }, answeredMsAgo / 1000] as const])));
  gauge('sluice_isolation_closed_ports', 'Members\' ports that are down because this host is isolated', ['policy'], ({ isolation }) => (isolation === undefined ? [] : [[{ policy: isolation.policy }, isolation.closedPorts.length]]));
}
