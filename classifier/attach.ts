/**
 * The gate: puts groups into the kernel and keeps them there.
 *
 *   attach ─► check ─► hold pair ─► cells (not yet protecting) ─► plan ─► arm ─► settle ─► guard
 *   change of devices or qdiscs ─► reconcile ─► plan ─► port-lost, port-back
 *   detach ─► disarm ─► plan ─► free cells ─► hold pair goes; after the last group the pins too
 *
 * Everything that takes time runs one after the other in a queue of its own; the stores (colour,
 * commit, flags) act at once. What is in place is asked of the kernel each time, never remembered,
 * so what another tool removed is seen; the plan is then only what is missing.
 *
 * After a restart the pinned maps hold what the last daemon knew. Until `settle()` says that all
 * groups of the journal are attached again, nothing is removed: a group that is not attached yet
 * keeps holding. Nics found in the cells are taken over by group, MAC and VLAN, so their counters
 * go on. A port that is missing then is reported and awaited; for a new group it is an error.
 *
 * It decides nothing about epochs, and no frame waits for it.
 */
import { DEVICES_MAX, NIC_FLAG } from './abi.ts';
import { Cells } from './cells.ts';
import { refusal } from './claims.ts';
import { keyBytes, keyText } from './keys.ts';
import { additions, plan, removals, want } from './plan.ts';
import type { Attached, Fail, GateEvent, HoldPair, Kernel, MemberView, SpecView } from './kernel.ts';
import type { Action, Picture, TableName, Want, WantedNic } from './plan.ts';
import { Ledger } from './stats.ts';
import type { DeviceStats } from './stats.ts';

interface NicEntry {
  readonly nic: number;
  readonly memberIndex: number;
  readonly member: string;
  readonly port: string;
  readonly mac: string;
  readonly vlan: number;
}
interface GroupEntry {
  readonly id: number;
  readonly pair: HoldPair;
  spec: SpecView;
  nics: readonly NicEntry[];
}
type Handlers = { readonly [K in Action['do']]: (action: Extract<Action, { do: K }>) => void | Promise<void> };

export type { GateEvent, Kernel } from './kernel.ts';

const ALARMS_MS = 500;
/** Every so many looks at the alarms everything is compared, event or not. */
const RECONCILE_LOOKS = 10;

export class KernelGate {
  readonly #kernel: Kernel;
  readonly #fail: Fail;
  readonly #cells: Cells;
  readonly #ledger: Ledger;
  readonly #groups = new Map<number, GroupEntry>();
  readonly #leftover: Map<string, { readonly nic: number; readonly memberIndex: number }>;
  readonly #listeners: ((event: GateEvent) => void)[] = [];
  /** Static forwarding entries we need; false = the operator's, which stays when we go. */
  readonly #forwarding = new Map<string, boolean>();
  readonly #adopting: boolean;
  #lost = new Set<number>();
  #settled: boolean;
  #queue: Promise<unknown> = Promise.resolve();
  #watch: { close(): void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #troubled = '';
  #looks = 0;

