/**
 * The twin of classify.bpf.c: the same decisions as functions over plain tables. It is the oracle
 * that the kernel programs are compared with, and the engine of `sluice replay`.
 *
 *   tables + where the frame is + its bytes ─► Decision ─ apply ─► the tables' counters
 *
 * A decision changes nothing; `apply` does to the tables what the kernel does to its cells, so a
 * sequence of frames is decided as the kernel would. Every function here has its namesake there;
 * a difference between the two is a fault in one of them.
 */
import {
  GROUP_NICS_MAX, LEAD_MASK, MARK, MARK_MASK_DEFAULT, MARK_SHIFT_DEFAULT, NIC_FLAG, RESIDUES, STAMP_CLASS,
  serial14, serial32, stampClass, stampColour, stampLead, stampNic, stampPack,
} from './abi.ts';
import type { Mark, Program, Verdict } from './abi.ts';
import { FrameCursor } from './frame.ts';
import type { OuterTag } from './frame.ts';

export interface GroupRow {
  colour: number;
  commit: number;
  holdIfindex: number;
  /** In the order of the kernel's list. */
  nics: readonly number[];
  readonly heldIn: number[];
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
  readonly markMask: number;
  readonly markShift: number;
  /** skb->hash of a frame that `release` let go. */
  readonly releaseHash: number;
}
export function emptyTables(markMask = MARK_MASK_DEFAULT, markShift = MARK_SHIFT_DEFAULT, releaseHash = 0): Tables {
  return {
    groups: new Map(), nics: new Map(), members: new Map(), ports: new Map(), macs: new Map(),
    guarded: new Map(), devices: new Map(), markMask, markShift, releaseHash,
  };
}
export const newGroup = (colour: number, holdIfindex: number, nics: readonly number[]): GroupRow =>
  ({ colour, commit: serial32(colour, 1) >>> 0, holdIfindex, nics, heldIn: new Array<number>(RESIDUES).fill(0) });
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
}
export interface Sent {
  readonly to: number;
  /** Sent to the device's ingress, as if it had arrived there. */
  readonly ingress: boolean;
  readonly mark: number;
}
export type CellCount =
  | { readonly cell: 'heldIn' | 'heldOut' | 'earlyIn' | 'earlyOut'; readonly nic: number }
  | { readonly cell: 'groupHeldIn'; readonly group: number; readonly colour: number };
export type StatCount = 'splitCopies' | 'leakBlocked' | 'unvetted' | 'confined' | 'duplicate' | 'refused' | 'redelivered';

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

/** A decision being made. */
class Draft {
  readonly clones: Sent[] = [];
  readonly cells: CellCount[] = [];
  readonly stats: StatCount[] = [];
  mark: number;
  constructor(mark: number) {
    this.mark = mark;
  }
  clone(to: number, mark: number): void {
    this.clones.push({ to, ingress: false, mark });
  }
  end(answer: 'next' | 'drop', verdict?: Verdict): Decision {
    return { verdict, answer, mark: this.mark, redirect: undefined, clones: this.clones, cells: this.cells, stats: this.stats };
  }
  redirect(to: number, ingress: boolean, verdict?: Verdict): Decision {
    const redirect = { to, ingress, mark: this.mark };
    return { verdict, answer: 'redirect', mark: this.mark, redirect, clones: this.clones, cells: this.cells, stats: this.stats };
  }
  block(counter: StatCount): Decision {
    this.stats.push(counter);
    return this.end('drop');
  }
}

const markField = (t: Tables, mark: number): number => (mark & t.markMask) >>> t.markShift;
const putField = (t: Tables, mark: number, field: Mark): number => ((mark & ~t.markMask) | (field << t.markShift)) >>> 0;
const nicAt = (t: Tables, ifindex: number): NicRow | undefined => t.nics.get(t.ports.get(ifindex) ?? 0);
const flagged = (nic: NicRow, flag: number): boolean => (nic.flags & flag) !== 0;

function memberColour(t: Tables, member: number, groupColour: number): number {
  const own = t.members.get(member) ?? 0;
  return serial32(own, groupColour) > 0 ? own : groupColour;
}

