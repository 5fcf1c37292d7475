/** Twin of guard.bpf.h: the programs at the bridge's edges. */
import { MARK, NIC_FLAG } from './abi.ts';
import { FrameCursor, wireId } from './frame.ts';
import { Draft, flagged, markField, nicAt, nicBy, putField } from './tables.ts';
import type { Decision, NicRow, Place, Tables } from './tables.ts';

const cursor = new FrameCursor();

const holds = (nic: NicRow | undefined): boolean =>
  nic !== undefined && (nic.flags & (NIC_FLAG.guarded | NIC_FLAG.drain)) === NIC_FLAG.guarded;

export function guard(t: Tables, bytes: Uint8Array, place: Place): Decision {
  const draft = new Draft(place.mark);
  const id = wireId(bytes, place.tag);
  const tagged = id === undefined ? undefined : t.wires.get(id);
  if (tagged !== undefined) {
    if (!goesAway(t, place, tagged)) return draft.block('forged');
    draft.mark = putField(t, place.mark, MARK.none);
    return draft.end('next');
  }
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
  if (to === undefined || !flagged(to, NIC_FLAG.protected)) return false;
  const { hasHeader, vlan, src, isLinkLocal } = cursor.set(bytes, place.tag);
  if (!hasHeader || vlan !== to.vlan || isLinkLocal) return false;
  const from = nicAt(t, place.ingressIfindex) ?? t.nics.get(nicBy(t, t.devices.get(place.ifindex) ?? 0, vlan, src));
  return from?.group === to.group;
}
function staysInside(t: Tables, place: Place): boolean {
  const to = nicAt(t, place.ifindex);
  if (to === undefined) return false;
  const from = nicAt(t, place.ingressIfindex);
  if (from !== undefined) return from.group === to.group;
  const group = t.groups.get(to.group);
  if (group === undefined) return false;
  const at = place.ingressIfindex;
  return group.holdIfindex === at || (group.uplink !== 0 && group.uplink === at) || (group.tunnel !== 0 && group.tunnel === at);
}
/** Tagged by classify, from a member's port, at the group's uplink. */
function goesAway(t: Tables, place: Place, id: number): boolean {
  const from = nicAt(t, place.ingressIfindex);
  return markField(t, place.mark) === MARK.intra && from?.group === id && t.groups.get(id)?.uplink === place.ifindex;
}
function isGuarded(t: Tables, bytes: Uint8Array, bridge: number): boolean {
  if (bytes.length < 12) return false;
  return (t.guarded.get(cursor.set(bytes).src) ?? []).some((row) => row.bridge === bridge && holds(t.nics.get(row.nic)));
}

/** The VXLAN device's egress: only what a classifier sent there. */
export function depart(t: Tables, place: Place): Decision {
  const draft = new Draft(place.mark);
  const from = nicAt(t, place.ingressIfindex);
  const group = from === undefined ? undefined : t.groups.get(from.group);
  if (markField(t, place.mark) !== MARK.intra || group?.tunnel !== place.ifindex) return draft.block('forged');
  draft.mark = putField(t, place.mark, MARK.none);
  return draft.end('next');
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
