/**
 * The gate: puts groups into the kernel and keeps them there.
 *
 *   attach ─► check ─► hold pair ─► cells (not yet protecting) ─► plan ─► arm ─► settle ─► guard
 *   change of devices or qdiscs ─► reconcile ─► plan ─► port-lost, port-back
 *   detach ─► disarm ─► plan ─► free cells ─► hold pair goes; after the last group the pins too
 *
 * Everything that takes time runs one after the other in a queue of its own; the stores (colour,
 * commit, flags) act at once. upkeep.ts brings about what all groups want together, and only what is
 * missing of it. What fails of one group is that group's trouble: all other steps are taken.
 *
 * A nic is a device once it was found by its name: renamed, out of the bridge, or with the bridge
 * deleted and made again around it, it stays classified until its member or group goes. A hold pair
 * that another tool deleted is made again; what it held is lost, and its ring must be opened again.
 *
 * After a restart the pinned maps hold what the last daemon knew. Until `settle()` says that all
 * groups of the journal are attached again, nothing is removed: a group that is not attached yet
 * keeps holding. Nics found in the cells are taken over by group, MAC and VLAN, so their counters
 * go on. A port that is missing then is reported and awaited; for a new group it is an error.
 *
 * A member of another host has a nic here too, placed at the uplink: where frames to it go, and whose
 * frames may come by the wire (D40).
 *
 * It decides nothing about epochs, and no frame waits for it.
 */
import { NIC_FLAG } from './abi.ts';
import { Cells, NO_PAIR } from './cells.ts';
import { bridgeRefusal, refusal, uplinkRefusal, wireRefusal } from './claims.ts';
import { Paced } from './paced.ts';
import { Turns } from './turns.ts';
import { Performer } from './perform.ts';
import { additions } from './plan.ts';
import type { Attached, Fail, GateEvent, Kernel, MemberView, SpecView, WireView } from './kernel.ts';
import { Reports, messageOf } from './reports.ts';
import type { Owner } from './reports.ts';
import { Roster, firstsOf } from './roster.ts';
import type { Away, CellPair, NicEntry } from './roster.ts';
import { Ledger } from './stats.ts';
import type { DeviceStats } from './stats.ts';
import { Upkeep, laneEnds } from './upkeep.ts';
import type { GroupEntry } from './upkeep.ts';

export type { GateEvent, Kernel } from './kernel.ts';

const ALARMS_MS = 500;
const ALARMS_MS_MAX = 5000;
/** So often everything is compared, event or not; with hundreds of devices less often. */
const RECONCILE_MS = 5000;
/** A look that nobody waits for has the event loop so long at a time. */
const UNASKED_MS = 5;
const RECONCILE_MS_MAX = 20_000;

export class KernelGate {
  readonly #kernel: Kernel;
  readonly #fail: Fail;
  readonly #cells: Cells;
  readonly #ledger: Ledger;
  readonly #groups = new Map<number, GroupEntry>();
  readonly #roster: Roster;
  readonly #performer: Performer;
  readonly #reports = new Reports();
  /** Groups of which an earlier daemon left nics in the kernel. */
  readonly leftovers: ReadonlySet<number>;
  readonly #upkeep: Upkeep;
  readonly #uplink: string | undefined;
  readonly #mayUse: (bridge: string) => boolean;
  #queue: Promise<unknown> = Promise.resolve();
  /** A look that has not begun. */
  #look: Promise<void> | undefined;
  #watch: { close(): void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #alarms = new Paced(0, ALARMS_MS_MAX, 'at once');
  readonly #whole = new Paced(RECONCILE_MS, RECONCILE_MS_MAX, 'later');

