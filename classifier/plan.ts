/**
 * From what is in place and what shall be, the steps between, in an order in which nothing leaks
 * and nothing is dropped without need. Pure: `want` draws the picture, `plan` compares two.
 *
 *   add      macs, peers ─► counters, guarded ─► hold pair's programs ─► devices of bridges that are new
 *            ─► bridge programs, guards ─► forwarding ─► ports ─► classify, arrive ─► (wait) ─► other devices
 *            ─► wires, vnis
 *   remove   wires, vnis ─► classify, arrive ─► guards, bridge programs ─► forwarding ─► entries ─► hold pair's programs
 *
 * - A bridge that is guarded for the first time has its ports vetted before the guards, so that
 *   its traffic goes on. A port that appears on a guarded bridge is vetted last: until it is
 *   classified (if it is a member's) the other ports' guards let nothing of it through (D6). A bridge
 *   made anew around a guarded port is none that is new: there too members are vetted last.
 * - Ports of a bridge that was deleted stay guarded while a nic that was in it is missing: whatever
 *   bridge they enter next is the nic's home, and its port may come back there at any moment.
 * - A port that a takeover has left is fenced: what speaks there is of an old generation (I7).
 * - Every tap of a guarded bridge has `classify`, also one that is nobody's: there it does nothing but
 *   look the device up. A takeover that moves a member to its standby's tap is then a matter of
 *   tables; to attach a program waits for the kernel's readers, 20 ms each.
 * - The uplink is where nics of other hosts are reached. Its `arrive` takes every frame with an outer
 *   802.1ad tag; what no entry of `wires` knows ends there.
 * - Groups by VXLAN share one device, which is in no bridge: `land` takes all that comes there.
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
export type TableName = Extract<MapName, 'ports' | 'macs' | 'guarded' | 'devices' | 'wires' | 'vnis' | 'peers'>;
export const TABLES: readonly TableName[] = ['ports', 'macs', 'guarded', 'devices', 'wires', 'vnis', 'peers'];

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
  /**
   * Bridge it was last in, 0 = none yet: guarded on, so that it can't come back unseen (D6). Where that
   * was deleted, the one that a port of it is in now.
   */
  readonly lastBridge: number;
  /** Device it was last placed at, 0 = none. */
  readonly lastIfindex: number;
  /** Its member lives on another host: it is placed at the uplink, which is nobody's port. */
  readonly remote?: boolean;
  /** IPv4 address of that host, of a group by VXLAN; 0 = it has none. */
  readonly peer?: number;
}
export interface WantedGroup {
  readonly holdIfindex: number;
  readonly ringIfindex: number;
  /** Of its lanes' pair; 0 = it has none. */
  readonly laneIfindex: number;
  readonly exitIfindex: number;
  /** Of the pool's pair; 0 = it has a ring of its own. */
  readonly poolHoldIfindex: number;
  readonly poolIfindex: number;
  readonly nics: readonly WantedNic[];
  /** Of a group across hosts: its outer VLAN id, or its VNI and the VXLAN device, 0 = there is none. */
  readonly wire?: { readonly id: number; readonly vlan: number } | { readonly id: number; readonly vni: number; readonly tunnel: number };
}
export interface Located extends WantedNic {
  /** Its device, in a bridge or not; 0 = there is none. */
  readonly ifindex: number;
  /** What the device is called now; empty without one. */
  readonly device: string;
}
export interface Placed extends Located {
  readonly bridge: number;
}
export interface Want {
  readonly picture: Picture;
  /** Nics whose port is there and in a bridge. */
  readonly placed: readonly Placed[];
  readonly missing: readonly Located[];
}

/**
 * In `devices`, instead of a bridge: a port that a takeover has left. The guards let nothing through
 * that came in there, until it is a member's again, is made anew, or the last group is detached.
 */
export const FENCED = 0;

export const macKey = (bridge: number, vlan: number, mac: string): string => `${bridge} ${vlan} ${mac}`;
export const guardKey = (bridge: number, mac: string): string => macKey(bridge, 0, mac);

