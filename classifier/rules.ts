/**
 * The twin of classify.bpf.c: the same decisions as functions over plain tables. It is the oracle
 * that the kernel programs are compared with, and the engine of `sluice replay`.
 *
 *   tables + where the frame is + its bytes ─► Decision ─ apply ─► the tables' counters
 *
 * A decision changes nothing; `apply` does to the tables what the kernel does to its cells, so a
 * sequence of frames is decided as the kernel would. Every function here has its namesake there;
 * a difference between the two is a fault in one of them.
 *
 *   tables.ts   rows and decisions      deliver.ts       what receivers get      arrive.ts   the uplink
 *   rules.ts    a member's port         hold-rules.ts    the hold pair           guard-rules.ts   egress
 */
import { LANE_STATE, MARK, NIC_FLAG, RESIDUES, STAMP_CLASS, stampPack } from './abi.ts';
import type { Program } from './abi.ts';
import { arrive, land } from './arrive.ts';
import { copies, copyAway, deliver } from './deliver.ts';
import type { Origin } from './deliver.ts';
import { FrameCursor } from './frame.ts';
import { depart, guard, guardSelf, local } from './guard-rules.ts';
import { alight, board, enter, express, isLane, release, sink } from './hold-rules.ts';
import { Draft, flagged, markField, memberColour, nicBy, putField } from './tables.ts';
import type { Decision, NicRow, Place, Tables } from './tables.ts';

export { arrive, depart, enter, express, guard, guardSelf, land, local, release };
export { emptyTables, newGroup, newNic } from './tables.ts';
export type { Decision, GroupRow, LaneRow, MacRow, NicRow, Place, Sent, StatCount, Tables, Tunnel } from './tables.ts';

// --------------------------------------------------------------------- member port, ingress

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
  const o = { t, draft, mark: place.mark, index, bridge: nic.bridge, vlan: nic.vlan, groupId: nic.group, group, colour };
  return decide({ ...o, nic, frame: cursor.set(bytes, place.tag) });
}

/** A frame at its nic's own port. */
interface Own extends Origin {
  readonly nic: NicRow;
  readonly frame: FrameCursor;
}

function decide(o: Own): Decision {
  const { frame, nic } = o;
  if (!frame.hasHeader) return o.draft.end('drop', 'drop');
  if (frame.vlan !== nic.vlan || frame.src !== nic.mac) {
    return flagged(nic, NIC_FLAG.foreignDrop) ? o.draft.end('drop', 'drop') : holdOrPass(o);
  }
  if (frame.isLinkLocal) return holdOrPass(o);
  if (frame.isMulticast) return split(o);
  const dIndex = memberFor(o);
  const d = o.t.nics.get(dIndex);
  if (d !== undefined && d.group === nic.group && flagged(d, NIC_FLAG.protected)) return deliver(o, d, dIndex, flagged(nic, NIC_FLAG.intraBridge));
  return holdOrPass(o);
}

/** The nic a unicast frame is for, if it is another one; 0 = outside. */
function memberFor(o: Own): number {
  const index = nicBy(o.t, o.bridge, o.frame.vlan, o.frame.dst);
  return index === o.index ? 0 : index;
}

/** A copy to each member now; the original is held for everybody else, or goes on marked. */
function split(o: Own): Decision {
  const drained = flagged(o.nic, NIC_FLAG.drain) && heldIsEmpty(o.nic);
  const uplink = copies(o);
  if (uplink !== 0 && !copyAway(o, uplink, o.frame)) return o.draft.end('drop', 'drop');
  if (!drained) return hold(o, 1, 'split');
  o.draft.mark = putField(o.t, o.mark, MARK.releasedSplit);
  return o.draft.end('next', 'split');
}
const heldIsEmpty = (nic: NicRow): boolean => nic.heldIn === nic.heldOut + nic.heldGone;

function hold(o: Own, lead: 0 | 1, verdict: 'held' | 'split'): Decision {
  o.draft.cells.push({ cell: 'heldIn', nic: o.index }, { cell: 'groupHeldIn', group: o.nic.group, colour: o.colour });
  o.draft.mark = stampPack(STAMP_CLASS.held, o.index, lead, o.colour);
  if (o.group.laneIfindex === 0 || !isLane(o.group, o.colour, LANE_STATE.filling)) return o.draft.redirect(o.group.holdIfindex, false, verdict);
  o.draft.clone(o.group.laneIfindex, o.draft.mark); // how full lanes are is not in the tables
  return o.draft.end('drop', verdict);
}
function holdOrPass(o: Own): Decision {
  return flagged(o.nic, NIC_FLAG.drain) && heldIsEmpty(o.nic) ? o.draft.end('next', 'pass') : hold(o, 0, 'held');
}

/** Any program by name. */
export function run(program: Program, t: Tables, bytes: Uint8Array, place: Place): Decision {
  switch (program) {
    case 'classify': return classify(t, bytes, place);
    case 'arrive': return arrive(t, bytes, place);
    case 'land': return land(t, bytes, place);
    case 'guard': return guard(t, bytes, place);
    case 'guard_self': return guardSelf(t, bytes, place);
    case 'depart': return depart(t, place);
    case 'local': return local(t, place);
    case 'release': return release(t, place);
    case 'express': return express(t, place);
    case 'enter': return enter(place, place.hash ?? 0);
    case 'board': return board(t, place, place.hash ?? 0);
    case 'alight': return alight(t, place);
    case 'sink': return sink(t, place);
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
