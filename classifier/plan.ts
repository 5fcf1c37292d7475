/**
 * From what is in place and what shall be, the steps between, in an order in which nothing leaks
 * and nothing is dropped without need. Pure: `want` draws the picture, `plan` compares two.
 *
 *   add      counters ─► macs, guarded ─► hold pair's programs ─► devices of bridges that are new
 *            ─► bridge programs, guards ─► forwarding ─► ports ─► classify ─► (wait) ─► other devices
 *   remove   classify ─► guards, bridge programs ─► forwarding ─► entries ─► hold pair's programs
 *
 * - A bridge that is guarded for the first time has its ports vetted before the guards, so that
 *   its traffic goes on. A port that appears on a guarded bridge is vetted last: until it is
 *   classified (if it is a member's) the other ports' guards let nothing of it through (D6).
 * - `wait`: frames that came in before their port was classified have left when it is over.
 * - What is wanted twice is done once; carrying out a plan and planning again gives an empty plan.
 *
 * A hook (device, side) has one program of ours. `fresh` false means that a program of an earlier
 * daemon is there: it is replaced in place, never removed first.
 */
import type { MapName, Program } from './abi.ts';

export type Side = 'ingress' | 'egress';
export interface Hook {
  readonly ifindex: number;
  readonly side: Side;
  readonly program: Program;
}
export interface AttachedHook extends Hook {
  readonly fresh: boolean;
}
/** Entries of a map as text: `ifindex`, or `bridge vlan mac`; the value is a number. */
export type Entries = ReadonlyMap<string, number>;
export type TableName = Extract<MapName, 'ports' | 'macs' | 'guarded' | 'devices'>;
export const TABLES: readonly TableName[] = ['ports', 'macs', 'guarded', 'devices'];

export interface Picture {
  readonly hooks: readonly AttachedHook[];
  readonly tables: Readonly<Record<TableName, Entries>>;
  /** Devices that have counters. */
  readonly counted: ReadonlySet<number>;
  /** `ifindex mac`: static forwarding entries that are ours. */
  readonly forwarding: ReadonlySet<string>;
}

export type Action =
  | { readonly do: 'count'; readonly ifindex: number }
  | { readonly do: 'uncount'; readonly ifindex: number }
  | { readonly do: 'put'; readonly table: TableName; readonly key: string; readonly value: number }
  | { readonly do: 'remove'; readonly table: TableName; readonly key: string }
  | { readonly do: 'hook'; readonly hook: Hook }
  | { readonly do: 'unhook'; readonly hook: Hook }
  | { readonly do: 'forward'; readonly entry: string }
  | { readonly do: 'unforward'; readonly entry: string }
  | { readonly do: 'wait' };

// ----------------------------------------------------------------------------------------- want

/** A device as netlink shows it. */
export interface Port {
  readonly ifindex: number;
  readonly name: string;
  readonly master: number;
  readonly kind: string;
  readonly up: boolean;
}
export interface WantedNic {
  readonly nic: number;
  readonly port: string;
  readonly mac: string;
  readonly vlan: number;
  /** Bridge it was last in, 0 = none yet: guarded on, so that it can't come back unseen (D6). */
  readonly lastBridge: number;
}
export interface WantedGroup {
  readonly holdIfindex: number;
  readonly ringIfindex: number;
  readonly nics: readonly WantedNic[];
}
export interface Placed extends WantedNic {
  readonly ifindex: number;
  readonly bridge: number;
}
export interface Want {
  readonly picture: Picture;
  /** Nics whose port is there and in a bridge. */
  readonly placed: readonly Placed[];
  readonly missing: readonly WantedNic[];
}

export const macKey = (bridge: number, vlan: number, mac: string): string => `${bridge} ${vlan} ${mac}`;
export const guardKey = (bridge: number, mac: string): string => macKey(bridge, 0, mac);

/** What shall be in place for these groups, as the devices are now. */
export function want(groups: readonly WantedGroup[], ports: readonly Port[]): Want {
  const byName = new Map(ports.map((port) => [port.name, port]));
  const isBridge = new Set(ports.filter((port) => port.kind === 'bridge').map((port) => port.ifindex));
  const placed: Placed[] = [];
  const missing: WantedNic[] = [];
  for (const nic of groups.flatMap((group) => group.nics)) {
    const port = byName.get(nic.port);
    if (port === undefined || !isBridge.has(port.master)) missing.push(nic);
    else placed.push({ ...nic, ifindex: port.ifindex, bridge: port.master });
  }
  const awaited = missing.filter((nic) => isBridge.has(nic.lastBridge));
  return { picture: pictureOf(groups, placed, awaited, ports), placed, missing };
}

