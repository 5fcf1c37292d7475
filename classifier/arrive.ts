/**
 * Twin of arrive.bpf.h, the uplink's ingress: what comes from other hosts and from outside.
 *
 *   two tags ─► group by VLAN id ─► generation ─► tags off ─► both ends of the group ─► colour ─► deliver
 *   anything else ─► claims a member's address? ─► bridge, or dropped
 */
import { MARK, NIC_FLAG, WIRE_AHEAD_MAX, WIRE_EPOCH_BITS, serial12, serial32 } from './abi.ts';
import { copies, deliver } from './deliver.ts';
import { FrameCursor, untagged, wireTags } from './frame.ts';
import { Draft, flagged, nicBy, putField } from './tables.ts';
import type { Decision, Place, Tables } from './tables.ts';

const cursor = new FrameCursor();

/** The nic at this address if it is the group's and its home is as asked; 0 = none. */
function fellow(t: Tables, bridge: number, group: number, vlan: number, mac: number, remote: boolean): number {
  const index = nicBy(t, bridge, vlan, mac);
  const nic = t.nics.get(index);
  const is = nic !== undefined && nic.group === group && flagged(nic, NIC_FLAG.protected) && flagged(nic, NIC_FLAG.remote) === remote;
  return is ? index : 0;
}

export function arrive(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  const tags = wireTags(bytes, place.tag);
  if (tags === undefined) return arrivePlain(t, draft, bytes, place);
  const id = t.wires.get(tags.vlan);
  const group = id === undefined ? undefined : t.groups.get(id);
  if (tags.inner === undefined || id === undefined || group?.uplink !== place.ifindex) return draft.block('unknown', 'drop');
  if (group.generation !== tags.inner >> WIRE_EPOCH_BITS) return draft.block('stale', 'drop');
  const inside = untagged(bytes, place.tag);
  if (inside === undefined) return draft.block('unknown', 'drop');
  const ahead = serial12(tags.inner, group.colour - group.base);
  return arriveInside(t, draft, inside, place, id, (group.colour + ahead) >>> 0);
}

function arriveInside(t: Tables, draft: Draft, bytes: Uint8Array, place: Place, groupId: number, colour: number): Decision {
  const group = t.groups.get(groupId);
  const bridge = t.devices.get(place.ifindex) ?? 0;
  const { hasHeader, vlan, src, dst, isLinkLocal, isMulticast } = cursor.set(bytes);
  if (group === undefined || !hasHeader || isLinkLocal || fellow(t, bridge, groupId, vlan, src, true) === 0) return draft.block('foreign', 'drop');
  if (serial32(colour, group.colour) > WIRE_AHEAD_MAX) return draft.block('skewed', 'drop');
  const o = { t, draft, mark: place.mark, index: 0, bridge, vlan, groupId, group, colour };
  if (isMulticast) {
    copies(o);
    return draft.end('drop', 'split');
  }
  const dIndex = fellow(t, bridge, groupId, vlan, dst, false);
  const d = t.nics.get(dIndex);
  return d === undefined ? draft.block('elsewhere', 'drop') : deliver(o, d, dIndex, false);
}

/** From outside: a frame that claims a member's address is nobody's of the group (foreign). */
function arrivePlain(t: Tables, draft: Draft, bytes: Uint8Array, place: Place): Decision {
  const bridge = t.devices.get(place.ifindex) ?? 0;
  const { hasHeader, vlan, src, dst, isMulticast } = cursor.set(bytes, place.tag);
  const s = hasHeader ? t.nics.get(nicBy(t, bridge, vlan, src)) : undefined;
  if (s === undefined || !flagged(s, NIC_FLAG.protected)) return draft.end('next', 'pass');
  const toFellow = !isMulticast && fellow(t, bridge, s.group, vlan, dst, false) !== 0;
  if (!flagged(s, NIC_FLAG.remote) || toFellow) return draft.block('foreign', 'drop');
  if (isMulticast) draft.mark = putField(t, place.mark, MARK.releasedSplit);
  return draft.end('next', 'pass');
}