/**
 * What shall be in place for these groups, as the devices are now. `heard` and `vetted` are the
 * kernel's `ports` and `devices` tables: a device that is a nic's stays the nic's while it exists,
 * whatever it is called and whatever it is in. A name is only how a nic's device is first found.
 */
export function want(groups: readonly WantedGroup[], ports: readonly Port[], heard: Entries, vetted: Entries = new Map()): Want {
  const bridges = new Set(ports.filter((port) => port.kind === 'bridge').map((port) => port.ifindex));
  const find = finder(groups, ports, heard, bridges, vetted);
  const nics = groups.map((group) => group.nics.map(find));
  const all = nics.flat();
  const homes = nics.flatMap((found) => missingOf(found).flatMap((nic) => homesOf(nic, placedOf(found), bridges)));
  return { picture: pictureOf(groups, all, homes, ports, vetted), placed: placedOf(all), missing: missingOf(all) };
}

interface Found {
  readonly at: Located;
  readonly home: Placed | undefined;
  /** Every device that is the nic's. */
  readonly devices: readonly number[];
}
const placedOf = (found: readonly Found[]): Placed[] => found.flatMap(({ home }) => (home === undefined ? [] : [home]));
const missingOf = (found: readonly Found[]): Located[] => found.flatMap(({ at, home }) => (home === undefined ? [at] : []));

function finder(groups: readonly WantedGroup[], ports: readonly Port[], heard: Entries, bridges: ReadonlySet<number>, vetted: Entries): (nic: WantedNic) => Found {
  const wanted = new Set(groups.flatMap((group) => group.nics.map(({ nic }) => nic)));
  const byName = new Map(ports.map((port) => [port.name, port]));
  const byNic = new Map<number, Port[]>();
  for (const port of ports) {
    const nic = heard.get(String(port.ifindex));
    if (nic !== undefined && wanted.has(nic)) byNic.set(nic, [...(byNic.get(nic) ?? []), port]);
  }
  const isInBridge = (port: Port): boolean => bridges.has(port.master);
  const heirOf = (bridge: number): number => ports.find((port) => vetted.get(String(port.ifindex)) === bridge && isInBridge(port))?.master ?? bridge;
  return (nic) => {
    if (nic.remote === true) return reached(nic, byName.get(nic.port), bridges);
    const own = byNic.get(nic.nic) ?? [];
    const named = byName.get(nic.port);
    const owner = named === undefined ? undefined : heard.get(String(named.ifindex));
    const isFree = named !== undefined && isInBridge(named) && (owner === undefined || !wanted.has(owner));
    const candidates = [...own.filter(({ ifindex }) => ifindex === nic.lastIfindex), ...(isFree ? [named] : []), ...own];
    const port = candidates.find(isInBridge) ?? candidates[0];
    const lastBridge = nic.lastBridge === 0 || bridges.has(nic.lastBridge) ? nic.lastBridge : heirOf(nic.lastBridge);
    const at = { ...nic, lastBridge, ifindex: port?.ifindex ?? 0, device: port?.name ?? '' };
    const home = port !== undefined && isInBridge(port) ? { ...at, bridge: port.master } : undefined;
    return { at, home, devices: [...new Set(candidates.map(({ ifindex }) => ifindex))] };
  };
}

/** A nic of another host, at the uplink. */
function reached(nic: WantedNic, uplink: Port | undefined, bridges: ReadonlySet<number>): Found {
  const at = { ...nic, ifindex: uplink?.ifindex ?? 0, device: uplink?.name ?? '' };
  return { at, home: uplink !== undefined && bridges.has(uplink.master) ? { ...at, bridge: uplink.master } : undefined, devices: [] };
}

interface Home {
  readonly nic: Located;
  readonly bridge: number;
  readonly exists: boolean;
}
/**
 * Bridges on which a missing nic is still known, so that frames for it are lost instead of held and
 * overtaken when it is back (I6): its last one and, where that is gone, those of its group.
 */
function homesOf(nic: Located, group: readonly Placed[], bridges: ReadonlySet<number>): Home[] {
  const last = { nic, bridge: nic.lastBridge, exists: bridges.has(nic.lastBridge) };
  if (nic.lastBridge === 0 || last.exists) return nic.lastBridge === 0 ? [] : [last];
  return [last, ...group.map(({ bridge }) => ({ nic, bridge, exists: true }))];
}

