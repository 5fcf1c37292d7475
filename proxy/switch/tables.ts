/**
 * The twin's tables over the shared cells, and over what the gate puts.
 *
 *   groups, nics, members   rows that read the cells at each look: a store of the daemon is seen by
 *                           the next frame, at all ports at once (a cut is one store)
 *   ports, macs, guarded, devices   filled by put and remove, as the gate fills the kernel's maps
 *   counters                of groups and nics in their cells, of devices in their slots
 *
 * A 64-bit counter is two words here, the low one first; only this process writes them.
 */
import { CELLS, GROUP, GROUPS_MAX, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, MEMBER, NIC, NICS_MAX, RESIDUES, STATS, VERDICTS, WIRE_CLOSED } from '../../classifier/abi.ts';
import type { Verdict } from '../../classifier/abi.ts';
import { macParse } from '../../classifier/frame.ts';
import { isNumber, keyText } from '../../classifier/keys.ts';
import type { TableName } from '../../classifier/plan.ts';
import { apply } from '../../classifier/rules.ts';
import type { Decision, GroupRow, LaneRow, MacRow, NicRow, StatCount, Tables } from '../../classifier/rules.ts';
import type { Shared } from './layout.ts';

function add64(words: Uint32Array, at: number, by: number): void {
  const low = words[at]! + by;
  words[at] = low;
  if (low > 0xffff_ffff) words[at + 1] = words[at + 1]! + 1;
}

class Group implements GroupRow {
  /** Counted here by the twin, and written to the cells by `Cells.count`. */
  readonly heldIn: number[] = new Array<number>(RESIDUES).fill(0);
  readonly #words: Uint32Array;
  readonly #nics: Uint32Array;

