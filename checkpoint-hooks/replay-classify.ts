/**
 * The group file as the classifier's tables, and a frame of a capture at its port. The twin
 * (classifier/rules.ts) decides; nothing is decided here.
 *
 * A capture does not say at which port a frame came in: it is taken to be that of the nic whose MAC
 * is the source, whatever its VLAN, all ports in one bridge. A member that sent under a foreign MAC
 * is therefore counted as an outsider (`pass`), where the kernel would have held its frame.
 * All members are in the same epoch, so the twin never says early or late.
 */
import { NIC_FLAG } from '../classifier/abi.ts';
import { FrameCursor, macParse } from '../classifier/frame.ts';
import { classify, emptyTables, newGroup, newNic } from '../classifier/rules.ts';
import type { Tables } from '../classifier/rules.ts';
import type { GroupSpec } from './group-file.ts';
import { REPLAY_VERDICTS } from './replay-model.ts';
import type { Classified, Classify, ReplayVerdict } from './replay-model.ts';

const GROUP = 1;
const BRIDGE = 1;
const HOLD_IFINDEX = 2;
/** Interface index of nic n is n + this; the numbers only have to differ. */
const IFINDEX_BASE = 100;
const COLOUR = 1;

interface Port {
  readonly ifindex: number;
  readonly member: string;
}

function tablesOf(spec: GroupSpec): { readonly tables: Tables; readonly portByMac: ReadonlyMap<number, Port> } {
  const tables = emptyTables();
  const portByMac = new Map<number, Port>();
  const flags = NIC_FLAG.protected | NIC_FLAG.ready | (spec.foreignSource === 'drop' ? NIC_FLAG.foreignDrop : 0) | (spec.intraPath === 'bridge' ? NIC_FLAG.intraBridge : 0);
  const nics = spec.members.flatMap(({ name, nics: own }, member) => own.map((nic) => ({ ...nic, name, member: member + 1 })));
  for (const [position, nic] of nics.entries()) {
    const index = position + 1;
    const ifindex = IFINDEX_BASE + index;
    const mac = macParse(nic.mac);
    tables.nics.set(index, newNic({ ifindex, bridge: BRIDGE, group: GROUP, member: nic.member, flags, vlan: nic.vlan, mac }));
    tables.ports.set(ifindex, index);
    tables.members.set(nic.member, COLOUR);
    tables.macs.set(mac, [{ bridge: BRIDGE, vlan: nic.vlan, nic: index }]);
    portByMac.set(mac, { ifindex, member: nic.name });
  }
  tables.groups.set(GROUP, newGroup(COLOUR, HOLD_IFINDEX, nics.map((_, position) => position + 1)));
  return { tables, portByMac };
}

function mustVerdict(verdict: string | undefined): ReplayVerdict {
  const known = REPLAY_VERDICTS.find((name) => name === verdict);
  if (known === undefined) throw new Error(`the classifier said ${String(verdict)}, with all members in one epoch`);
  return known;
}

const OUTSIDER: Classified = { verdict: 'pass', from: undefined };

export function classifierOf(spec: GroupSpec): Classify {
  const { tables, portByMac } = tablesOf(spec);
  const cursor = new FrameCursor();
  return (frame) => {
    cursor.set(frame);
    const port = cursor.hasHeader ? portByMac.get(cursor.src) : undefined;
    if (port === undefined) return OUTSIDER;
    const { verdict } = classify(tables, frame, { ifindex: port.ifindex, ingressIfindex: port.ifindex, mark: 0 });
    return { verdict: mustVerdict(verdict), from: port.member };
  };
}
