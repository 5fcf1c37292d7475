/**
 * Whether a group's ports and MACs can be had: each port exists, is in a bridge, and is nobody
 * else's. Pure. The first thing that is wrong is said, with what to do about it.
 */
import type { Port } from './plan.ts';

export interface NicClaim {
  readonly port: string;
  readonly mac: string;
  readonly vlan: number;
}
export interface GroupClaim {
  readonly group: string;
  readonly nics: readonly NicClaim[];
}
export interface Refusal {
  /** port_claimed: it is another group's. */
  readonly code: 'bad_request' | 'port_claimed';
  readonly message: string;
  readonly fix: string;
}

/** `awaited`: a port that may be missing or in no bridge, because it was there before. */
export function refusal(
  claim: GroupClaim, others: readonly GroupClaim[], ports: readonly Port[], awaited: (port: string) => boolean,
): Refusal | undefined {
  const byName = new Map(ports.map((port) => [port.name, port]));
  const bridges = new Set(ports.filter((port) => port.kind === 'bridge').map((port) => port.ifindex));
  for (const nic of claim.nics) {
    const found = misplaced(nic, byName, bridges, awaited) ?? taken(nic, others, byName);
    if (found !== undefined) return found;
  }
  return undefined;
}

function misplaced(nic: NicClaim, byName: ReadonlyMap<string, Port>, bridges: ReadonlySet<number>, awaited: (port: string) => boolean): Refusal | undefined {
  if (awaited(nic.port)) return undefined;
  const port = byName.get(nic.port);
  if (port === undefined) return { code: 'bad_request', message: `port ${nic.port} does not exist`, fix: 'create the tap and put it into the bridge first' };
  if (bridges.has(port.master)) return undefined;
  return { code: 'bad_request', message: `port ${nic.port} is not in a bridge`, fix: `ip link set ${nic.port} master <bridge>` };
}

function taken(nic: NicClaim, others: readonly GroupClaim[], byName: ReadonlyMap<string, Port>): Refusal | undefined {
  const bridge = byName.get(nic.port)?.master;
  for (const { group, nics } of others) {
    if (nics.some(({ port }) => port === nic.port)) {
      return { code: 'port_claimed', message: `port ${nic.port} belongs to group ${group} already`, fix: 'a port is in one group only' };
    }
    if (nics.some((their) => their.mac === nic.mac && their.vlan === nic.vlan && byName.get(their.port)?.master === bridge)) {
      return { code: 'port_claimed', message: `MAC ${nic.mac} belongs to group ${group} on the same bridge`, fix: 'give each nic of a bridge a MAC of its own' };
    }
  }
  return undefined;
}
