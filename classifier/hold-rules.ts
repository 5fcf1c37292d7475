/** Twin of hold.bpf.h: what may go into the hold pair, and what may come out again, where to. */
import { LANES, LANE_STATE, LEAD, LEAD_DELIVERED, LEAD_MASK, LEAD_SHIFT, MARK, MARKER, NIC_FLAG, STAMP_CLASS, serial14, stampClass, stampColour, stampLead, stampNic, stampPack } from './abi.ts';
import { Draft, flagged, memberColour, putField } from './tables.ts';
import type { Decision, GroupRow, NicRow, Place, Tables } from './tables.ts';

/** `hash`: skb->hash; only what classify stamped goes into the pair. */
export function enter(place: Place, hash: number): Decision {
  const ok = stampClass(place.mark) !== STAMP_CLASS.none && hash === place.mark;
  return new Draft(place.mark).end(ok ? 'next' : 'drop');
}

/** At the ring's side: a ring there has its copy, and a group without one has its frame sent on to the pool's. */
export function sink(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  const nic = t.nics.get(stampNic(place.mark));
  const group = nic === undefined ? undefined : t.groups.get(nic.group);
  const pool = group?.ringIfindex === place.ifindex ? group.poolIfindex : 0;
  return pool === 0 ? draft.end('drop') : draft.redirect(pool, true);
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
      return mayLeave(nic, group, stamp) ? letOut(t, draft, nic, stamp) : draft.block('refused');
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

/** At the ring's side: what was held and may leave takes the short way; everything else goes on to `release`. */
export function express(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  const nic = t.nics.get(stampNic(place.mark));
  const group = nic === undefined ? undefined : t.groups.get(nic.group);
  const short = nic !== undefined && group !== undefined && stampClass(place.mark) === STAMP_CLASS.held
    && group.ringIfindex === place.ifindex && mayLeave(nic, group, place.mark);
  return short ? letOut(t, draft, nic, place.mark) : draft.end('next');
}

const isMarker = (mark: number): boolean => mark >>> MARKER.shift === MARKER.marker;

/** Into a lane; which one is the queue's affair, and what the twin says of it. */
export function board(t: Tables, place: Place, hash: number): Decision {
  const draft = new Draft(place.mark);
  const stamp = place.mark;
  if (isMarker(stamp)) return draft.end('next');
  const nic = t.nics.get(stampNic(stamp));
  const group = nic === undefined ? undefined : t.groups.get(nic.group);
  if (stampClass(stamp) !== STAMP_CLASS.held || hash !== stamp || group === undefined) return draft.end('drop');
  return group.laneIfindex === place.ifindex && isLane(group, stamp, LANE_STATE.filling) ? draft.end('next') : draft.redirect(group.holdIfindex, false);
}

/** Out of a lane: on its way, if the lane is open and the colour committed; else into the ring. */
export function alight(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  const stamp = place.mark;
  if (isMarker(stamp)) {
    if ((stamp & (MARKER.filler | MARKER.round)) !== 0) return draft.end('drop');
    draft.mark = stamp | MARKER.round;
    return draft.redirect(place.ifindex, true);
  }
  if (stamp === 0) return draft.end('drop');
  const nic = t.nics.get(stampNic(stamp));
  const group = nic === undefined ? undefined : t.groups.get(nic.group);
  if (stampClass(stamp) !== STAMP_CLASS.held || nic === undefined || group === undefined || group.exitIfindex !== place.ifindex) return draft.block('refused');
  if (isLane(group, stamp, LANE_STATE.open) && mayLeave(nic, group, stamp)) return letOut(t, draft, nic, stamp);
  draft.mark = (stamp | (LEAD.spilled << LEAD_SHIFT)) >>> 0;
  return draft.redirect(group.holdIfindex, false);
}

/** The lane of a colour, whole or as a stamp has it, is that colour's and in this state. */
export function isLane({ lanes }: GroupRow, stamp: number, state: number): boolean {
  const lane = lanes.get(stampColour(stamp) % LANES);
  return lane?.state === state && serial14(stamp, lane.colour) === 0;
}

const mayLeave = (nic: NicRow, group: GroupRow, stamp: number): boolean =>
  serial14(stampColour(stamp), group.commit) <= 0 || flagged(nic, NIC_FLAG.drain);

function letOut(t: Tables, draft: Draft, nic: NicRow, stamp: number): Decision {
  draft.mark = putField(t, 0, (stampLead(stamp) & LEAD.split) === 0 ? MARK.released : MARK.releasedSplit);
  return draft.redirect(nic.ifindex, true);
}
function releaseEarly(t: Tables, draft: Draft, d: NicRow, group: GroupRow, stamp: number): Decision {
  const ahead = -serial14(stampColour(stamp), memberColour(t, d.member, group.colour));
  const out = (): void => void draft.cells.push({ cell: 'earlyOut', nic: stampNic(stamp) });
  if (stampLead(stamp) !== 0) {
    out();
    return draft.end('drop');
  }
  if (ahead < 0) {
    out();
    return draft.block('refused');
  }
  if (ahead > 0) {
    const lead = Math.min(ahead, LEAD_MASK);
    draft.clone(group.holdIfindex, stampPack(STAMP_CLASS.late, stampNic(stamp), lead, stampColour(stamp)));
  }
  draft.mark = putField(t, 0, MARK.intra);
  draft.clone(d.ifindex, draft.mark);
  draft.mark = stampPack(STAMP_CLASS.early, stampNic(stamp), LEAD_DELIVERED, stampColour(stamp));
  return draft.redirect(group.holdIfindex, true);
}
