/** Twin of hold.bpf.h: what may go into the hold pair, and what may come out again, where to. */
import { LEAD_DELIVERED, LEAD_MASK, MARK, NIC_FLAG, STAMP_CLASS, serial14, stampClass, stampColour, stampLead, stampNic, stampPack } from './abi.ts';
import { Draft, flagged, memberColour, putField } from './tables.ts';
import type { Decision, GroupRow, NicRow, Place, Tables } from './tables.ts';

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
