/**
 * Brings the kernel to what the groups want, and keeps it there: one look at the devices, one plan,
 * its steps in order, then the cells that say where each nic is.
 *
 *   devices ─► lost hold pairs and the VXLAN device made again ─► want ─► plan ─► names ─► cells placed ─► the other steps
 *           ─► hold pairs used whose programs are in place ─► intra paths through the bridge opened
 *
 * Nothing here is asked for by name: it is done for all groups at once, as often as anybody likes,
 * and what is in place already is left alone. What fails is handed to the caller, who knows whose it
 * is. A path that needs guards opens only after everything was in place, and closes before.
 */
import { NIC_FLAG } from './abi.ts';
import { NO_LANES, NO_PAIR, NO_POOL } from './cells.ts';
import type { Cells } from './cells.ts';
import { ipv4Parse } from './keys.ts';
import type { HoldPair, Kernel, LanePair, PoolPair, SpecView, WireView } from './kernel.ts';
import type { Failure, Performer } from './perform.ts';
import { cautious, plan, want } from './plan.ts';
import type { Action, Port, Want, WantedGroup, WantedNic } from './plan.ts';
import { messageOf } from './reports.ts';
import type { Reports } from './reports.ts';
import type { NicEntry } from './roster.ts';
import type { Ledger } from './stats.ts';
import { Turns } from './turns.ts';

/** A look that a command waits for has the event loop so long at a time; a device's worth of attaching takes as long. */
const ASKED_MS = 20;

export type Pair = HoldPair & LanePair & PoolPair;
/** A group as the gate keeps it. */
export interface GroupEntry {
  readonly id: number;
  pair: Pair;
  spec: SpecView;
  nics: readonly NicEntry[];
  /** No longer of the group; their cells are freed when no program can reach them. */
  leaving: readonly NicEntry[];
  /** Its hold pair was lost, and control has not attached it again since. */
  ringLost: boolean;
  /** Of a group across hosts. */
  wire: WireView | undefined;
}

export interface UpkeepParts {
  readonly kernel: Kernel;
  readonly cells: Cells;
  readonly ledger: Ledger;
  readonly performer: Performer;
  readonly reports: Reports;
  /** By id; the gate's own. */
  readonly groups: ReadonlyMap<number, GroupEntry>;
  /** The port by which other hosts are reached. */
  readonly uplink: string | undefined;
  /** So many groups have rings of their own. */
  readonly ringsMax: number;
}

export class Upkeep {
  readonly #kernel: Kernel;
  readonly #cells: Cells;
  readonly #ledger: Ledger;
  readonly #performer: Performer;
  readonly #reports: Reports;
  readonly #groups: ReadonlyMap<number, GroupEntry>;
  readonly #uplink: string | undefined;
  readonly #ringsMax: number;
  /** Every group of the journal is attached: from here on what is too much is removed. */
  settled: boolean;
  /** The device that groups by VXLAN share; 0 = there is none, and what would go by it is lost. */
  #tunnel = 0;
  /** Why there is none, though a group needs it. */
  tunnelTrouble: string | undefined;

  constructor(parts: UpkeepParts, settled: boolean) {
    this.#kernel = parts.kernel;
    this.#cells = parts.cells;
    this.#ledger = parts.ledger;
    this.#performer = parts.performer;
    this.#reports = parts.reports;
    this.#groups = parts.groups;
    this.#uplink = parts.uplink;
    this.#ringsMax = parts.ringsMax;
    this.settled = settled;
  }