  /**
   * `uplink`: the port by which other hosts are reached; absent = groups of one host only. `mayUse`: of a
   * bridge. `ringsMax`: so many groups have rings of their own, those beyond share one.
   */
  constructor(kernel: Kernel, fail: Fail, uplink?: string, mayUse: (bridge: string) => boolean = () => true, ringsMax = Number.POSITIVE_INFINITY) {
    this.#uplink = uplink;
    this.#mayUse = mayUse;
    this.#kernel = kernel;
    this.#fail = fail;
    this.#cells = new Cells(kernel.cells);
    this.#ledger = new Ledger((ifindex) => kernel.counters(ifindex));
    const adopted = this.#cells.adopted();
    this.leftovers = new Set(adopted.map(({ group }) => group));
    this.#performer = new Performer(kernel, this.#ledger, adopted.length > 0);
    this.#roster = new Roster(this.#cells, adopted);
    this.#upkeep = new Upkeep(
      { kernel, cells: this.#cells, ledger: this.#ledger, performer: this.#performer, reports: this.#reports, groups: this.#groups, uplink, ringsMax },
      adopted.length === 0,
    );
  }

  // ------------------------------------------------------------------------------- Gate

  attach(id: number, spec: SpecView, colour: number, members: readonly MemberView[], wire?: WireView): Promise<Attached> {
    return this.#inTurn(() => this.#attach(id, spec, colour, members, wire));
  }
  /** Of `wire` only who is elsewhere, and the VLAN: generation and base are set by setWire. */
  reattach(id: number, spec: SpecView, members: readonly MemberView[], wire?: WireView): Promise<Attached> {
    return this.#inTurn(() => this.#reattach(id, spec, members, wire));
  }
  detach(id: number): Promise<void> {
    return this.#inTurn(() => this.#undo(id));
  }
  setColour(id: number, colour: number): void {
    this.#cells.setColour(id, colour);
  }
  setMemberColour(id: number, member: string, colour: number): void {
    const entry = this.#nicsOf(id, member)[0];
    if (entry !== undefined) this.#cells.setMemberColour(entry.memberIndex, colour);
  }
  setCommit(id: number, colour: number): void {
    this.#cells.setCommit(id, colour);
  }
  /** Undefined closes the wire: before the colour of a new generation is set, which opens it again. */
  setWire(id: number, wire: WireView | undefined): void {
    this.#cells.setWire(id, wire);
  }
  setReady(id: number, member: string): void {
    for (const { nic } of this.#nicsOf(id, member)) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.ready);
  }
  setDraining(id: number, member: string | undefined): void {
    for (const { nic } of this.#nicsOf(id, member)) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.drain);
  }

  /** The device whose queues are the group's lanes, used from here on; 0 where the group is not attached. */
  ensureLanes(id: number): Promise<number> {
    return this.#inTurn(async () => {
      const group = this.#groups.get(id);
      return group === undefined ? 0 : this.#upkeep.makeLanes(group);
    });
  }
  /** None is in use. */
  dropLanes(id: number): Promise<void> {
    return this.#inTurn(async () => {
      const group = this.#groups.get(id);
      if (group !== undefined) await this.#upkeep.dropLanes(group);
    });
  }

  // -------------------------------------------------------------------- watching and reporting

  onEvent(listener: (event: GateEvent) => void): void {
    this.#reports.onEvent(listener);
  }
  /** Watches devices from here on. Neither the watch nor its timer keeps the process alive. */
  start(): void {
    this.#watch ??= this.#kernel.watch(() => void this.reconcile());
    this.#timer ??= setInterval(() => void this.inspect(), ALARMS_MS).unref();
  }
  /** Every group of the journal is attached: what the last daemon left besides may go. */
  settle(): Promise<void> {
    return this.#inTurn(async () => {
      this.#upkeep.settled = true;
      for (const { nic } of this.#roster.leftovers()) this.#cells.setFlags(nic, 0);
      this.#reports.trouble((await this.#upkeep.carryOut()).failures);
      await this.#kernel.passed();
      this.#freeAll(this.#roster.dropLeftovers());
      if (this.#groups.size === 0) this.#kernel.unpin();
    });
  }
  /**
   * Brings everything back that is not in place. Never rejects: trouble is an event. Who asks while a
   * look waits for its turn gets that one: a group that dies makes a dozen of changes, and the takeover
   * would stand behind as many looks.
   */
  reconcile(): Promise<void> {
    this.#look ??= this.#inTurn(async () => {
      this.#look = undefined;
      if (this.#groups.size === 0) return;
      const { wanted, failures } = await this.#upkeep.carryOut(new Turns(UNASKED_MS));
      this.#reports.ports(wanted, (nic) => this.#ownerOf(nic));
      this.#reports.trouble(failures);
    }).catch((error: unknown) => this.#reports.trouble([{ ifindex: 0, error }]));
    return this.#look;
  }
  /** Looks at the counters that should not move, and now and then at everything. */
  async inspect(): Promise<void> {
    await this.#alarms.maybe(() => {
      for (const alarm of this.#ledger.alarms()) this.#reports.emit(alarm);
    });
    await this.#whole.maybe(() => this.reconcile());
  }
  /** What is not in place, a sentence each; empty = ready. */
  ready(): string[] {
    const wanted = this.#upkeep.want(this.#kernel.ports());
    const missing = new Set(wanted.missing.map((nic) => `port ${nic.port} is missing or in no bridge`));
    const tunnel = this.#upkeep.tunnelTrouble;
    const rings = [...this.#groups.values()].filter(({ ringLost }) => ringLost)
      .map(({ spec }) => `the hold pair of group ${spec.group} was lost and its ring is not open again: restart sluiced`);
    const lanes = [...this.#groups.values()].flatMap(({ pair }) => laneEnds(pair)); // it holds without them
    const open = additions(this.#performer.picture(), wanted.picture).filter((action) => action.do !== 'wait' && !(action.do === 'hook' && lanes.includes(action.hook.ifindex)));
    return [...missing, ...rings, ...(tunnel === undefined ? [] : [tunnel]), ...(open.length === 0 ? [] : [`${open.length} steps of attaching are not done`])];
  }
  /** Counters by device, those of devices that are gone included. */
  stats(): DeviceStats[] {
    return this.#ledger.read();
  }
  /** Ends the watching. What is attached stays and holds; without groups nothing stays. */
  async close(): Promise<void> {
    this.#watch?.close();
    clearInterval(this.#timer);
    await this.#queue;
    if (this.#groups.size === 0 && this.#upkeep.settled) this.#kernel.unpin();
    this.#kernel.close();
  }

  // ------------------------------------------------------------------------- groups in and out

  async #attach(id: number, spec: SpecView, colour: number, members: readonly MemberView[], wire: WireView | undefined): Promise<Attached> {
    const known = this.#groups.get(id);
    if (known !== undefined) {
      const attached = await this.#reattach(id, spec, members, wire);
      known.ringLost = false;
      return attached;
    }
    const adopts = this.#roster.hasLeftovers(id, spec);
    this.#check(id, spec, wire, () => adopts);
    this.#kernel.pin();
    const group: GroupEntry = { id, pair: this.#upkeep.makePair(id), spec, nics: [], leaving: [], ringLost: false, wire };
    this.#groups.set(id, group);
    try {
      // A pair that is new is not used before its programs are in place.
      const inUse = this.#cells.holdIfindex(id) === group.pair.holdIfindex && this.#cells.poolIfindex(id) === group.pair.poolIfindex;
      this.#cells.openGroup(id, inUse ? group.pair : NO_PAIR, colour);
      group.nics = this.#roster.nicsFor(group, spec, members, this.#away(wire));
      if (adopts) await this.#unplace(this.#unmoved(group.nics));
      await this.#rehome(group.nics);
      this.#cells.setWire(id, wire);
      await this.#bring(group, members);
    } catch (error) {
      await this.#undo(id);
      throw this.#failure(error, `group ${spec.group} could not be attached`);
    }
    return this.#attached(group);
  }

  async #reattach(id: number, spec: SpecView, members: readonly MemberView[], wire: WireView | undefined): Promise<Attached> {
    const group = this.#groups.get(id);
    if (group === undefined) throw this.#fail('plane_down', `group ${spec.group} is not attached`, 'protect it again');
    this.#check(id, spec, wire, (port) => group.nics.some((nic) => nic.port === port));
    const before = group.nics;
    group.spec = spec;
    group.wire = wire;
    group.nics = this.#roster.nicsFor(group, spec, members, this.#away(wire));
    group.leaving = [...group.leaving, ...before.filter((old) => !group.nics.some((nic) => nic.nic === old.nic))];
    for (const { nic } of group.leaving) this.#cells.setFlags(nic, 0);
    // Given another port (takeover): until that one is found, frames to the nic go nowhere.
    await this.#unplace(before.filter((old) => group.nics.some((now) => now.nic === old.nic && now.port !== old.port)));
    await this.#rehome(group.nics);
    try {
      await this.#bring(group, members);
      if (group.leaving.length > 0) await this.#kernel.passed();
      this.#freeAll(group.leaving);
      group.leaving = [];
    } catch (error) {
      throw this.#failure(error, `the change of group ${spec.group} could not be carried out`);
    }
    return this.#attached(group);
  }

  #away(wire: WireView | undefined): Away | undefined {
    if (wire === undefined || this.#uplink === undefined) return undefined;
    return { self: wire.self, uplink: this.#uplink, ...(wire.vxlan === undefined ? {} : { hosts: wire.vxlan.hosts }) };
  }
  /** These are at no device from here on, and whoever speaks where they were is fenced. */
  async #unplace(nics: readonly NicEntry[]): Promise<void> {
    for (const { nic } of nics) {
      this.#reports.trouble(await this.#performer.fence(nic));
      this.#cells.place(nic, 0, this.#cells.nic(nic).bridge);
    }
  }
  /**
   * Nics of which the last daemon journalled a move (takeover) and died before it: at a device of
   * another name, while a device of their port's name is in a bridge and nobody's. A tap that was
   * renamed while another was made under its name looks the same, and loses: who speaks there may be
   * of an old generation.
   */
  #unmoved(nics: readonly NicEntry[]): NicEntry[] {
    const ports = this.#kernel.ports();
    const owned = this.#performer.table('ports');
    return nics.filter(({ nic, port, remote }) => {
      const here = ports.find(({ ifindex }) => ifindex === this.#cells.nic(nic).ifindex);
      const named = ports.find(({ name, master }) => name === port && master !== 0);
      return !remote && here !== undefined && named !== undefined && here.name !== port && !owned.has(String(named.ifindex));
    });
  }
  /** A nic whose member has come here or has gone to another host: nowhere in between. */
  async #rehome(nics: readonly NicEntry[]): Promise<void> {
    for (const entry of nics.filter((each) => this.#cells.hasFlag(each.nic, 'remote') !== each.remote)) {
      const { nic, remote } = entry;
      await this.#unplace([entry]);
      this.#cells.setFlags(nic, (this.#cells.flags(nic) & ~NIC_FLAG.remote) | (remote ? NIC_FLAG.remote : 0));
    }
  }

  /** Cells, programs, then protection, then the guards. */
  async #bring(group: GroupEntry, members: readonly MemberView[]): Promise<void> {
    for (const entry of group.nics) {
      const member = members.find(({ name }) => name === entry.member);
      if (member !== undefined) this.#cells.setMemberColour(entry.memberIndex, member.colour);
    }
    this.#cells.link(group.id, group.nics.map(({ nic }) => nic));
    const others = [this.#upkeep.devicesOfOthers(group.id)];
    const { wanted, failures } = await this.#upkeep.carryOut();
    others.push(this.#upkeep.devicesOfOthers(group.id)); // lanes that failed are nobody's any more, pairs made again are new
    const own = failures.find(({ ifindex }) => !others.some((set) => set.has(ifindex)));
    if (own !== undefined) throw own.error;
    this.#reports.trouble(failures);
    const placed = new Set(wanted.placed.map(({ nic }) => nic));
    const firsts = firstsOf(group.nics);
    for (const { nic, member } of group.nics) this.#cells.setFlags(nic, this.#flags(group, nic, member, members, placed.has(nic)) | (firsts.has(nic) ? NIC_FLAG.first : 0));
    this.#reports.ports(wanted, (nic) => this.#ownerOf(nic));
    if (group.nics.every(({ nic }) => this.#cells.hasFlag(nic, 'guarded'))) return;
    await this.#kernel.passed();
    for (const { nic } of group.nics) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.guarded);
  }

  /** Everything of the group goes, whatever fails on the way: that is trouble, said and tried again. */
  async #undo(id: number): Promise<void> {
    const group = this.#groups.get(id);
    if (group === undefined) return;
    const nics = [...group.nics, ...group.leaving];
    for (const { nic } of nics) this.#cells.setFlags(nic, 0);
    this.#groups.delete(id);
    const { failures } = await this.#upkeep.carryOut();
    await this.#kernel.passed();
    this.#cells.closeGroup(id);
    this.#freeAll(nics);
    this.#kernel.deleteHoldPair(id);
    this.#reports.trouble(failures);
    if (this.#groups.size === 0 && this.#upkeep.settled) this.#kernel.unpin();
  }

  /** Refuses what can't be attached, before anything is touched. */
  #check(id: number, spec: SpecView, wire: WireView | undefined, awaited: (port: string) => boolean): void {
    const ports = this.#kernel.ports();
    const names = new Map(ports.map(({ ifindex, name }) => [ifindex, name]));
    // A renamed port is theirs under both names.
    const called = (entry: NicEntry): NicEntry => ({ ...entry, port: names.get(this.#cells.nic(entry.nic).ifindex) ?? entry.port });
    const others = [...this.#groups.values()].filter((group) => group.id !== id)
      .map(({ spec: { group }, nics }) => ({ group, nics: [nics, nics.map(called)].flat().filter(({ remote }) => !remote) }));
    const here = spec.members.filter(({ host }) => wire === undefined || host === undefined || host === wire.self);
    const claim = { group: spec.group, nics: here.flatMap(({ nics }) => nics) };
    const wires = [...this.#groups.values()].filter((group) => group.id !== id).map((group) => ({ group: group.spec.group, wire: group.wire }));
    const refused = uplinkRefusal(claim, this.#uplink) ?? wireRefusal(wire, this.#uplink, wires, ports, awaited) ?? refusal(claim, others, ports, awaited)
      ?? bridgeRefusal(claim, ports, awaited, this.#mayUse);
    if (refused !== undefined) throw this.#fail(refused.code, refused.message, refused.fix);
  }

  #freeAll(nics: readonly CellPair[]): void {
    for (const { nic } of nics) this.#reports.forget(nic);
    this.#roster.free(nics, [...this.#groups.values()].flatMap((group) => group.nics));
  }
  #flags(group: GroupEntry, nic: number, member: string, members: readonly MemberView[], placed: boolean): number {
    const kept = this.#cells.flags(nic) & (NIC_FLAG.guarded | NIC_FLAG.drain);
    if (this.#cells.hasFlag(nic, 'remote')) return NIC_FLAG.protected | NIC_FLAG.remote | NIC_FLAG.ready | kept;
    const ready = members.find(({ name }) => name === member)?.ready ?? this.#cells.hasFlag(nic, 'ready');
    return NIC_FLAG.protected | kept | (ready ? NIC_FLAG.ready : 0)
      | (group.spec.foreignSource === 'drop' ? NIC_FLAG.foreignDrop : 0)
      | (group.spec.intraPath === 'bridge' && placed ? NIC_FLAG.intraBridge : 0);
  }
  #nicsOf(id: number, member: string | undefined): readonly NicEntry[] {
    const nics = this.#groups.get(id)?.nics ?? [];
    return member === undefined ? nics : nics.filter((entry) => entry.member === member);
  }
  #attached(group: GroupEntry): Attached {
    const { id, pair } = group;
    return {
      id, holdDevice: pair.holdDevice, ringDevice: pair.ringDevice, ...(pair.poolIfindex === 0 ? {} : { poolDevice: this.#kernel.poolDevice }),
      nics: group.nics.filter(({ remote }) => !remote).map(({ nic, member, port }) => ({ nic, member, port, ifindex: this.#cells.nic(nic).ifindex })),
    };
  }

  // --------------------------------------------------------------------------------------- reports

  #ownerOf(nic: number): Owner | undefined {
    for (const { id, nics } of this.#groups.values()) {
      const entry = nics.find((candidate) => candidate.nic === nic);
      if (entry !== undefined) return { id, member: entry.member, port: entry.port };
    }
    return undefined;
  }
  #failure(error: unknown, what: string): Error {
    const fix = error instanceof Error && 'fix' in error && typeof error.fix === 'string' ? error.fix : 'see `sluice doctor`';
    return this.#fail('plane_down', `${what}: ${messageOf(error)}`, fix, error);
  }
  #inTurn<T>(job: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(job);
    this.#queue = done.catch(() => undefined);
    return done;
  }
}