function pictureOf(groups: readonly WantedGroup[], found: readonly Found[], homes: readonly Home[], ports: readonly Port[], vetted: Entries): Picture {
  const placed = placedOf(found);
  const here = placed.filter(({ remote }) => remote !== true);
  const uplinks = new Set(placed.filter(({ remote }) => remote === true).map(({ ifindex }) => ifindex));
  const guarded = homes.filter(({ exists }) => exists);
  const bridges = new Set([...placed, ...guarded].map(({ bridge }) => bridge));
  const members = ports.filter((port) => bridges.has(port.master));
  const heard = new Map(found.flatMap(({ at, devices }) => devices.map((ifindex): [string, number] => [String(ifindex), at.nic])));
  const vettedFor = ({ ifindex }: Port): number => vetted.get(String(ifindex)) ?? NaN;
  const barred = groups.length === 0 ? [] : ports.filter((port) => vettedFor(port) === FENCED && !heard.has(String(port.ifindex)));
  const lost = new Set(homes.filter(({ exists }) => !exists).map(({ bridge }) => bridge));
  const orphans = ports.filter((port) => lost.has(vettedFor(port)) && !bridges.has(port.master) && !heard.has(String(port.ifindex)));
  const wires = groups.flatMap(({ wire }) => wire ?? []);
  const tunnels = new Set(wires.flatMap((wire) => ('tunnel' in wire && wire.tunnel !== 0 ? [wire.tunnel] : [])));
  const hook = (ifindex: number, side: Side, program: Program): AttachedHook => ({ ifindex, side, program, fresh: true });
  const pools = new Map(groups.filter(({ poolIfindex }) => poolIfindex !== 0).map(({ poolIfindex, poolHoldIfindex }) => [poolIfindex, poolHoldIfindex]));
  const hooks = [
    ...[...pools].flatMap(([ring, hold]) => [hook(ring, 'ingress', 'sink'), hook(hold, 'egress', 'enter')]),
    ...groups.filter(({ laneIfindex }) => laneIfindex !== 0)
      .flatMap(({ laneIfindex, exitIfindex }) => [hook(exitIfindex, 'ingress', 'alight'), hook(laneIfindex, 'egress', 'board')]),
    ...groups.flatMap(({ holdIfindex, ringIfindex }) =>
      [hook(ringIfindex, 'ingress', 'sink'), hook(holdIfindex, 'egress', 'enter'), hook(holdIfindex, 'ingress', 'release'), hook(ringIfindex, 'egress', 'express')]),
    ...[...bridges].flatMap((bridge) => [hook(bridge, 'egress', 'local'), hook(bridge, 'ingress', 'guard_self')]),
    ...[...members, ...orphans].map((port) => hook(port.ifindex, 'egress', 'guard')),
    ...[...heard.keys()].map((ifindex) => hook(Number(ifindex), 'ingress', 'classify')),
    ...[...uplinks].map((ifindex) => hook(ifindex, 'ingress', 'arrive')),
    ...[...tunnels].flatMap((ifindex) => [hook(ifindex, 'egress', 'depart'), hook(ifindex, 'ingress', 'land')]),
    ...members.filter(({ ifindex, kind }) => kind === 'tun' && !uplinks.has(ifindex) && !heard.has(String(ifindex))).map(({ ifindex }) => hook(ifindex, 'ingress', 'classify')),
  ];
  // Where a missing nic and one that is there share a key, the one that is there has it.
  return {
    hooks,
    tables: {
      ports: heard,
      macs: new Map([...homes.map(({ nic, bridge }): [string, number] => [macKey(bridge, nic.vlan, nic.mac), nic.nic]),
        ...placed.map((nic): [string, number] => [macKey(nic.bridge, nic.vlan, nic.mac), nic.nic])]),
      guarded: new Map([...guarded.filter(({ nic }) => nic.remote !== true).map(({ nic, bridge }): [string, number] => [guardKey(bridge, nic.mac), nic.nic]),
        ...here.map((nic): [string, number] => [guardKey(nic.bridge, nic.mac), nic.nic])]),
      devices: new Map([...members.map((port): [string, number] => [String(port.ifindex), port.master]),
        ...[...bridges].map((bridge): [string, number] => [String(bridge), bridge]),
        ...orphans.map((port): [string, number] => [String(port.ifindex), vettedFor(port)]),
        ...barred.map(({ ifindex }): [string, number] => [String(ifindex), FENCED])]),
      wires: new Map(wires.flatMap((wire) => ('vlan' in wire ? [[String(wire.vlan), wire.id] as const] : []))),
      vnis: new Map(wires.flatMap((wire) => ('vni' in wire ? [[String(wire.vni), wire.id] as const] : []))),
      peers: new Map(found.flatMap(({ at: { nic, peer = 0 } }) => (peer === 0 ? [] : [[String(nic), peer] as const]))),
    },
    counted: new Set(hooks.map(({ ifindex }) => ifindex)),
    forwarding: new Set(here.map((nic) => `${nic.ifindex} ${nic.mac}`)),
  };
}

