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

/** How a group's frames between hosts are known. */
export interface WireClaim {
  readonly vlan: number;
  readonly vxlan?: { readonly vni: number };
}
/** Whether a group can be carried between hosts: an uplink in a bridge, and a VLAN id or a VNI of its own. */
export function wireRefusal(
  wire: WireClaim | undefined, uplink: string | undefined, others: readonly { readonly group: string; readonly wire: WireClaim | undefined }[],
  ports: readonly Port[], awaited: (port: string) => boolean,
): Refusal | undefined {
  if (wire === undefined) return undefined;
  if (uplink === undefined) return { code: 'bad_request', message: 'a group across hosts needs an uplink', fix: 'name the bridge port to the other hosts: `uplink` in the settings of sluiced' };
  const nameOf = ({ vlan, vxlan }: WireClaim): string => (vxlan === undefined ? `VLAN ${vlan}` : `VNI ${vxlan.vni}`);
  const taken = others.find((other) => other.wire !== undefined && nameOf(other.wire) === nameOf(wire));
  if (taken !== undefined) return { code: 'port_claimed', message: `${nameOf(wire)} belongs to group ${taken.group} already`, fix: `give each group across hosts a ${wire.vxlan === undefined ? 'VLAN id' : 'VNI'} of its own` };
  const bridges = new Set(ports.filter(({ kind }) => kind === 'bridge').map(({ ifindex }) => ifindex));
  if (awaited(uplink) || ports.some(({ name, master }) => name === uplink && bridges.has(master))) return undefined;
  return { code: 'bad_request', message: `uplink ${uplink} is not in a bridge`, fix: `ip link set ${uplink} master <bridge>` };
}

/** The uplink is where every other host is reached: what comes in there is never one member's. */
export function uplinkRefusal(claim: GroupClaim, uplink: string | undefined): Refusal | undefined {
  if (uplink === undefined || !claim.nics.some(({ port }) => port === uplink)) return undefined;
  return { code: 'bad_request', message: `port ${uplink} is the uplink of this host, so no member can be there`, fix: 'name the VM\'s own tap; the uplink is `uplink` in the settings of sluiced' };
}

/** `mayUse`: whether the ports of a bridge may be members'; asked of ports that are new to the group. */
export function bridgeRefusal(claim: GroupClaim, ports: readonly Port[], awaited: (port: string) => boolean, mayUse: (bridge: string) => boolean): Refusal | undefined {
  for (const { port } of claim.nics.filter((nic) => !awaited(nic.port))) {
    const master = ports.find(({ name }) => name === port)?.master;
    const bridge = ports.find(({ ifindex, kind }) => ifindex === master && kind === 'bridge')?.name;
    if (bridge === undefined || mayUse(bridge)) continue;
    return { code: 'bad_request', message: `port ${port} is in bridge ${bridge}, and other bridges are attached and this one is not`, fix: `sluice attach ${bridge}` };
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
