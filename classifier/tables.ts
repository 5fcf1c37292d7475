/**
 * What the twin decides over and what a decision is: rows of the kernel's maps as plain tables, where
 * a frame is when a program sees it, and what the program says. Nothing here decides.
 */
import { MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, RESIDUES, WIRE_CLOSED, serial32 } from './abi.ts';
import type { Mark, Verdict } from './abi.ts';
import type { OuterTag } from './frame.ts';

export interface GroupRow {
  colour: number;
  commit: number;
  holdIfindex: number;
  /** 0 = nothing leaves from the ring's side at once. */
  ringIfindex: number;
  /** Of its lanes' pair; 0 = it has none. */
  laneIfindex: number;
  exitIfindex: number;
  /** Where what comes to the ring's side goes on to; 0 = its ring is there. */
  poolIfindex: number;
  /** By colour modulo LANES; absent = none. */
  readonly lanes: ReadonlyMap<number, LaneRow>;
  /** In the order of the kernel's list. */
  nics: readonly number[];
  readonly heldIn: number[];
  /** Between hosts: four bits, or WIRE_CLOSED. */
  generation: number;
  /** Colour of epoch 0. */
  base: number;
  /** The group's outer VLAN id, 0 = a group of one host. */
  wireVlan: number;
  uplink: number;
  /** The VXLAN device where wireVlan is 0; 0 = there is none. */
  tunnel: number;
  vni: number;
  /** This host's own address there. */
  here: number;
}
export interface LaneRow {
  state: number;
  colour: number;
}
export interface NicRow {
  ifindex: number;
  bridge: number;
  group: number;
  member: number;
  flags: number;
  vlan: number;
  mac: number;
  heldIn: number;
  heldOut: number;
  earlyIn: number;
  earlyOut: number;
  heldGone: number;
  earlyGone: number;
}
/** `macs` and `guarded` are searched by MAC first: few nics share one. */
export interface MacRow {
  readonly bridge: number;
  readonly vlan: number;
  readonly nic: number;
}
export interface Tables {
  readonly groups: Map<number, GroupRow>;
  readonly nics: Map<number, NicRow>;
  /** Own colour by member index. */
  readonly members: Map<number, number>;
  readonly ports: Map<number, number>;
  readonly macs: Map<number, readonly MacRow[]>;
  /** `vlan` plays no part. */
  readonly guarded: Map<number, readonly MacRow[]>;
  readonly devices: Map<number, number>;
  /** Group by outer VLAN id. */
  readonly wires: Map<number, number>;
  /** Group by VNI. */
  readonly vnis: Map<number, number>;
  /** Address of a nic's host, of groups by VXLAN. */
  readonly peers: Map<number, number>;
  readonly markMask: number;
  readonly markShift: number;
  /** skb->hash of a frame that `release` let go. */
  readonly releaseHash: number;
}
export function emptyTables(markMask = MARK_MASK_DEFAULT, markShift = MARK_SHIFT_DEFAULT, releaseHash = 0): Tables {
  return {
    groups: new Map(), nics: new Map(), members: new Map(), ports: new Map(), macs: new Map(),
    guarded: new Map(), devices: new Map(), wires: new Map(), vnis: new Map(), peers: new Map(), markMask, markShift, releaseHash,
  };
}
export const newGroup = (colour: number, holdIfindex: number, nics: readonly number[]): GroupRow =>
  ({ colour, commit: serial32(colour, 1) >>> 0, holdIfindex, ringIfindex: 0, laneIfindex: 0, exitIfindex: 0, poolIfindex: 0, lanes: new Map(), nics, heldIn: new Array<number>(RESIDUES).fill(0), generation: WIRE_CLOSED, base: 0, wireVlan: 0, uplink: 0, tunnel: 0, vni: 0, here: 0 });
export const newNic = (place: Pick<NicRow, 'ifindex' | 'bridge' | 'group' | 'member' | 'flags' | 'vlan' | 'mac'>): NicRow =>
  ({ ...place, heldIn: 0, heldOut: 0, earlyIn: 0, earlyOut: 0, heldGone: 0, earlyGone: 0 });