// --------------------------------------------------------------------- member port, ingress

/** A frame of a protected nic. */
interface Origin {
  readonly t: Tables;
  readonly draft: Draft;
  readonly frame: FrameCursor;
  readonly mark: number;
  readonly index: number;
  readonly nic: NicRow;
  readonly group: GroupRow;
  readonly colour: number;
}
const cursor = new FrameCursor();

export function classify(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  const index = t.ports.get(place.ifindex) ?? 0;
  const nic = t.nics.get(index);
  if (nic === undefined) return draft.end('next');
  const field = markField(t, place.mark);
  if ((field === MARK.released || field === MARK.releasedSplit) && (place.hash ?? 0) === t.releaseHash) {
    draft.cells.push({ cell: 'heldOut', nic: index });
    return draft.end('next', 'released');
  }
  if (!flagged(nic, NIC_FLAG.protected)) return draft.end('next', 'pass');
  const group = t.groups.get(nic.group);
  if (group === undefined) return draft.end('drop', 'drop');
  const colour = memberColour(t, nic.member, group.colour);
  return decide({ t, draft, frame: cursor.set(bytes, place.tag), mark: place.mark, index, nic, group, colour });
}

function decide(o: Origin): Decision {
  const { frame, nic } = o;
  if (!frame.hasHeader) return o.draft.end('drop', 'drop');
  if (frame.vlan !== nic.vlan || frame.src !== nic.mac) {
    return flagged(nic, NIC_FLAG.foreignDrop) ? o.draft.end('drop', 'drop') : holdOrPass(o);
  }
  if (frame.isLinkLocal) return holdOrPass(o);
  if (frame.isMulticast) return split(o);
  const dIndex = memberFor(o);
  const d = o.t.nics.get(dIndex);
  if (d !== undefined && d.group === nic.group && flagged(d, NIC_FLAG.protected)) return deliver(o, d, dIndex);
  return holdOrPass(o);
}

/** The nic a unicast frame is for, if it is another one; 0 = outside. */
function memberFor(o: Origin): number {
  const { vlan } = o.frame;
  for (const row of o.t.macs.get(o.frame.dst) ?? []) {
    if (row.bridge === o.nic.bridge && row.vlan === vlan) return row.nic === o.index ? 0 : row.nic;
  }
  return 0;
}

interface Fate {
  readonly verdict: 'early' | 'intra' | 'late' | 'drop';
  readonly lead: number;
}
/** What receiver d is to get now (I2, I3). */
function fateOf(t: Tables, d: NicRow, colour: number, groupColour: number): Fate {
  const ahead = serial32(memberColour(t, d.member, groupColour), colour);
  const queued = d.earlyIn !== d.earlyOut + d.earlyGone;
  if (!flagged(d, NIC_FLAG.ready) || ahead < 0 || queued) return { verdict: 'early', lead: 0 };
  if (ahead > LEAD_MASK) return { verdict: 'drop', lead: 0 };
  return { verdict: ahead === 0 ? 'intra' : 'late', lead: ahead };
}
function earlyStamp(o: Origin, dIndex: number): number {
  o.draft.cells.push({ cell: 'earlyIn', nic: dIndex });
  return stampPack(STAMP_CLASS.early, dIndex, 0, o.colour);
}

function deliver(o: Origin, d: NicRow, dIndex: number): Decision {
  const { draft, t, group } = o;
  const { verdict, lead } = fateOf(t, d, o.colour, group.colour);
  if (verdict === 'drop') return draft.end('drop', 'drop');
  if (verdict === 'early') {
    draft.mark = earlyStamp(o, dIndex);
    return draft.redirect(group.holdIfindex, false, 'early');
  }
  if (verdict === 'late') draft.clone(group.holdIfindex, stampPack(STAMP_CLASS.late, dIndex, lead, o.colour));
  draft.mark = putField(t, o.mark, MARK.intra);
  if (flagged(o.nic, NIC_FLAG.intraBridge)) return draft.end('next', verdict);
  return draft.redirect(d.ifindex, false, verdict);
}

