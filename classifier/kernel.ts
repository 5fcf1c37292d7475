/**
 * What the gate asks of the kernel and of its callers. proxy/edge has the real kernel (main hands
 * it over); the views are what the gate reads of proxy's types, so that neither side imports the
 * other.
 */
import type { CellMemory } from './cells.ts';
import type { AttachedHook, Hook, Port, TableName } from './plan.ts';

/** The kernel as the gate sees it; proxy/edge has the real one. */
export interface Kernel {
  readonly cells: CellMemory;
  ports(): readonly Port[];
  watch(listener: () => void): { close(): void };
  ensureHoldPair(id: number): HoldPair;
  deleteHoldPair(id: number): void;
  /** The pair by which the frames of all groups without a ring of their own come, made or taken over; undefined = this kernel has none. */
  ensurePool(): PoolPair | undefined;
  deletePool(): void;
  /** Name of its end with the ring. */
  readonly poolDevice: string;
  /** Devices of the group's lanes, made or taken over. Throws where it can't be as it must. */
  ensureLanePair(id: number): LanePair;
  deleteLanePair(id: number): void;
  /** Name of the VXLAN device that groups by VXLAN share. */
  readonly tunnelDevice: string;
  /** Makes it, or takes over the one that was left; its ifindex. Throws where it can't be as it must. */
  ensureTunnel(): number;
  deleteTunnel(): void;
  /** Ours that are in place, at these devices and wherever else they are known to be. */
  hooks(ifindexes: readonly number[]): Iterable<AttachedHook>;
  hook(hook: Hook): void;
  unhook(hook: Hook): void;
  entries(table: TableName): readonly { readonly key: Uint8Array; readonly value: number }[];
  put(table: TableName, key: Uint8Array, value: number): void;
  remove(table: TableName, key: Uint8Array): void;
  counted(): readonly number[];
  count(ifindex: number): void;
  uncount(ifindex: number): void;
  /** One `struct sluice_stats` a CPU, one after the other; empty where there is none. */
  counters(ifindex: number): Uint8Array;
  /** False where the operator has a static entry there. */
  forward(ifindex: number, mac: string): boolean;
  unforward(ifindex: number, mac: string): void;
  /** Resolves when every frame that was on its way through the kernel has left. */
  passed(): Promise<void>;
  /** Maps and programs outlive the process from here on, or no longer. */
  pin(): void;
  unpin(): void;
  close(): void;
}
export interface HoldPair {
  readonly holdDevice: string;
  readonly ringDevice: string;
  readonly holdIfindex: number;
  readonly ringIfindex: number;
}
export interface PoolPair {
  /** Nothing goes in here but what `enter` lets: it is the pool's as slh<g> is the group's. */
  readonly poolHoldIfindex: number;
  readonly poolIfindex: number;
}
export interface LanePair {
  /** 0: it has none. */
  readonly laneIfindex: number;
  readonly exitIfindex: number;
}

/** What the gate reads of a group's spec and of its members. */
export interface SpecView {
  readonly group: string;
  readonly members: readonly {
    readonly name: string;
    /** Where it lives; absent in a group of one host. */
    readonly host?: string;
    readonly nics: readonly { readonly port: string; readonly mac: string; readonly vlan: number }[];
  }[];
  readonly foreignSource: 'hold' | 'drop';
  readonly intraPath: 'redirect' | 'bridge';
}
/** A group across hosts: whose members are ours, and how its frames between hosts are named. */
export interface WireView {
  /** Members with another `host` are remote; their ports mean nothing here. */
  readonly self: string;
  /** 0 = by VXLAN. */
  readonly vlan: number;
  readonly vxlan?: { readonly vni: number; /** IPv4 address of each host. */ readonly hosts: Readonly<Record<string, string>> };
  readonly generation: number;
  /** Colour of epoch 0. */
  readonly base: number;
  readonly closed: boolean;
}
export interface MemberView {
  readonly name: string;
  readonly colour: number;
  readonly ready: boolean;
}
export interface Attached {
  readonly id: number;
  readonly holdDevice: string;
  readonly ringDevice: string;
  /** Where the ring is that its frames are taken from; absent = at ringDevice. */
  readonly poolDevice?: string;
  readonly nics: readonly { readonly nic: number; readonly member: string; readonly port: string; readonly ifindex: number }[];
}

export type GateEvent =
  | { readonly kind: 'port-lost' | 'port-back'; readonly id: number; readonly member: string; readonly port: string }
  | { readonly kind: 'leak-blocked' | 'unvetted' | 'refused'; readonly device: string; readonly frames: number }
  /**
   * The group's hold pair is gone: what was in it is lost, and so is what comes until it is back.
   * Back it is a new device of the same name: a ring on the old one must be opened again.
   */
  | { readonly kind: 'hold-lost' | 'hold-back'; readonly id: number }
  /** Devices of its lanes are gone, and what was in them; held frames wait in the ring alone. */
  | { readonly kind: 'lanes-lost'; readonly id: number }
  | { readonly kind: 'trouble'; readonly message: string };

/** Makes the error that the caller's side understands; `fix` is one sentence, what to do. */
export type Fail = (code: 'bad_request' | 'port_claimed' | 'plane_down', message: string, fix: string, cause?: unknown) => Error;
