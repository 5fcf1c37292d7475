/**
 * Twin of arrive.bpf.h, the uplink's ingress and the VXLAN device's: what comes from other hosts and from outside.
 *
 *   two tags ─► group by VLAN id ─► generation ─► tags off ─► both ends of the group ─► colour ─► deliver
 *   anything else ─► claims a member's address? ─► bridge, or dropped
 *   VXLAN ─► group by VNI ─► generation ─► both ends of the group, the source of the host it came from ─► colour ─► deliver
 */
import { MARK, NIC_FLAG, WIRE_AHEAD_MAX, WIRE_EPOCH_BITS, WIRE_GBP, serial12, serial32 } from './abi.ts';
import { copies, deliver } from './deliver.ts';
import { FrameCursor, untagged, wireTags } from './frame.ts';
import { Draft, flagged, nicBy, putField } from './tables.ts';
import type { Decision, GroupRow, Place, Tables } from './tables.ts';

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
  return arriveInside({ t, draft, mark: place.mark, groupId: id, group, bridge: t.devices.get(place.ifindex) ?? 0, inner: tags.inner }, cursor.set(inside));
}

/** The VXLAN device's ingress. */
export function land(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  const { vni = 0, from = 0, gbp = 0 } = place.tunnel ?? {};
  const id = t.vnis.get(vni);
  const group = id === undefined ? undefined : t.groups.get(id);
  if ((gbp & ~0xffff) !== WIRE_GBP || from === 0 || id === undefined || group?.tunnel !== place.ifindex) return draft.block('unknown', 'drop');
  const inner = gbp & 0xffff;
  if (group.generation !== inner >> WIRE_EPOCH_BITS) return draft.block('stale', 'drop');
  return arriveInside({ t, draft, mark: place.mark, groupId: id, group, bridge: t.devices.get(group.uplink) ?? 0, inner, sender: from }, cursor.set(bytes, place.tag));
}

/** A frame of the group's own generation, what it came by taken off. */
interface Arrival {
  readonly t: Tables;
  readonly draft: Draft;
  readonly mark: number;
  readonly groupId: number;
  readonly group: GroupRow;
  readonly bridge: number;
  readonly inner: number;
  /** The host it came from by VXLAN. */
  readonly sender?: number;
}
function arriveInside({ inner, sender, ...a }: Arrival, frame: FrameCursor): Decision {
  const { t, draft, group, groupId, bridge } = a;
  const { hasHeader, vlan, src, dst, isLinkLocal, isMulticast } = frame;
  const sIndex = hasHeader && !isLinkLocal ? fellow(t, bridge, groupId, vlan, src, true) : 0;
  if (sIndex === 0 || (sender !== undefined && t.peers.get(sIndex) !== sender)) return draft.block('foreign', 'drop');
  const colour = (group.colour + serial12(inner, group.colour - group.base)) >>> 0;
  if (serial32(colour, group.colour) > WIRE_AHEAD_MAX) return draft.block('skewed', 'drop');
  const o = { ...a, index: 0, vlan, colour };
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
