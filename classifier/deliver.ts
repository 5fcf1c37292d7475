/**
 * Twin of deliver.bpf.h: what a frame's receivers get: now, later, or by the wire (I2, I3). Shared
 * by a member's port (rules.ts) and the uplink (arrive.ts).
 */
import { GROUP_NICS_MAX, LEAD_MASK, MARK, NIC_FLAG, STAMP_CLASS, WIRE_EPOCH_BITS, WIRE_EPOCH_MASK, WIRE_GBP, WIRE_GENERATION_MASK, serial32, stampPack } from './abi.ts';
import type { FrameCursor } from './frame.ts';
import { flagged, memberColour, putField } from './tables.ts';
import type { Decision, Draft, GroupRow, NicRow, Tables, Tunnel, WireTags } from './tables.ts';

/** A frame of a protected nic, seen at its port or come by the wire. */
export interface Origin {
  readonly t: Tables;
  readonly draft: Draft;
  readonly mark: number;
  /** Of its nic; 0 = it came by the wire. */
  readonly index: number;
  readonly bridge: number;
  readonly vlan: number;
  readonly groupId: number;
  readonly group: GroupRow;
  readonly colour: number;
}

interface Fate {
  readonly verdict: 'early' | 'intra' | 'late' | 'drop';
  readonly lead: number;
}
/** What receiver d is to get now (I2, I3). */
function fateOf(t: Tables, d: NicRow, colour: number, groupColour: number): Fate {
  const ahead = serial32(memberColour(t, d.member, groupColour), colour);
  const queued = d.earlyIn !== d.earlyOut + d.earlyGone;
  if (ahead > LEAD_MASK) return { verdict: 'drop', lead: 0 };
  if (!flagged(d, NIC_FLAG.ready) || ahead < 0 || queued) return { verdict: 'early', lead: 0 };
  return { verdict: ahead === 0 ? 'intra' : 'late', lead: ahead };
}
function earlyStamp(o: Origin, dIndex: number): number {
  o.draft.cells.push({ cell: 'earlyIn', nic: dIndex });
  return stampPack(STAMP_CLASS.early, dIndex, 0, o.colour);
}

/** `viaBridge`: its sender's intra frames go marked through the bridge. */
export function deliver(o: Origin, d: NicRow, dIndex: number, viaBridge: boolean): Decision {
  if (flagged(d, NIC_FLAG.remote)) return sendAway(o, d, dIndex);
  const { draft, t, group } = o;
  const { verdict, lead } = fateOf(t, d, o.colour, group.colour);
  if (verdict === 'drop') return draft.block('skewed', 'drop');
  if (verdict === 'early') {
    draft.mark = earlyStamp(o, dIndex);
    return draft.redirect(group.holdIfindex, false, 'early');
  }
  if (verdict === 'late') draft.clone(group.holdIfindex, stampPack(STAMP_CLASS.late, dIndex, lead, o.colour));
  draft.mark = putField(t, o.mark, MARK.intra);
  if (viaBridge) return draft.end('next', verdict);
  return draft.redirect(d.ifindex, false, verdict);
}

/** A copy to each fellow here. Returns the uplink where fellows live elsewhere, else 0. */
export function copies(o: Origin): number {
  let uplink = 0;
  for (const dIndex of o.group.nics.slice(0, GROUP_NICS_MAX)) uplink = copyTo(o, dIndex) ?? uplink;
  return uplink;
}
function copyTo(o: Origin, dIndex: number): number | undefined {
  const d = o.t.nics.get(dIndex);
  if (d === undefined || dIndex === o.index || d.group !== o.groupId) return undefined;
  if (d.bridge !== o.bridge || d.vlan !== o.vlan || !flagged(d, NIC_FLAG.protected)) return undefined;
  if (flagged(d, NIC_FLAG.remote)) {
    if (!flagged(d, NIC_FLAG.first)) return d.ifindex;
    copyOver(o, dIndex);
    return undefined;
  }
  const { verdict, lead } = fateOf(o.t, d, o.colour, o.group.colour);
  if (verdict === 'drop') {
    o.draft.stats.push('skewed');
    return undefined;
  }
  o.draft.stats.push('splitCopies');
  if (verdict === 'early') {
    o.draft.clone(o.group.holdIfindex, earlyStamp(o, dIndex));
    return undefined;
  }
  if (verdict === 'late') o.draft.clone(o.group.holdIfindex, stampPack(STAMP_CLASS.late, dIndex, lead, o.colour));
  o.draft.clone(d.ifindex, putField(o.t, o.mark, MARK.intra));
  return undefined;
}

// ---------------------------------------------------------------------------------- by the wire

const isClosed = (group: GroupRow): boolean => group.generation > WIRE_GENERATION_MASK;

/** What a frame of this colour carries to other hosts. */
const innerOf = ({ group, colour }: Origin): number => (group.generation << WIRE_EPOCH_BITS) | ((colour - group.base) & WIRE_EPOCH_MASK);
const tagsOf = (o: Origin): WireTags => ({ vlan: o.group.wireVlan, inner: innerOf(o) });
/** To the host of nic `dIndex`; undefined = the way there is not known. */
function tunnelOf(o: Origin, dIndex: number): Tunnel | undefined {
  const to = o.t.peers.get(dIndex);
  return to === undefined || o.group.tunnel === 0 ? undefined : { vni: o.group.vni, from: o.group.here, to, gbp: WIRE_GBP | innerOf(o) };
}

function sendAway(o: Origin, d: NicRow, dIndex: number): Decision {
  const tags = o.group.wireVlan === 0 ? undefined : tagsOf(o);
  const tunnel = tags === undefined ? tunnelOf(o, dIndex) : undefined;
  if (isClosed(o.group) || (tags === undefined && tunnel === undefined)) return o.draft.end('drop', 'drop');
  o.draft.stats.push('remote');
  o.draft.mark = putField(o.t, o.mark, MARK.intra);
  return tunnel === undefined ? o.draft.redirect(d.ifindex, false, 'intra', { tags: tagsOf(o) }) : o.draft.redirect(o.group.tunnel, false, 'intra', { tunnel });
}
/**
 * One copy for all other hosts; their switch floods it. False = the frame itself is lost: when the two
 * tags are off again, its own tag goes beside it, and that needs a whole one.
 */
export function copyAway(o: Origin, uplink: number, frame: FrameCursor): boolean {
  if (isClosed(o.group) || o.group.wireVlan === 0) return true;
  o.draft.stats.push('remote');
  o.draft.clone(uplink, putField(o.t, o.mark, MARK.intra), { tags: tagsOf(o) });
  if (!frame.isTagTorn) return true;
  o.draft.mark = putField(o.t, o.mark, MARK.intra);
  return false;
}
/**
 * One copy by VXLAN, to all of a host's nics: there is no switch that would flood it. What came from
 * another host goes to none: its own sends to all.
 */
function copyOver(o: Origin, dIndex: number): void {
  const tunnel = o.index === 0 || isClosed(o.group) ? undefined : tunnelOf(o, dIndex);
  if (tunnel === undefined) return;
  o.draft.stats.push('remote');
  o.draft.clone(o.group.tunnel, putField(o.t, o.mark, MARK.intra), { tunnel });
}