/** Where a frame is when a program sees it. */
export interface Place {
  readonly ifindex: number;
  /** The device it was received at, 0 = sent by the host. */
  readonly ingressIfindex: number;
  readonly mark: number;
  /** skb->hash; absent = 0, as a frame has that nobody looked at. */
  readonly hash?: number;
  readonly tag?: OuterTag;
  /** What stood in the outer headers of a frame that came by VXLAN. */
  readonly tunnel?: Tunnel;
}
/** VXLAN's headers as the kernel tells and is told them. Addresses are IPv4. */
export interface Tunnel {
  readonly vni: number;
  readonly from: number;
  readonly to: number;
  /** The policy id and its flags; absent = the frame has none. */
  readonly gbp?: number;
}
export interface Sent {
  readonly to: number;
  /** Sent to the device's ingress, as if it had arrived there. */
  readonly ingress: boolean;
  readonly mark: number;
  /** Put on before it is sent. */
  readonly tags?: WireTags;
  readonly tunnel?: Tunnel;
}
/** What a frame carries between hosts. */
export interface WireTags {
  readonly vlan: number;
  readonly inner: number;
}
export type CellCount =
  | { readonly cell: 'heldIn' | 'heldOut' | 'earlyIn' | 'earlyOut'; readonly nic: number }
  | { readonly cell: 'groupHeldIn'; readonly group: number; readonly colour: number };
export type StatCount = 'splitCopies' | 'leakBlocked' | 'unvetted' | 'confined' | 'duplicate' | 'refused' | 'redelivered'
  | 'remote' | 'stale' | 'unknown' | 'foreign' | 'elsewhere' | 'skewed' | 'forged';

export interface Decision {
  /** Only classify gives one, and only at a member's port. */
  readonly verdict: Verdict | undefined;
  readonly answer: 'next' | 'drop' | 'redirect';
  /** skb->mark afterwards. */
  readonly mark: number;
  /** Where `answer` is redirect. */
  readonly redirect: Sent | undefined;
  /** Copies sent on the way, in order. */
  readonly clones: readonly Sent[];
  readonly cells: readonly CellCount[];
  readonly stats: readonly StatCount[];
}

/** What is put around a frame to another host. */
type By = Pick<Sent, 'tags' | 'tunnel'>;

/** A decision being made. */
export class Draft {
  readonly clones: Sent[] = [];
  readonly cells: CellCount[] = [];
  readonly stats: StatCount[] = [];
  mark: number;
  constructor(mark: number) {
    this.mark = mark;
  }
  clone(to: number, mark: number, by: By = {}): void {
    this.clones.push({ to, ingress: false, mark, ...by });
  }
  end(answer: 'next' | 'drop', verdict?: Verdict): Decision {
    return { verdict, answer, mark: this.mark, redirect: undefined, clones: this.clones, cells: this.cells, stats: this.stats };
  }
  redirect(to: number, ingress: boolean, verdict?: Verdict, by: By = {}): Decision {
    const redirect = { to, ingress, mark: this.mark, ...by };
    return { verdict, answer: 'redirect', mark: this.mark, redirect, clones: this.clones, cells: this.cells, stats: this.stats };
  }
  block(counter: StatCount, verdict?: Verdict): Decision {
    this.stats.push(counter);
    return this.end('drop', verdict);
  }
}

export const markField = (t: Tables, mark: number): number => (mark & t.markMask) >>> t.markShift;
export const putField = (t: Tables, mark: number, field: Mark): number => ((mark & ~t.markMask) | (field << t.markShift)) >>> 0;
export const nicAt = (t: Tables, ifindex: number): NicRow | undefined => t.nics.get(t.ports.get(ifindex) ?? 0);
export const flagged = (nic: NicRow, flag: number): boolean => (nic.flags & flag) !== 0;

export function memberColour(t: Tables, member: number, groupColour: number): number {
  const own = t.members.get(member) ?? 0;
  return serial32(own, groupColour) > 0 ? own : groupColour;
}

/** The nic at this address; 0 = none. */
export const nicBy = (t: Tables, bridge: number, vlan: number, mac: number): number =>
  (t.macs.get(mac) ?? []).find((row) => row.bridge === bridge && row.vlan === vlan)?.nic ?? 0;
