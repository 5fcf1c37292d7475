/**
 * The three maps that user space has in its memory, as typed cells: groups, nics, members.
 *
 *   group ─ firstNic ─► nic ─ next ─► nic ─ next ─► 0        nics of a group, by rising index
 *
 * The kernel reads them while we write. So: a cell is one aligned 32-bit store; a nic's flags come
 * last when it is made and first when it goes; a list is changed from its tail, and only where it
 * differs, so that a walk in progress sees each nic at most once. Counters are the kernel's (and
 * `*Gone` the hold loop's) and are only cleared for a nic that no program knows yet.
 *
 * Indices 0 are never used. Freed indices are given out last: a late frame finds no new owner.
 */
import { GROUP, GROUPS_MAX, GROUP_NICS_MAX, MEMBER, MEMBERS_MAX, NIC, NICS_MAX, NIC_FLAG, WIRE_CLOSED, WIRE_GENERATION_MASK, serial32 } from './abi.ts';

export interface CellMemory {
  readonly groups: ArrayBuffer;
  readonly nics: ArrayBuffer;
  readonly members: ArrayBuffer;
}
/** The hold pair's ends; frames go nowhere where they are 0. */
export interface PairCells {
  readonly holdIfindex: number;
  readonly ringIfindex: number;
  /** Of its lanes' pair; 0 = it has none. */
  readonly laneIfindex: number;
  readonly exitIfindex: number;
  /** Where the ring is that its frames are taken from; 0 = at ringIfindex. */
  readonly poolIfindex: number;
}
export const NO_LANES = { laneIfindex: 0, exitIfindex: 0 };
export const NO_POOL = { poolHoldIfindex: 0, poolIfindex: 0 };
export const NO_PAIR: PairCells = { holdIfindex: 0, ringIfindex: 0, laneIfindex: 0, exitIfindex: 0, poolIfindex: 0 };
export interface NicCell {
  readonly nic: number;
  readonly group: number;
  readonly member: number;
  readonly ifindex: number;
  readonly bridge: number;
  readonly flags: number;
  readonly vlan: number;
  /** Lower case, colon separated. */
  readonly mac: string;
}

/** Until its first commit a group releases nothing: its bound is as far behind as half of what a
 * stamp's colour can express leaves safe. */
const COMMIT_BEHIND = 4096;

export class Cells {
  readonly #groups: Uint32Array;
  readonly #wires: BigUint64Array;
  readonly #nics: Uint32Array;
  readonly #nicVlans: Uint16Array;
  readonly #nicBytes: Uint8Array;
  readonly #nicCounts: BigUint64Array;
  readonly #members: Uint32Array;
  readonly #usedNics = new Set<number>();
  readonly #usedMembers = new Set<number>();
  #lastNic = 0;
  #lastMember = 0;

  constructor(memory: CellMemory) {
    this.#groups = new Uint32Array(memory.groups);
    this.#wires = new BigUint64Array(memory.groups);
    this.#nics = new Uint32Array(memory.nics);
    this.#nicVlans = new Uint16Array(memory.nics);
    this.#nicBytes = new Uint8Array(memory.nics);
    this.#nicCounts = new BigUint64Array(memory.nics);
    this.#members = new Uint32Array(memory.members);
    for (const cell of this.adopted()) {
      this.#usedNics.add(cell.nic);
      this.#usedMembers.add(cell.member);
    }
  }

