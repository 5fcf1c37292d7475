/**
 * What a group by VXLAN needs of this host: an address that is the one in the group file, hosts that
 * answer, a road wide enough, a device as the daemon makes it, a UDP port that is free for it. Pure.
 */
import { fail, NO_IP, ok, unseen, warn } from './doctor-checks.ts';
import type { Check, Facts, Link, PeerSeen, RoadSeen, RoadWanted, Verdict } from './doctor.ts';

/** The daemon's device, and the port it uses unless `vxlan.port` (`--vxlan-port` here) says another. */
const DEVICE = 'slx';
const PORT = 4789;

function vxlan({ options: { road: wanted }, road, links, kernelConfig }: Facts): readonly Verdict[] {
  if (wanted === undefined || road === undefined) return [];
  const config = kernelConfig.kind === 'seen' ? kernelConfig.value.get('CONFIG_VXLAN') : undefined;
  if (kernelConfig.kind === 'seen' && config !== 'y' && config !== 'm') return [fail('the kernel is built without CONFIG_VXLAN', 'boot a distribution kernel, or use wire: { vlan }')];
  const own = ownAddress(wanted, road);
  if (own.level === 'fail') return [own];
  return [own, ...(links.kind === 'seen' ? device(links.value, road, wanted.port) : [unseen('the VXLAN device', links.kind === 'hidden' ? links.reason : NO_IP)]), ...road.peers.map((peer) => reach(peer, wanted, road))];
}

function ownAddress({ self, hosts }: RoadWanted, { addresses }: RoadSeen): Verdict {
  const own = hosts[self];
  if (own === undefined) return fail(`this host, ${self}, has no address in wire.hosts`, `add ${self}: <its IPv4 address> to the group file, or say who it is: --host NAME`);
  if (addresses.kind !== 'seen') return unseen('the addresses of this host', addresses.kind === 'hidden' ? addresses.reason : NO_IP);
  if (addresses.value.includes(own)) return ok(`${own} is this host's address`);
  return fail(`${own} of wire.hosts is no address of this host, ${self}: nothing of the group can leave`, `give a device that address, or write one of ${addresses.value.filter((one) => !one.startsWith('127.')).join(', ') || 'this host\'s'} for ${self}`);
}

const isAtWork = (ours: Link | undefined, port: number): boolean => ours?.up === true && ours.vxlan?.port === port;

/** Whoever has the port keeps our device from coming up, be its socket bound to one address or one device only. */
function holder(links: readonly Link[], udpPorts: RoadSeen['udpPorts'], port: number): Verdict | undefined {
  const elsewhere = 'set vxlan.port to another port in the settings of sluiced on all hosts';
  // Of one VNI or of all: the kernel gives a port to devices of equal flags, and ours are nobody else's.
  const other = links.find(({ name, vxlan }) => name !== DEVICE && vxlan?.port === port);
  if (other !== undefined) return fail(`${other.name} has UDP port ${port}`, elsewhere);
  if (udpPorts.kind !== 'seen') return unseen('the UDP sockets', udpPorts.kind === 'hidden' ? udpPorts.reason : 'no /proc/net/udp');
  return udpPorts.value.has(port) ? fail(`a socket has UDP port ${port}`, `ss -uanp 'sport = :${port}' says whose: end that, or ${elsewhere}`) : undefined;
}

function device(links: readonly Link[], { udpPorts }: RoadSeen, wanted: number | undefined): readonly Verdict[] {
  const ours = links.find(({ name }) => name === DEVICE);
  const port = wanted ?? ours?.vxlan?.port ?? PORT;
  const taken = isAtWork(ours, port) ? undefined : holder(links, udpPorts, port);
  if (taken !== undefined) return [taken];
  if (ours === undefined) return [ok(`UDP port ${port} is free for the VXLAN device, which sluiced makes`)];
  const faults = [
    ...(ours.vxlan?.port === port ? [] : [`has UDP port ${ours.vxlan?.port ?? 0} and not ${port}`]),
    ...(ours.vxlan?.external === true ? [] : ['is not external']), ...(ours.vxlan?.gbp === true ? [] : ['carries no policy ids (gbp)']),
    ...(ours.up ? [] : ['is down']), ...(ours.qdisc === 'noqueue' ? [] : [`has a queue (${ours.qdisc})`]), ...(ours.bridge === undefined ? [] : [`is in bridge ${ours.bridge}`]),
  ];
  if (faults.length === 0) return [ok(`${DEVICE} is as it must be, UDP port ${port}`)];
  return [fail(`${DEVICE} ${faults.join(', ')}`, `ip link del ${DEVICE}: a running sluiced makes it again as it must be`)];
}

function reach({ host, address, small, large }: PeerSeen, { outerBytes, port = PORT }: RoadWanted, { innerBytes }: RoadSeen): Verdict {
  const bytes = innerBytes + outerBytes;
  const dark = [small, large].find(({ kind }) => kind !== 'seen');
  if (dark !== undefined) return unseen(`the road to ${host}`, dark.kind === 'hidden' ? dark.reason : 'no `ping` command');
  if (small.kind === 'seen' && !small.value) return warn(`no answer from ${host} (${address})`, `ip route get ${address}; let ICMP echo and UDP port ${port} (vxlan.port) through between the hosts`);
  if (large.kind === 'seen' && large.value) return ok(`${host} (${address}) is reached with ${bytes} bytes`);
  return warn(`${bytes} bytes don't reach ${host} (${address}) in one piece: the members' ${innerBytes} and ${outerBytes} around them`,
    `set the MTU of all devices on the road to ${bytes} or more, or the members' to ${outerBytes} less than the road's`);
}

export const ROAD_CHECK: Check = { name: 'vxlan', verdict: vxlan };