  want(ports: readonly Port[]): Want {
    const known = (entry: NicEntry): WantedNic => {
      const { bridge, ifindex } = this.#cells.nic(entry.nic);
      return { ...entry, lastBridge: bridge, lastIfindex: ifindex };
    };
    const groups = [...this.#groups.values()];
    const wiredTo = ({ id, wire }: GroupEntry): Pick<WantedGroup, 'wire'> =>
      (wire === undefined ? {} : { wire: wire.vxlan === undefined ? { id, vlan: wire.vlan } : { id, vni: wire.vxlan.vni, tunnel: this.#tunnel } });
    const wanted = want(groups.map((group) => ({ ...group.pair, nics: group.nics.map(known), ...wiredTo(group) })),
      ports, this.#performer.table('ports'), this.#performer.table('devices'));
    // Counters stay under the port's name in the spec.
    const names = new Map(groups.flatMap(({ nics }) => nics.map(({ nic, port }) => [nic, port])));
    const nicAt = (ifindex: number): number => wanted.picture.tables.ports.get(String(ifindex)) ?? 0;
    this.#ledger.name(ports.map(({ ifindex, name }) => ({ ifindex, name: names.get(nicAt(ifindex)) ?? name })));
    return wanted;
  }
  /** Until settled only what is missing; afterwards also what is too much. `turns`: when it pauses for others. */
  async carryOut(turns = new Turns(ASKED_MS)): Promise<{ readonly wanted: Want; readonly failures: readonly Failure[] }> {
    const roadless = this.#renewTunnel();
    const ports = this.#kernel.ports();
    this.#closeMoved(ports);
    const unmade = [...roadless, ...this.#renewPairs(ports)];
    await turns.give();
    const wanted = this.want(ports);
    await turns.give();
    const there = await this.#performer.pictureInTurns(turns);
    const steps = this.settled ? plan(there, wanted.picture) : cautious(there, wanted.picture);
    const unnamed = await this.#performer.perform(steps.filter(isNaming));
    this.#place(wanted);
    this.#route(ports);
    const undone = await this.#performer.perform(steps.filter((action) => !isNaming(action)));
    const failures = [...unmade, ...unnamed, ...undone, ...this.#dropTunnel(ports), ...this.#dropPool(ports)];
    this.#usePairs(new Set(failures.map(({ ifindex }) => ifindex)));
    if (failures.length === 0) this.#openPaths(wanted);
    return { wanted, failures };
  }
  /** After their MACs are known on the new bridge: a frame between two members must not miss them. */
  #place({ placed, missing }: Want): void {
    for (const { nic, ifindex, bridge } of placed) {
      if (this.#cells.nic(nic).bridge !== bridge) this.#closePath(nic);
      this.#cells.place(nic, ifindex, bridge);
    }
    for (const { nic, ifindex, lastBridge } of missing) {
      this.#closePath(nic);
      this.#cells.place(nic, ifindex, lastBridge);
    }
  }
  /** Frames to other hosts leave by the uplink while it is in a bridge. */
  #route(ports: readonly Port[]): void {
    const uplink = ports.find(({ name, master }) => name === this.#uplink && master !== 0)?.ifindex ?? 0;
    for (const { id, wire } of this.#groups.values()) {
      if (wire === undefined) continue;
      this.#cells.setRoute(id, wire.vlan, uplink);
      if (wire.vxlan !== undefined) this.#cells.setTunnel(id, this.#tunnel, wire.vxlan.vni, ipv4Parse(wire.vxlan.hosts[wire.self] ?? ''));
    }
  }
  /** Only where guards are in place do intra frames go through the bridge: elsewhere it would flood them. */
  /** Before anything pauses: who has left the bridge he was placed in may speak into one without guards. */
  #closeMoved(ports: readonly Port[]): void {
    const masters = new Map(ports.map(({ ifindex, master }) => [ifindex, master]));
    for (const { nic } of [...this.#groups.values()].flatMap(({ nics }) => nics)) {
      const { ifindex, bridge } = this.#cells.nic(nic);
      if (ifindex !== 0 && masters.get(ifindex) !== bridge) this.#closePath(nic);
    }
  }
  #closePath(nic: number): void {
    this.#cells.setFlags(nic, this.#cells.flags(nic) & ~NIC_FLAG.intraBridge);
  }
  #openPaths({ placed }: Want): void {
    const there = new Set(placed.map(({ nic }) => nic));
    for (const { nic } of [...this.#groups.values()].filter(({ spec }) => spec.intraPath === 'bridge').flatMap(({ nics }) => nics)) {
      if (there.has(nic) && this.#cells.hasFlag(nic, 'protected')) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.intraBridge);
    }
  }

  // ------------------------------------------------------------------------------------ hold pairs

  /** Makes lost pairs again: until `usePairs` frames for them go nowhere. Of lanes only the use ends: what they hold is not what the ring holds. */
  #renewPairs(ports: readonly Port[]): Failure[] {
    const there = new Set(ports.map(({ ifindex }) => ifindex));
    const isLost = (ends: readonly number[]): boolean => !ends.every((ifindex) => there.has(ifindex));
    return [...this.#groups.values()].flatMap((group) => {
      if (isLost(holdEnds(group.pair))) return this.#renewPair(group);
      if (isLost(laneEnds(group.pair))) this.#loseLanes(group);
      return [];
    });
  }
  /** A new group's hold pair, without lanes; its frames are taken from the pool's ring where others have all rings, and the kernel has a pool. */
  makePair(id: number): Pair {
    return this.#pair(id, [...this.#groups.values()].filter(({ pair }) => pair.poolIfindex === 0).length >= this.#ringsMax);
  }
  #pair(id: number, isPooled: boolean): Pair {
    const pool = (isPooled ? this.#kernel.ensurePool() : undefined) ?? NO_POOL; // first: nobody deletes a pair of no group
    return { ...this.#kernel.ensureHoldPair(id), ...NO_LANES, ...pool };
  }
  #renewPair(group: GroupEntry): Failure[] {
    const { holdIfindex } = group.pair;
    if (!group.ringLost || this.#cells.holdIfindex(group.id) !== 0) this.#reports.emit({ kind: 'hold-lost', id: group.id });
    group.ringLost = true;
    this.#cells.setHold(group.id, NO_PAIR);
    try {
      group.pair = this.#pair(group.id, group.pair.poolIfindex !== 0);
      return [];
    } catch (error) {
      return [{ ifindex: holdIfindex, error }];
    }
  }
  /** The device with the queues, used from here on; 0 where the hold pair is not. Throws what keeps it from being made. */
  async makeLanes(group: GroupEntry): Promise<number> {
    if (this.#cells.holdIfindex(group.id) !== group.pair.holdIfindex) return 0;
    const inUse = this.#cells.laneIfindex(group.id);
    if (inUse !== 0 && inUse === group.pair.laneIfindex) return inUse;
    const made = { ...group.pair, ...this.#kernel.ensureLanePair(group.id) };
    group.pair = made;
    const { failures } = await this.carryOut();
    this.#reports.trouble(failures);
    const own = failures.find(({ ifindex }) => laneEnds(made).includes(ifindex));
    if (own !== undefined || group.pair !== made) {
      this.#endLanes(group);
      throw new Error(own === undefined ? 'its devices were lost as they were made' : messageOf(own.error), { cause: own?.error });
    }
    this.#cells.setHold(group.id, made);
    return made.laneIfindex;
  }
  async dropLanes(group: GroupEntry): Promise<void> {
    this.#endLanes(group);
    this.#reports.trouble((await this.carryOut()).failures);
    await this.#kernel.passed();
    this.#kernel.deleteLanePair(group.id);
  }
  /** No frame goes into them from here on. */
  #endLanes(group: GroupEntry): void {
    group.pair = { ...group.pair, ...NO_LANES };
    if (this.#cells.holdIfindex(group.id) === group.pair.holdIfindex) this.#cells.setHold(group.id, group.pair);
  }
  #loseLanes(group: GroupEntry): void {
    this.#endLanes(group);
    this.#reports.emit({ kind: 'lanes-lost', id: group.id });
  }
  /** Never lanes: those are used from when they are made until they are lost, or a colour would have frames before and behind its lane (I6). */
  #usePairs(failed: ReadonlySet<number>): void {
    const isFailed = (ends: readonly number[]): boolean => ends.some((ifindex) => failed.has(ifindex));
    for (const group of this.#groups.values()) {
      const { id, pair, ringLost } = group;
      if (isFailed(laneEnds(pair)) && this.#cells.laneIfindex(id) !== 0) this.#loseLanes(group);
      if (this.#cells.holdIfindex(id) === pair.holdIfindex || isFailed(holdEnds(pair))) continue;
      this.#cells.setHold(id, { ...pair, ...NO_LANES });
      if (ringLost) this.#reports.emit({ kind: 'hold-back', id });
    }
  }
  #needsTunnel(): boolean {
    return [...this.#groups.values()].some(({ wire }) => wire?.vxlan !== undefined);
  }
  #renewTunnel(): Failure[] {
    this.tunnelTrouble = undefined;
    try {
      this.#tunnel = this.#needsTunnel() ? this.#kernel.ensureTunnel() : 0;
      return [];
    } catch (error) {
      this.#tunnel = 0;
      this.tunnelTrouble = `the VXLAN device is not in place: ${messageOf(error)}`;
      return [{ ifindex: NO_TUNNEL, error }];
    }
  }
  /** With its last group; what can't be deleted now is trouble, and must not keep that group from going. */
  #dropTunnel(ports: readonly Port[]): Failure[] {
    if (!this.settled || this.#needsTunnel() || !ports.some(({ name }) => name === this.#kernel.tunnelDevice)) return [];
    try {
      this.#kernel.deleteTunnel();
      return [];
    } catch (error) {
      return [{ ifindex: NO_TUNNEL, error }];
    }
  }
  /** With its last group. */
  #dropPool(ports: readonly Port[]): Failure[] {
    if (!this.settled || [...this.#groups.values()].some(({ pair }) => pair.poolIfindex !== 0) || !ports.some(({ name }) => name === this.#kernel.poolDevice)) return [];
    try {
      this.#kernel.deletePool();
      return [];
    } catch (error) {
      return [{ ifindex: POOL_GONE, error }];
    }
  }
  /** What fails about these is no fault of group `id`; without its lanes it is whole. */
  devicesOfOthers(id: number): ReadonlySet<number> {
    const own = this.#groups.get(id);
    const others = [...this.#groups.values()].filter((group) => group.id !== id);
    const isOther = own?.wire?.vxlan === undefined;
    const shared = own === undefined ? [] : holdEnds(own.pair); // the pool's are its own, too
    const theirs = others.flatMap(({ pair, nics }) => [...holdEnds(pair), ...laneEnds(pair), ...nics.map(({ nic }) => this.#cells.nic(nic).ifindex)]);
    return new Set([POOL_GONE, ...(isOther ? [NO_TUNNEL] : []), ...(own === undefined ? [] : laneEnds(own.pair)), ...theirs.filter((ifindex) => !shared.includes(ifindex))]);
  }
}

/** All that must be there for its frames to be held. */
const holdEnds = ({ holdIfindex, ringIfindex, poolHoldIfindex, poolIfindex }: HoldPair & PoolPair): readonly number[] =>
  (poolIfindex === 0 ? [holdIfindex, ringIfindex] : [holdIfindex, ringIfindex, poolHoldIfindex, poolIfindex]);
export const laneEnds = ({ laneIfindex, exitIfindex }: LanePair): readonly number[] => (laneIfindex === 0 ? [] : [laneIfindex, exitIfindex]);

/** Stands for the VXLAN device where there is none. */
const NO_TUNNEL = -1;
/** For the pool's pair, when it is to go. */
const POOL_GONE = -2;

/** Says which nic a MAC is. */
const isNaming = (action: Action): boolean => action.do === 'put' && action.table === 'macs';