/** A copy to each member now; the original is held for everybody else, or goes on marked. */
function split(o: Origin): Decision {
  const drained = flagged(o.nic, NIC_FLAG.drain) && heldIsEmpty(o.nic);
  for (const dIndex of o.group.nics.slice(0, GROUP_NICS_MAX)) copyTo(o, dIndex);
  if (!drained) return hold(o, 1, 'split');
  o.draft.mark = putField(o.t, o.mark, MARK.releasedSplit);
  return o.draft.end('next', 'split');
}
function copyTo(o: Origin, dIndex: number): void {
  const d = o.t.nics.get(dIndex);
  if (d === undefined || dIndex === o.index || d.group !== o.nic.group) return;
  if (d.bridge !== o.nic.bridge || d.vlan !== o.nic.vlan || !flagged(d, NIC_FLAG.protected)) return;
  const { verdict, lead } = fateOf(o.t, d, o.colour, o.group.colour);
  if (verdict === 'drop') {
    o.draft.stats.push('refused');
    return;
  }
  o.draft.stats.push('splitCopies');
  if (verdict === 'early') {
    o.draft.clone(o.group.holdIfindex, earlyStamp(o, dIndex));
    return;
  }
  if (verdict === 'late') o.draft.clone(o.group.holdIfindex, stampPack(STAMP_CLASS.late, dIndex, lead, o.colour));
  o.draft.clone(d.ifindex, putField(o.t, o.mark, MARK.intra));
}

const heldIsEmpty = (nic: NicRow): boolean => nic.heldIn === nic.heldOut + nic.heldGone;

function hold(o: Origin, lead: 0 | 1, verdict: 'held' | 'split'): Decision {
  o.draft.cells.push({ cell: 'heldIn', nic: o.index }, { cell: 'groupHeldIn', group: o.nic.group, colour: o.colour });
  o.draft.mark = stampPack(STAMP_CLASS.held, o.index, lead, o.colour);
  return o.draft.redirect(o.group.holdIfindex, false, verdict);
}
function holdOrPass(o: Origin): Decision {
  return flagged(o.nic, NIC_FLAG.drain) && heldIsEmpty(o.nic) ? o.draft.end('next', 'pass') : hold(o, 0, 'held');
}

// --------------------------------------------------------------------------------- hold pair

/** `hash`: skb->hash; only what classify stamped goes into the pair. */
export function enter(place: Place, hash: number): Decision {
  const ok = stampClass(place.mark) !== STAMP_CLASS.none && hash === place.mark;
  return new Draft(place.mark).end(ok ? 'next' : 'drop');
}

export function release(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  const stamp = place.mark;
  if (stamp === 0) return draft.end('drop'); // the host's own
  const nic = t.nics.get(stampNic(stamp));
  const group = nic === undefined ? undefined : t.groups.get(nic.group);
  if (nic === undefined || group === undefined || group.holdIfindex !== place.ifindex) return draft.block('refused');
  switch (stampClass(stamp)) {
    case STAMP_CLASS.held:
      return releaseHeld(t, draft, nic, group, stamp);
    case STAMP_CLASS.early:
      return releaseEarly(t, draft, nic, group, stamp);
    case STAMP_CLASS.late:
      draft.stats.push('redelivered');
      draft.mark = putField(t, 0, MARK.intra);
      return draft.redirect(nic.ifindex, false);
    default:
      return draft.block('refused');
  }
}
function releaseHeld(t: Tables, draft: Draft, nic: NicRow, group: GroupRow, stamp: number): Decision {
  if (serial14(stampColour(stamp), group.commit) > 0 && !flagged(nic, NIC_FLAG.drain)) return draft.block('refused');
  draft.mark = putField(t, 0, stampLead(stamp) === 0 ? MARK.released : MARK.releasedSplit);
  return draft.redirect(nic.ifindex, true);
}
function releaseEarly(t: Tables, draft: Draft, d: NicRow, group: GroupRow, stamp: number): Decision {
  const ahead = -serial14(stampColour(stamp), memberColour(t, d.member, group.colour));
  draft.cells.push({ cell: 'earlyOut', nic: stampNic(stamp) });
  if (ahead < 0) return draft.block('refused');
  if (ahead > 0) {
    const lead = Math.min(ahead, LEAD_MASK);
    draft.clone(group.holdIfindex, stampPack(STAMP_CLASS.late, stampNic(stamp), lead, stampColour(stamp)));
  }
  draft.mark = putField(t, 0, MARK.intra);
  draft.clone(d.ifindex, draft.mark);
  return draft.end('drop');
}

