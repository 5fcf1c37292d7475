/**
 * Twin of deliver.bpf.h: what a frame's receivers get: now, later, or by the wire (I2, I3). Shared
 * by a member's port (rules.ts) and the uplink (arrive.ts).
 */
import { GROUP_NICS_MAX, LEAD_MASK, MARK, NIC_FLAG, STAMP_CLASS, WIRE_EPOCH_BITS, WIRE_EPOCH_MASK, WIRE_GENERATION_MASK, serial32, stampPack } from './abi.ts';
import { flagged, memberColour, putField } from './tables.ts';
import type { Decision, Draft, GroupRow, NicRow, Tables, WireTags } from './tables.ts';

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
  if (flagged(d, NIC_FLAG.remote)) return sendAway(o, d);
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
  if (flagged(d, NIC_FLAG.remote)) return d.ifindex;
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
const tagsOf = ({ group, colour }: Origin): WireTags =>
  ({ vlan: group.wireVlan, inner: (group.generation << WIRE_EPOCH_BITS) | ((colour - group.base) & WIRE_EPOCH_MASK) });

function sendAway(o: Origin, d: NicRow): Decision {
  if (isClosed(o.group)) return o.draft.end('drop', 'drop');
  o.draft.stats.push('remote');
  o.draft.mark = putField(o.t, o.mark, MARK.intra);
  return o.draft.redirect(d.ifindex, false, 'intra', tagsOf(o));
}
/** One copy for all other hosts; their switch floods it. */
export function copyAway(o: Origin, uplink: number): void {
  if (isClosed(o.group)) return;
  o.draft.stats.push('remote');
  o.draft.clone(uplink, putField(o.t, o.mark, MARK.intra), tagsOf(o));
}