  constructor(id: number, shared: Shared) {
    this.#words = new Uint32Array(shared.groups, id * GROUP.size, GROUP.size >> 2);
    this.#nics = new Uint32Array(shared.nics);
  }
  get colour(): number {
    return this.#words[GROUP.colour >> 2]!;
  }
  get commit(): number {
    return this.#words[GROUP.commit >> 2]!;
  }
  get holdIfindex(): number {
    return this.#words[GROUP.holdIfindex >> 2]!;
  }
  /** This plane's queue is no device. */
  readonly ringIfindex = 0;
  readonly laneIfindex = 0;
  readonly exitIfindex = 0;
  readonly poolIfindex = 0;
  readonly lanes: ReadonlyMap<number, LaneRow> = new Map();
  /** This plane has no uplink to other hosts. */
  readonly generation = WIRE_CLOSED;
  readonly base = 0;
  readonly wireVlan = 0;
  readonly uplink = 0;
  readonly tunnel = 0;
  readonly vni = 0;
  readonly here = 0;
  get nics(): readonly number[] {
    const list: number[] = [];
    for (let nic = this.#words[GROUP.firstNic >> 2]!; nic !== 0 && list.length < NICS_MAX; nic = this.#nics[(nic * NIC.size + NIC.next) >> 2]!) list.push(nic);
    return list;
  }
  countHeld(residue: number): void {
    add64(this.#words, (GROUP.heldIn >> 2) + 2 * residue, 1);
  }
}

class Nic implements NicRow {
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;

  constructor(nic: number, shared: Shared) {
    this.#words = new Uint32Array(shared.nics, nic * NIC.size, NIC.size >> 2);
    this.#halves = new Uint16Array(shared.nics, nic * NIC.size, NIC.size >> 1);
  }
  #get64(at: number): number {
    return this.#words[at >> 2]! + this.#words[(at >> 2) + 1]! * 2 ** 32;
  }
  #set64(at: number, value: number): void {
    this.#words[at >> 2] = value % 2 ** 32;
    this.#words[(at >> 2) + 1] = Math.floor(value / 2 ** 32);
  }
  get ifindex(): number { return this.#words[NIC.ifindex >> 2]!; }
  get bridge(): number { return this.#words[NIC.bridge >> 2]!; }
  get group(): number { return this.#words[NIC.group >> 2]!; }
  get member(): number { return this.#words[NIC.member >> 2]!; }
  get flags(): number { return this.#words[NIC.flags >> 2]!; }
  get vlan(): number { return this.#halves[NIC.vlan >> 1]!; }
  get mac(): number {
    const at = NIC.mac >> 1; // on the wire's order, read as halves of this machine's
    const swap = (half: number): number => ((half & 0xff) << 8) | (half >>> 8);
    return swap(this.#halves[at]!) * 2 ** 32 + swap(this.#halves[at + 1]!) * 2 ** 16 + swap(this.#halves[at + 2]!);
  }
  get heldIn(): number { return this.#get64(NIC.heldIn); }
  set heldIn(value: number) { this.#set64(NIC.heldIn, value); }
  get heldOut(): number { return this.#get64(NIC.heldOut); }
  set heldOut(value: number) { this.#set64(NIC.heldOut, value); }
  get earlyIn(): number { return this.#get64(NIC.earlyIn); }
  set earlyIn(value: number) { this.#set64(NIC.earlyIn, value); }
  get earlyOut(): number { return this.#get64(NIC.earlyOut); }
  set earlyOut(value: number) { this.#set64(NIC.earlyOut, value); }
  get heldGone(): number { return this.#get64(NIC.heldGone); }
  get earlyGone(): number { return this.#get64(NIC.earlyGone); }
}

/** Looked up, and nothing else: a member's own colour is in its cell. */
class MemberColours extends Map<number, number> {
  readonly #cells: Uint32Array;
  constructor(shared: Shared) {
    super();
    this.#cells = new Uint32Array(shared.members);
  }
  override get(member: number): number | undefined {
    return this.#cells[(member * MEMBER.size) >> 2];
  }
}

/** A key of `macs` or `guarded`: `bridge vlan mac`. */
function macKeyOf(text: string): { readonly mac: number; readonly bridge: number; readonly vlan: number } {
  const [bridge, vlan, mac] = text.split(' ');
  return { bridge: Number(bridge), vlan: Number(vlan), mac: macParse(mac ?? '') };
}

export class SharedTables implements Tables {
  readonly groups: Map<number, Group>;
  readonly nics: Map<number, Nic>;
  readonly members: MemberColours;
  readonly ports = new Map<number, number>();
  readonly macs = new Map<number, readonly MacRow[]>();
  readonly guarded = new Map<number, readonly MacRow[]>();
  readonly devices = new Map<number, number>();
  readonly wires = new Map<number, number>();
  readonly vnis = new Map<number, number>();
  readonly peers = new Map<number, number>();
  readonly markMask = MARK_MASK_DEFAULT;
  readonly markShift = MARK_SHIFT_DEFAULT;
  /** Inside one process nobody else sets marks: what carries one is ours. */
  readonly releaseHash = 1;
  readonly #stats: Uint32Array;
  readonly #slots = new Map<number, number>();

  constructor(shared: Shared) {
    this.groups = new Map(Array.from({ length: GROUPS_MAX }, (_, id) => [id, new Group(id, shared)]));
    this.nics = new Map(Array.from({ length: CELLS.nics.entries - 1 }, (_, i) => [i + 1, new Nic(i + 1, shared)]));
    this.members = new MemberColours(shared);
    this.#stats = new Uint32Array(shared.stats);
  }

  put(table: TableName, key: Uint8Array, value: number): void {
    const text = keyText(table, key);
    if (isNumber(table)) this[table].set(Number(text), value);
    else {
      const { mac, bridge, vlan } = macKeyOf(text);
      this[table].set(mac, [...this.#without(table, mac, bridge, vlan), { bridge, vlan, nic: value }]);
    }
  }
  remove(table: TableName, key: Uint8Array): void {
    const text = keyText(table, key);
    if (isNumber(table)) {
      this[table].delete(Number(text));
      return;
    }
    const { mac, bridge, vlan } = macKeyOf(text);
    const rest = this.#without(table, mac, bridge, vlan);
    if (rest.length === 0) this[table].delete(mac);
    else this[table].set(mac, rest);
  }
  #without(table: 'macs' | 'guarded', mac: number, bridge: number, vlan: number): readonly MacRow[] {
    return (this[table].get(mac) ?? []).filter((row) => row.bridge !== bridge || row.vlan !== vlan);
  }

  /** The device's counters are slot `slot` from now on. */
  counted(ifindex: number, slot: number): void {
    this.#slots.set(ifindex, slot);
  }
  uncounted(ifindex: number): void {
    this.#slots.delete(ifindex);
  }

  /** Everything a decision at this device counts. */
  count(decision: Decision, ifindex: number, bytes: number): void {
    apply(this, decision);
    for (const count of decision.cells) {
      if (count.cell === 'groupHeldIn') this.groups.get(count.group)?.countHeld(count.colour % RESIDUES);
    }
    const slot = this.#slots.get(ifindex);
    if (slot === undefined) return;
    const base = (slot * STATS.size) >> 2;
    if (decision.verdict !== undefined) this.#countVerdict(base, decision.verdict, bytes);
    for (const stat of decision.stats) this.#countStat(base, stat);
  }
  #countVerdict(base: number, verdict: Verdict, bytes: number): void {
    const at = base + ((STATS.verdict + VERDICTS.indexOf(verdict) * STATS.countSize) >> 2);
    add64(this.#stats, base + (STATS.in >> 2), 1);
    add64(this.#stats, base + (STATS.in >> 2) + 2, bytes);
    add64(this.#stats, at, 1);
    add64(this.#stats, at + 2, bytes);
  }
  #countStat(base: number, stat: StatCount): void {
    add64(this.#stats, base + (STATS[stat] >> 2), 1);
  }
}
