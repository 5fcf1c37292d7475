/** What a watcher sees of groups across hosts: the hosts of a group, the peers of this one, its own way to them. */
import type { HostProgress } from '../core/types.ts';

/** Of a group across hosts: how far a host is, and whether it is there. */
export interface HostFigures extends HostProgress {
  readonly behind: number;
  readonly alive: boolean;
}
export interface AddressView {
  readonly address: string;
  /** Absent: it has never answered. */
  readonly answeredMsAgo?: number;
}
export interface IsolationView {
  readonly phase: 'unknown' | 'reachable' | 'suspect' | 'isolated';
  readonly forMs: number;
  readonly policy: 'hold' | 'close';
  readonly addresses: AddressView[];
  /** Members' ports that are down because of it. */
  readonly closedPorts: string[];
}
export interface PeerView {
  readonly host: string;
  readonly phase: 'there' | 'late' | 'lost' | 'unknown';
  /** Since its last heartbeat; absent: its lease does not live. */
  readonly silentMs?: number;
}
/** What this host knows of the others, and of its own way to them. */
export interface AcrossView {
  readonly ledger: { readonly ok: boolean; readonly ackTransactions: number; readonly acks: number; readonly failures: number; /** Of etcd's file. */ readonly storeBytes?: number };
  readonly peers: PeerView[];
  readonly isolation?: IsolationView;
}