  constructor(kernel: Kernel, fail: Fail) {
    this.#kernel = kernel;
    this.#fail = fail;
    this.#cells = new Cells(kernel.cells);
    this.#ledger = new Ledger((ifindex) => kernel.counters(ifindex));
    const adopted = this.#cells.adopted();
    this.#adopting = adopted.length > 0;
    this.#settled = !this.#adopting;
    this.#leftover = new Map(adopted.map((cell) =>
      [leftoverKey(cell.group, cell.mac, cell.vlan), { nic: cell.nic, memberIndex: cell.member }]));
  }

  // ------------------------------------------------------------------------------- Gate

  attach(id: number, spec: SpecView, colour: number, members: readonly MemberView[]): Promise<Attached> {
    return this.#inTurn(() => this.#attach(id, spec, colour, members));
  }
  reattach(id: number, spec: SpecView, members: readonly MemberView[]): Promise<Attached> {
    return this.#inTurn(() => this.#reattach(id, spec, members));
  }
  detach(id: number): Promise<void> {
    return this.#inTurn(() => this.#detach(id));
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
  setReady(id: number, member: string): void {
    for (const { nic } of this.#nicsOf(id, member)) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.ready);
  }
  setDraining(id: number, member: string | undefined): void {
    for (const { nic } of this.#nicsOf(id, member)) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.drain);
  }

  // -------------------------------------------------------------------- watching and reporting

  onEvent(listener: (event: GateEvent) => void): void {
    this.#listeners.push(listener);
  }
  /** Watches devices from here on. Neither the watch nor its timer keeps the process alive. */
  start(): void {
    this.#watch ??= this.#kernel.watch(() => void this.reconcile());
    this.#timer ??= setInterval(() => void this.inspect(), ALARMS_MS).unref();
  }
  /** Every group of the journal is attached: what the last daemon left besides may go. */
  settle(): Promise<void> {
    return this.#inTurn(async () => {
      this.#settled = true;
      for (const { nic } of this.#leftover.values()) this.#cells.setFlags(nic, 0);
      await this.#perform(plan(this.#picture(), this.#want().picture));
      await this.#kernel.passed();
      for (const { nic, memberIndex } of this.#leftover.values()) this.#free(nic, memberIndex);
      this.#leftover.clear();
      if (this.#groups.size === 0) this.#kernel.unpin();
    });
  }
  /** Brings everything back that is not in place. Never rejects: trouble is an event. */
  reconcile(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#groups.size === 0) return;
      const wanted = this.#want();
      this.#place(wanted);
      await this.#perform(this.#steps(wanted.picture));
      this.#reportPorts(wanted);
      this.#troubled = '';
    }).catch((error: unknown) => this.#trouble(error));
  }
  /** Looks at the counters that should not move, and now and then at everything. */
  async inspect(): Promise<void> {
    for (const alarm of this.#ledger.alarms()) this.#emit(alarm);
    this.#looks += 1;
    if (this.#looks % RECONCILE_LOOKS === 0) await this.reconcile();
  }
  /** What is not in place, a sentence each; empty = ready. */
  ready(): string[] {
    const wanted = this.#want();
    const missing = wanted.missing.map((nic) => `port ${nic.port} is missing or in no bridge`);
    const open = additions(this.#picture(), wanted.picture).filter((action) => action.do !== 'wait');
    return open.length === 0 ? missing : [...missing, `${open.length} steps of attaching are not done`];
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
    if (this.#groups.size === 0 && this.#settled) this.#kernel.unpin();
    this.#kernel.close();
  }

  // ------------------------------------------------------------------------- groups in and out

  async #attach(id: number, spec: SpecView, colour: number, members: readonly MemberView[]): Promise<Attached> {
    const known = this.#groups.get(id);
    if (known !== undefined) return this.#reattach(id, spec, members);
    const adopts = spec.members.some((m) => m.nics.some((nic) => this.#leftover.has(leftoverKey(id, nic.mac, nic.vlan))));
    this.#check(id, spec, () => adopts);
    this.#kernel.pin();
    const group: GroupEntry = { id, pair: this.#kernel.ensureHoldPair(id), spec, nics: [] };
    this.#groups.set(id, group);
    try {
      this.#cells.openGroup(id, group.pair.holdIfindex, colour);
      group.nics = this.#nicsFor(group, spec, members);
      await this.#bring(group, members);
    } catch (error) {
      await this.#undo(id);
      throw this.#failure(error, `group ${spec.group} could not be attached`);
    }
    return this.#attached(group);
  }

  async #reattach(id: number, spec: SpecView, members: readonly MemberView[]): Promise<Attached> {
    const group = this.#groups.get(id);
    if (group === undefined) throw this.#fail('plane_down', `group ${spec.group} is not attached`, 'protect it again');
    this.#check(id, spec, (port) => group.nics.some((nic) => nic.port === port));
    const before = group.nics;
    group.spec = spec;
    group.nics = this.#nicsFor(group, spec, members);
    const gone = before.filter((old) => !group.nics.some((nic) => nic.nic === old.nic));
    for (const { nic } of gone) this.#cells.setFlags(nic, 0);
    try {
      await this.#bring(group, members);
      if (gone.length > 0) await this.#kernel.passed();
      for (const { nic, memberIndex } of gone) this.#free(nic, memberIndex);
    } catch (error) {
      throw this.#failure(error, `the change of group ${spec.group} could not be carried out`);
    }
    return this.#attached(group);
  }

  /** Cells, programs, then protection, then the guards. */
  async #bring(group: GroupEntry, members: readonly MemberView[]): Promise<void> {
    for (const entry of group.nics) {
      const member = members.find(({ name }) => name === entry.member);
      if (member !== undefined) this.#cells.setMemberColour(entry.memberIndex, member.colour);
    }
    const wanted = this.#want();
    this.#place(wanted);
    this.#cells.link(group.id, group.nics.map(({ nic }) => nic));
    await this.#perform(this.#steps(wanted.picture));
    for (const { nic, member } of group.nics) this.#cells.setFlags(nic, this.#flags(group, nic, member, members));
    this.#reportPorts(wanted);
    if (group.nics.every(({ nic }) => this.#cells.hasFlag(nic, 'guarded'))) return;
    await this.#kernel.passed();
    for (const { nic } of group.nics) this.#cells.setFlags(nic, this.#cells.flags(nic) | NIC_FLAG.guarded);
  }

  async #detach(id: number): Promise<void> {
    const group = this.#groups.get(id);
    if (group === undefined) return;
    await this.#undo(id);
  }
  async #undo(id: number): Promise<void> {
    const group = this.#groups.get(id);
    if (group === undefined) return;
    for (const { nic } of group.nics) this.#cells.setFlags(nic, 0);
    this.#groups.delete(id);
    await this.#perform(this.#steps(this.#want().picture));
    await this.#kernel.passed();
    this.#cells.closeGroup(id);
    for (const { nic, memberIndex } of group.nics) {
      this.#lost.delete(nic);
      this.#free(nic, memberIndex);
    }
    this.#kernel.deleteHoldPair(id);
    if (this.#groups.size === 0 && this.#settled) this.#kernel.unpin();
  }

  /** Refuses what can't be attached, before anything is touched. */
  #check(id: number, spec: SpecView, awaited: (port: string) => boolean): void {
    const others = [...this.#groups.values()].filter((group) => group.id !== id).map(({ spec: { group }, nics }) => ({ group, nics }));
    const claim = { group: spec.group, nics: spec.members.flatMap(({ nics }) => nics) };
    const refused = refusal(claim, others, this.#kernel.ports(), awaited);
    if (refused !== undefined) throw this.#fail('bad_request', refused.message, refused.fix);
  }

  #nicsFor(group: GroupEntry, spec: SpecView, members: readonly MemberView[]): NicEntry[] {
    return spec.members.flatMap((member) => {
      const known = group.nics.find((entry) => entry.member === member.name)?.memberIndex;
      const left = member.nics.map((nic) => this.#leftover.get(leftoverKey(group.id, nic.mac, nic.vlan))).find((cell) => cell !== undefined);
      const memberIndex = known ?? left?.memberIndex ?? this.#cells.newMember();
      const colour = members.find(({ name }) => name === member.name)?.colour;
      if (known === undefined && colour !== undefined) this.#cells.setMemberColour(memberIndex, colour);
      return member.nics.map(({ port, mac, vlan }) => {
        const same = group.nics.find((e) => e.member === member.name && e.port === port && e.mac === mac && e.vlan === vlan);
        return same ?? { nic: this.#nicFor(group.id, memberIndex, mac, vlan), memberIndex, member: member.name, port, mac, vlan };
      });
    });
  }
  #nicFor(group: number, member: number, mac: string, vlan: number): number {
    const key = leftoverKey(group, mac, vlan);
    const left = this.#leftover.get(key);
    if (left === undefined || left.memberIndex !== member) return this.#cells.newNic({ group, member, mac, vlan });
    this.#leftover.delete(key);
    return left.nic;
  }
  #free(nic: number, memberIndex: number): void {
    this.#cells.freeNic(nic);
    const used = [...this.#groups.values()].some((group) => group.nics.some((entry) => entry.memberIndex === memberIndex));
    if (!used) this.#cells.freeMember(memberIndex);
  }
  #flags(group: GroupEntry, nic: number, member: string, members: readonly MemberView[]): number {
    const ready = members.find(({ name }) => name === member)?.ready ?? this.#cells.hasFlag(nic, 'ready');
    const kept = this.#cells.flags(nic) & (NIC_FLAG.guarded | NIC_FLAG.drain);
    return NIC_FLAG.protected | kept | (ready ? NIC_FLAG.ready : 0)
      | (group.spec.foreignSource === 'drop' ? NIC_FLAG.foreignDrop : 0)
      | (group.spec.intraPath === 'bridge' ? NIC_FLAG.intraBridge : 0);
  }
  #nicsOf(id: number, member: string | undefined): readonly NicEntry[] {
    const nics = this.#groups.get(id)?.nics ?? [];
    return member === undefined ? nics : nics.filter((entry) => entry.member === member);
  }
  #attached(group: GroupEntry): Attached {
    const { id, pair } = group;
    return {
      id, holdDevice: pair.holdDevice, ringDevice: pair.ringDevice,
      nics: group.nics.map(({ nic, member, port }) => ({ nic, member, port, ifindex: this.#cells.nic(nic).ifindex })),
    };
  }

  // ------------------------------------------------------------------------------ plan and perform

  #want(): Want {
    const ports = this.#kernel.ports();
    this.#ledger.name(ports);
    const known = (entry: NicEntry): WantedNic => ({ ...entry, lastBridge: this.#cells.nic(entry.nic).bridge });
    return want([...this.#groups.values()].map(({ pair, nics }) => ({ ...pair, nics: nics.map(known) })), ports);
  }
  /** Until settled only what is missing; afterwards also what is too much. */
  #steps(wanted: Picture): Action[] {
    const there = this.#picture();
    return this.#settled ? [...additions(there, wanted), ...removals(there, wanted)] : additions(there, wanted);
  }
  #picture(): Picture {
    const counted = this.#kernel.counted();
    const table = (name: TableName): Map<string, number> =>
      new Map(this.#kernel.entries(name).map(({ key, value }) => [keyText(name, key), value]));
    return {
      hooks: this.#kernel.hooks(counted),
      tables: { ports: table('ports'), macs: table('macs'), guarded: table('guarded'), devices: table('devices') },
      counted: new Set(counted),
      forwarding: new Set(this.#forwarding.keys()),
    };
  }
  #place(wanted: Want): void {
    for (const { nic, ifindex, bridge } of wanted.placed) this.#cells.place(nic, ifindex, bridge);
    for (const { nic } of wanted.missing) this.#cells.place(nic, 0, this.#cells.nic(nic).bridge);
  }
  readonly #handlers: Handlers = {
    count: ({ ifindex }) => this.#kernel.count(ifindex),
    uncount: ({ ifindex }) => {
      this.#ledger.retire(ifindex);
      this.#kernel.uncount(ifindex);
    },
    put: ({ table, key, value }) => this.#kernel.put(table, keyBytes(table, key), value),
    remove: ({ table, key }) => this.#kernel.remove(table, keyBytes(table, key)),
    hook: ({ hook }) => this.#kernel.hook(hook),
    unhook: ({ hook }) => this.#kernel.unhook(hook),
    forward: ({ entry }) => {
      // After a restart ours can't be told from the operator's: the last daemon made them.
      this.#forwarding.set(entry, this.#kernel.forward(...forwardingParts(entry)) || this.#adopting);
    },
    unforward: ({ entry }) => {
      if (this.#forwarding.get(entry) === true) this.#kernel.unforward(...forwardingParts(entry));
      this.#forwarding.delete(entry);
    },
    wait: () => this.#kernel.passed(),
  };
  async #perform(actions: readonly Action[]): Promise<void> {
    if (actions.length > DEVICES_MAX * 8) throw new Error(`a plan of ${actions.length} steps`);
    for (const action of actions) await perform(this.#handlers, action);
  }

  // --------------------------------------------------------------------------------------- reports

  #reportPorts({ missing, placed }: Want): void {
    const now = new Set(missing.map(({ nic }) => nic));
    const emit = (kind: 'port-lost' | 'port-back', nic: number): void => {
      for (const { id, nics } of this.#groups.values()) {
        const entry = nics.find((candidate) => candidate.nic === nic);
        if (entry !== undefined) this.#emit({ kind, id, member: entry.member, port: entry.port });
      }
    };
    for (const nic of now) if (!this.#lost.has(nic)) emit('port-lost', nic);
    for (const { nic } of placed) if (this.#lost.has(nic)) emit('port-back', nic);
    this.#lost = now;
  }
  #emit(event: GateEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
  /** The same trouble is said once. */
  #trouble(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    if (message !== this.#troubled) this.#emit({ kind: 'trouble', message });
    this.#troubled = message;
  }
  #failure(error: unknown, what: string): Error {
    const fix = error instanceof Error && 'fix' in error && typeof error.fix === 'string' ? error.fix : 'see `sluice doctor`';
    return this.#fail('plane_down', `${what}: ${error instanceof Error ? error.message : String(error)}`, fix, error);
  }
  #inTurn<T>(job: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(job);
    this.#queue = done.catch(() => undefined);
    return done;
  }
}

const leftoverKey = (group: number, mac: string, vlan: number): string => `${group} ${vlan} ${mac}`;
function forwardingParts(entry: string): [number, string] {
  const [ifindex = '', mac = ''] = entry.split(' ');
  return [Number(ifindex), mac];
}
function perform<K extends Action['do']>(handlers: Handlers, action: Extract<Action, { do: K }>): void | Promise<void> {
  return handlers[action.do](action);
}