  /** Nics that an earlier daemon left. */
  adopted(): NicCell[] {
    const found: NicCell[] = [];
    for (let nic = 1; nic < NICS_MAX; nic += 1) {
      if (this.#read(nic, NIC.member) !== 0) found.push(this.nic(nic));
    }
    return found;
  }
  nic(nic: number): NicCell {
    const at = nic * NIC.size + NIC.mac;
    return {
      nic,
      group: this.#read(nic, NIC.group),
      member: this.#read(nic, NIC.member),
      ifindex: this.#read(nic, NIC.ifindex),
      bridge: this.#read(nic, NIC.bridge),
      flags: this.#read(nic, NIC.flags),
      vlan: this.#nicVlans[(nic * NIC.size + NIC.vlan) >> 1] ?? 0,
      mac: Buffer.from(this.#nicBytes.subarray(at, at + 6)).toString('hex').replace(/(..)(?!$)/g, '$1:'),
    };
  }

  newMember(): number {
    const index = nextFree(this.#usedMembers, this.#lastMember, MEMBERS_MAX);
    this.#lastMember = index;
    return index;
  }
  /** A nic no program knows yet: counters at zero, flags 0. */
  newNic(cell: Pick<NicCell, 'group' | 'member' | 'vlan' | 'mac'>): number {
    const nic = nextFree(this.#usedNics, this.#lastNic, NICS_MAX);
    this.#lastNic = nic;
    this.#nicCounts.fill(0n, (nic * NIC.size + NIC.heldIn) >> 3, ((nic + 1) * NIC.size) >> 3);
    this.#write(nic, NIC.flags, 0);
    this.#write(nic, NIC.next, 0);
    this.#write(nic, NIC.group, cell.group);
    this.#nicVlans[(nic * NIC.size + NIC.vlan) >> 1] = cell.vlan;
    this.#nicBytes.set(Buffer.from(cell.mac.replaceAll(':', ''), 'hex'), nic * NIC.size + NIC.mac);
    this.#write(nic, NIC.member, cell.member);
    return nic;
  }
  /** After no program can reach it any more. */
  freeNic(nic: number): void {
    this.#write(nic, NIC.member, 0); // first: by that the hold loop tells a nic whose group is one
    for (let at = 0; at < NIC.size; at += 4) this.#write(nic, at, 0);
    this.#usedNics.delete(nic);
  }
  freeMember(member: number): void {
    this.#members[(member * MEMBER.size) >> 2] = 0;
    this.#usedMembers.delete(member);
  }
  place(nic: number, ifindex: number, bridge: number): void {
    this.#write(nic, NIC.bridge, bridge);
    this.#write(nic, NIC.ifindex, ifindex);
  }
  setFlags(nic: number, flags: number): void {
    this.#write(nic, NIC.flags, flags);
  }
  flags(nic: number): number {
    return this.#read(nic, NIC.flags);
  }
  hasFlag(nic: number, flag: keyof typeof NIC_FLAG): boolean {
    return (this.flags(nic) & NIC_FLAG[flag]) !== 0;
  }

  /** Makes these, by rising index, the group's list. */
  link(group: number, nics: readonly number[]): void {
    if (nics.length > GROUP_NICS_MAX) throw new Error(`a group has at most ${GROUP_NICS_MAX} nics`);
    let next = 0;
    for (const nic of [...nics].sort((a, b) => b - a)) {
      if (this.#read(nic, NIC.next) !== next) this.#write(nic, NIC.next, next);
      next = nic;
    }
    this.#writeGroup(group, GROUP.firstNic, next);
  }
  openGroup(group: number, pair: PairCells, colour: number): void {
    if (group < 0 || group >= GROUPS_MAX) throw new Error(`group ${group} of ${GROUPS_MAX}`);
    this.setWire(group, undefined);
    this.#writeGroup(group, GROUP.commit, (colour - COMMIT_BEHIND) >>> 0);
    this.#writeGroup(group, GROUP.colour, colour);
    this.setHold(group, pair);
  }
  holdIfindex(group: number): number {
    return this.#groups[(group * GROUP.size + GROUP.holdIfindex) >> 2] ?? 0;
  }
  poolIfindex(group: number): number {
    return this.#groups[(group * GROUP.size + GROUP.poolIfindex) >> 2] ?? 0;
  }
  laneIfindex(group: number): number {
    return this.#groups[(group * GROUP.size + GROUP.laneIfindex) >> 2] ?? 0;
  }
  /** Whoever may come out of a lane is known before anybody may go in. */
  setHold(group: number, { holdIfindex, ringIfindex, laneIfindex, exitIfindex, poolIfindex }: PairCells): void {
    if (laneIfindex === 0) this.#writeGroup(group, GROUP.laneIfindex, 0);
    this.#writeGroup(group, GROUP.exitIfindex, exitIfindex);
    this.#writeGroup(group, GROUP.laneIfindex, laneIfindex);
    this.#writeGroup(group, GROUP.poolIfindex, poolIfindex);
    this.#writeGroup(group, GROUP.ringIfindex, ringIfindex);
    this.#writeGroup(group, GROUP.holdIfindex, holdIfindex);
  }
  closeGroup(group: number): void {
    this.setWire(group, undefined);
    this.setRoute(group, 0, 0);
    this.setTunnel(group, 0, 0, 0);
    this.#writeGroup(group, GROUP.firstNic, 0);
    this.setHold(group, NO_PAIR);
  }
  setColour(group: number, colour: number): void {
    this.#writeGroup(group, GROUP.colour, colour);
  }
  /** One store. Closed, or undefined: nothing is sent to other hosts, and nothing from them fits. */
  setWire(group: number, wire: { readonly generation: number; readonly base: number; readonly closed: boolean } | undefined): void {
    const generation = wire === undefined || wire.closed ? WIRE_CLOSED : wire.generation & WIRE_GENERATION_MASK;
    this.#wires[(group * GROUP.size + GROUP.wire) >> 3] = (BigInt(generation) << 32n) | BigInt((wire?.base ?? 0) >>> 0);
  }
  /** Where frames to other hosts leave, 0 = nowhere, and under which outer VLAN id. */
  setRoute(group: number, vlan: number, uplink: number): void {
    this.#writeGroup(group, GROUP.wireVlan, vlan);
    this.#writeGroup(group, GROUP.uplink, uplink);
  }
  /** By VXLAN: the device, 0 = none; the group's VNI; this host's own address there. */
  setTunnel(group: number, tunnel: number, vni: number, here: number): void {
    this.#writeGroup(group, GROUP.vni, vni);
    this.#writeGroup(group, GROUP.here, here);
    this.#writeGroup(group, GROUP.tunnel, tunnel);
  }
  setCommit(group: number, colour: number): void {
    this.#writeGroup(group, GROUP.commit, colour);
  }
  setMemberColour(member: number, colour: number): void {
    this.#members[(member * MEMBER.size) >> 2] = colour;
  }
  /** Its effective colour: the later of the two. */
  memberColour(group: number, member: number): number {
    const shared = this.#groups[(group * GROUP.size + GROUP.colour) >> 2] ?? 0;
    const own = this.#members[(member * MEMBER.size) >> 2] ?? 0;
    return serial32(own, shared) > 0 ? own : shared;
  }

  #read(nic: number, field: number): number {
    return this.#nics[(nic * NIC.size + field) >> 2] ?? 0;
  }
  #write(nic: number, field: number, value: number): void {
    this.#nics[(nic * NIC.size + field) >> 2] = value;
  }
  #writeGroup(group: number, field: number, value: number): void {
    this.#groups[(group * GROUP.size + field) >> 2] = value;
  }
}

function nextFree(used: Set<number>, last: number, bound: number): number {
  for (let step = 1; step < bound; step += 1) {
    const index = ((last + step - 1) % (bound - 1)) + 1;
    if (!used.has(index)) {
      used.add(index);
      return index;
    }
  }
  throw new Error(`all ${bound - 1} are in use`);
}