// ----------------------------------------------------------------------------------------- plan

export const emptyPicture = (): Picture => ({
  hooks: [],
  tables: { ports: new Map(), macs: new Map(), guarded: new Map(), devices: new Map(), wires: new Map(), vnis: new Map(), peers: new Map() },
  counted: new Set(),
  forwarding: new Set(),
});

const hookKey = (hook: Hook): string => `${hook.ifindex} ${hook.side} ${hook.program}`;
const HOLD: readonly Program[] = ['sink', 'alight', 'board', 'enter', 'release', 'express'];
const GUARDS: readonly Program[] = ['local', 'guard', 'guard_self', 'depart', 'land'];

export function plan(attached: Picture, wanted: Picture): Action[] {
  return [...additions(attached, wanted), ...removals(attached, wanted)];
}

/**
 * What may be added while groups of an earlier life wait to be attached again: devices of a bridge
 * that was guarded before may be theirs, so only those that are classified are vetted.
 */
export function cautious(attached: Picture, wanted: Picture): Action[] {
  const guarded = new Set(attached.tables.devices.values());
  return additions(attached, wanted).filter((action) => action.do !== 'put' || action.table !== 'devices'
    || !guarded.has(action.value) || wanted.tables.ports.has(action.key));
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
  const reopened = attached.hooks.filter(({ program }) => program === 'guard').map(({ ifindex }) => wanted.tables.devices.get(String(ifindex)));
  const guardedBridges = new Set([...attached.tables.devices.values(), ...reopened]);
  const isNewBridge = (action: Action): boolean => action.do === 'put' && !guardedBridges.has(action.value);
  const devices = puts('devices');
  const late = devices.filter((action) => !isNewBridge(action));
  const classify = hooks(['classify', 'arrive']);
  return [
    ...puts('macs'), ...puts('peers'),
    ...[...wanted.counted].filter((ifindex) => !attached.counted.has(ifindex)).map((ifindex): Action => ({ do: 'count', ifindex })),
    ...puts('guarded'),
    ...hooks(HOLD),
    ...devices.filter(isNewBridge),
    ...hooks(GUARDS),
    ...[...wanted.forwarding].filter((entry) => !attached.forwarding.has(entry)).map((entry): Action => ({ do: 'forward', entry })),
    ...puts('ports'),
    ...classify,
    ...(late.length > 0 && classify.length > 0 ? [{ do: 'wait' } as const] : []),
    ...late,
    ...puts('wires'), ...puts('vnis'),
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
    ...removes('wires'), ...removes('vnis'),
    ...devices.filter(stays),
    ...hooks(['classify', 'arrive']),
    ...hooks(GUARDS),
    ...[...attached.forwarding].filter((entry) => !wanted.forwarding.has(entry)).map((entry): Action => ({ do: 'unforward', entry })),
    ...removes('ports'), ...removes('macs'), ...removes('peers'), ...removes('guarded'), ...devices.filter((action) => !stays(action)),
    ...hooks(HOLD),
    ...[...attached.counted].filter((ifindex) => !wanted.counted.has(ifindex)).map((ifindex): Action => ({ do: 'uncount', ifindex })),
  ];
}
