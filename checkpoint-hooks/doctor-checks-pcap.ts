/**
 * The checks of `sluice doctor --plane pcap`: those that hold for both planes, and what the portable
 * one asks of a machine instead of BPF: libpcap, nftables, two capabilities, ports in no bridge.
 */
import type { Check, Facts, Verdict } from './doctor.ts';
import { capabilitiesOf, CHECKS, fail, NO_IP, ok, unseen, warn } from './doctor-checks.ts';

const CAPABILITIES = [['CAP_NET_ADMIN', 12], ['CAP_NET_RAW', 13]] as const;
/** Merges what the plane can't cut again: such a frame is dropped and counted. */
const UDP_MERGING = 'rx-udp-gro-forwarding';

function libpcap({ libpcap: found }: Facts): readonly Verdict[] {
  if (found.kind === 'seen') return [ok(`libpcap: ${found.value}`)];
  return [fail('libpcap was not found', 'apt-get install libpcap0.8')];
}

function nftables({ programs, kernelConfig }: Facts): readonly Verdict[] {
  if (programs.kind === 'seen' && !programs.value.includes('nft')) return [fail('nft was not found: ports can\'t be fenced off from the host\'s stack', 'apt-get install nftables')];
  if (kernelConfig.kind === 'seen' && !/^[ym]$/.test(kernelConfig.value.get('CONFIG_NF_TABLES_NETDEV') ?? '')) {
    return [fail('the kernel is built without CONFIG_NF_TABLES_NETDEV', 'boot a distribution kernel, or build one with it')];
  }
  return programs.kind === 'seen' ? [ok('nftables, with netdev tables')] : [unseen('/usr/sbin', programs.kind === 'hidden' ? programs.reason : 'no such directory')];
}

/** Named ports and the group's: each must exist, be up, and be in no bridge. */
function ports({ links, options }: Facts): readonly Verdict[] {
  if (links.kind !== 'seen') return [unseen('network devices', links.kind === 'hidden' ? links.reason : NO_IP)];
  const names = [...new Set([...options.ports, ...(options.wanted ?? []).map(({ port }) => port)])];
  if (names.length === 0) return [warn('no port was named', 'name those of pcap.ports: sluice doctor --plane pcap tap0 tap1 eth1')];
  return names.map((name) => {
    const link = links.value.find((one) => one.name === name);
    if (link === undefined) return fail(`port ${name} does not exist`, `start the VM or: ip tuntap add ${name} mode tap`);
    if (link.bridge !== undefined) return fail(`port ${name} is in bridge ${link.bridge}: this plane bridges its ports itself`, `ip link set ${name} nomaster`);
    return link.up ? ok(`port ${name} is up and in no bridge`) : warn(`port ${name} is down`, `ip link set ${name} up`);
  });
}

function uncut({ offloads }: Facts): readonly Verdict[] {
  return offloads.flatMap(({ port, features }) => {
    if (features.kind !== 'seen' || features.value.get(UDP_MERGING) !== true) return [];
    return [warn(`${port} merges UDP frames, which this plane can't cut again`, `ethtool -K ${port} ${UDP_MERGING} off`)];
  });
}

const BOTH = ['node', 'offloads', 'clock', 'daemon'];

export const CHECKS_PCAP: readonly Check[] = [
  ...CHECKS.filter(({ name }) => BOTH.includes(name)),
  { name: 'capabilities', verdict: (facts) => capabilitiesOf(CAPABILITIES, 'open packet sockets and fence ports off', facts) },
  { name: 'libraries', verdict: libpcap },
  { name: 'nftables', verdict: nftables },
  { name: 'ports', verdict: ports },
  { name: 'udp-offloads', verdict: uncut },
];