// ------------------------------------------------------------------------- bridge ports, egress

const holds = (nic: NicRow | undefined): boolean =>
  nic !== undefined && (nic.flags & (NIC_FLAG.guarded | NIC_FLAG.drain)) === NIC_FLAG.guarded;

export function guard(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  switch (markField(t, place.mark)) {
    case MARK.released:
    case MARK.local:
      return draft.end('next');
    case MARK.releasedSplit:
      return isDuplicate(t, bytes, place) ? draft.block('duplicate') : draft.end('next');
    case MARK.intra:
      if (!staysInside(t, place)) return draft.block('confined');
      draft.mark = putField(t, place.mark, MARK.none);
      return draft.end('next');
  }
  if (place.ingressIfindex !== 0 && !t.devices.get(place.ingressIfindex)) return draft.block('unvetted');
  const bridge = t.devices.get(place.ifindex) ?? 0;
  if (holds(nicAt(t, place.ingressIfindex)) || isGuarded(t, bytes, bridge)) return draft.block('leakBlocked');
  return draft.end('next');
}

function isDuplicate(t: Tables, bytes: Uint8Array, place: Place): boolean {
  const to = nicAt(t, place.ifindex);
  const from = nicAt(t, place.ingressIfindex);
  if (to === undefined || from === undefined || to.group !== from.group || !flagged(to, NIC_FLAG.protected)) return false;
  cursor.set(bytes, place.tag);
  return cursor.hasHeader && cursor.vlan === to.vlan && !cursor.isLinkLocal;
}
function staysInside(t: Tables, place: Place): boolean {
  const to = nicAt(t, place.ifindex);
  if (to === undefined) return false;
  const from = nicAt(t, place.ingressIfindex);
  if (from !== undefined) return from.group === to.group;
  return t.groups.get(to.group)?.holdIfindex === place.ingressIfindex;
}
function isGuarded(t: Tables, bytes: Uint8Array, bridge: number): boolean {
  if (bytes.length < 12) return false;
  return (t.guarded.get(cursor.set(bytes).src) ?? []).some((row) => row.bridge === bridge && holds(t.nics.get(row.nic)));
}

/** The bridge device's own ingress: what the bridge hands to the host. */
export function guardSelf(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  const field = markField(t, place.mark);
  if (field === MARK.released || field === MARK.releasedSplit || field === MARK.local) return draft.end('next');
  if (field === MARK.intra) return draft.block('confined');
  return isGuarded(t, bytes, place.ifindex) ? draft.block('leakBlocked') : draft.end('next');
}

/** The bridge device's egress: the host's own frames. */
export function local(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  if (markField(t, place.mark) === MARK.none) draft.mark = putField(t, place.mark, MARK.local);
  return draft.end('next');
}

/** Any program by name. `sink` drops whatever it sees. */
export function run(program: Program, t: Tables, bytes: Uint8Array, place: Place): Decision {
  switch (program) {
    case 'classify': return classify(t, bytes, place);
    case 'guard': return guard(t, bytes, place);
    case 'guard_self': return guardSelf(t, bytes, place);
    case 'local': return local(t, place);
    case 'release': return release(t, place);
    case 'enter': return enter(place, place.hash ?? 0);
    case 'sink': return new Draft(place.mark).end('drop');
  }
}

/** Does to the tables what the kernel does to its cells. */
export function apply(t: Tables, decision: Decision): void {
  for (const count of decision.cells) {
    if (count.cell === 'groupHeldIn') {
      const cells = t.groups.get(count.group)?.heldIn;
      const slot = count.colour % RESIDUES;
      if (cells !== undefined) cells[slot] = (cells[slot] ?? 0) + 1;
    } else {
      const nic = t.nics.get(count.nic);
      if (nic !== undefined) nic[count.cell] += 1;
    }
  }
}