function pictureOf(groups: readonly WantedGroup[], placed: readonly Placed[], awaited: readonly WantedNic[], ports: readonly Port[]): Picture {
  const bridges = new Set([...placed.map((nic) => nic.bridge), ...awaited.map((nic) => nic.lastBridge)]);
  const members = ports.filter((port) => bridges.has(port.master));
  const hook = (ifindex: number, side: Side, program: Program): AttachedHook => ({ ifindex, side, program, fresh: true });
  const hooks = [
    ...groups.flatMap(({ holdIfindex, ringIfindex }) =>
      [hook(ringIfindex, 'ingress', 'sink'), hook(holdIfindex, 'egress', 'enter'), hook(holdIfindex, 'ingress', 'release')]),
    ...[...bridges].flatMap((bridge) => [hook(bridge, 'egress', 'local'), hook(bridge, 'ingress', 'guard_self')]),
    ...members.map((port) => hook(port.ifindex, 'egress', 'guard')),
    ...placed.map((nic) => hook(nic.ifindex, 'ingress', 'classify')),
  ];
  return {
    hooks,
    tables: {
      ports: new Map(placed.map((nic) => [String(nic.ifindex), nic.nic])),
      macs: new Map(placed.map((nic) => [macKey(nic.bridge, nic.vlan, nic.mac), nic.nic])),
      guarded: new Map([...placed.map((nic): [string, number] => [guardKey(nic.bridge, nic.mac), nic.nic]),
        ...awaited.map((nic): [string, number] => [guardKey(nic.lastBridge, nic.mac), nic.nic])]),
      devices: new Map([...members.map((port): [string, number] => [String(port.ifindex), port.master]),
        ...[...bridges].map((bridge): [string, number] => [String(bridge), bridge])]),
    },
    counted: new Set(hooks.map(({ ifindex }) => ifindex)),
    forwarding: new Set(placed.map((nic) => `${nic.ifindex} ${nic.mac}`)),
  };
}

// ----------------------------------------------------------------------------------------- plan

export const emptyPicture = (): Picture => ({
  hooks: [],
  tables: { ports: new Map(), macs: new Map(), guarded: new Map(), devices: new Map() },
  counted: new Set(),
  forwarding: new Set(),
});

const hookKey = (hook: Hook): string => `${hook.ifindex} ${hook.side} ${hook.program}`;
const HOLD: readonly Program[] = ['sink', 'enter', 'release'];
const GUARDS: readonly Program[] = ['local', 'guard', 'guard_self'];

export function plan(attached: Picture, wanted: Picture): Action[] {
  return [...additions(attached, wanted), ...removals(attached, wanted)];
}

/** Only what is missing: nothing that is in place goes. */
export function additions(attached: Picture, wanted: Picture): Action[] {
  const there = new Set(attached.hooks.filter((hook) => hook.fresh).map(hookKey));
  const hooks = (programs: readonly Program[]): Action[] =>
    wanted.hooks.filter((hook) => programs.includes(hook.program) && !there.has(hookKey(hook)))
      .map(({ ifindex, side, program }) => ({ do: 'hook', hook: { ifindex, side, program } }));
  const puts = (table: TableName): Action[] =>
    [...wanted.tables[table]].filter(([key, value]) => attached.tables[table].get(key) !== value)
      .map(([key, value]) => ({ do: 'put', table, key, value }));
  const guardedBridges = new Set(attached.tables.devices.values());
  const isNewBridge = (action: Action): boolean => action.do === 'put' && !guardedBridges.has(action.value);
  const devices = puts('devices');
  const late = devices.filter((action) => !isNewBridge(action));
  const classify = hooks(['classify']);
  return [
    ...[...wanted.counted].filter((ifindex) => !attached.counted.has(ifindex)).map((ifindex): Action => ({ do: 'count', ifindex })),
    ...puts('macs'), ...puts('guarded'),
    ...hooks(HOLD),
    ...devices.filter(isNewBridge),
    ...hooks(GUARDS),
    ...[...wanted.forwarding].filter((entry) => !attached.forwarding.has(entry)).map((entry): Action => ({ do: 'forward', entry })),
    ...puts('ports'),
    ...classify,
    ...(late.length > 0 && classify.length > 0 ? [{ do: 'wait' } as const] : []),
    ...late,
  ];
}

export function removals(attached: Picture, wanted: Picture): Action[] {
  const kept = new Set(wanted.hooks.map(hookKey));
  const hooks = (programs: readonly Program[]): Action[] =>
    attached.hooks.filter((hook) => programs.includes(hook.program) && !kept.has(hookKey(hook)))
      .map(({ ifindex, side, program }) => ({ do: 'unhook', hook: { ifindex, side, program } }));
  const removes = (table: TableName): Action[] =>
    [...attached.tables[table].keys()].filter((key) => !wanted.tables[table].has(key)).map((key) => ({ do: 'remove', table, key }));
  const guarded = new Set(wanted.tables.devices.values());
  const devices = removes('devices');
  const stays = (action: Action): boolean => action.do === 'remove' && guarded.has(attached.tables.devices.get(action.key) ?? 0);
  return [
    ...devices.filter(stays),
    ...hooks(['classify']),
    ...hooks(GUARDS),
    ...[...attached.forwarding].filter((entry) => !wanted.forwarding.has(entry)).map((entry): Action => ({ do: 'unforward', entry })),
    ...removes('ports'), ...removes('macs'), ...removes('guarded'), ...devices.filter((action) => !stays(action)),
    ...hooks(HOLD),
    ...[...attached.counted].filter((ifindex) => !wanted.counted.has(ifindex)).map((ifindex): Action => ({ do: 'uncount', ifindex })),
  ];
}
