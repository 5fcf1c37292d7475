/**
 * The table of checks: every line is a name and a pure function of the facts. A new check is a new
 * line; its fix is a command or a sentence a person can follow as it stands.
 */
import type { Check, Facts, Link, Verdict } from './doctor.ts';

export const ok = (text: string): Verdict => ({ level: 'ok', text });
export const warn = (text: string, fix: string): Verdict => ({ level: 'warn', text, fix });
export const fail = (text: string, fix: string): Verdict => ({ level: 'fail', text, fix });
/** A reason that ends with a package to install has its fix with it. */
export function unseen(what: string, reason: string): Verdict {
  const [, why = reason, install] = /^(.*): (apt-get install \S+)$/.exec(reason) ?? [];
  return warn(`could not look at ${what}: ${why}`, install ?? 'run it again as root, in the network namespace of the bridge');
}
export const NO_IP = 'no `ip` command: apt-get install iproute2';

const KERNEL_MIN = [5, 15] as const;
const KERNEL_TCX = [6, 6] as const;
const NODE_MIN = [20, 19] as const;
/** Options without which the ebpf plane cannot be. */
const CONFIG_NEEDED = ['CONFIG_BPF_SYSCALL', 'CONFIG_PACKET', 'CONFIG_VETH', 'CONFIG_BRIDGE', 'CONFIG_NET_CLS_ACT'];
/** Bit numbers of linux/capability.h. */
const CAPABILITIES = [['CAP_NET_ADMIN', 12], ['CAP_NET_RAW', 13], ['CAP_PERFMON', 38], ['CAP_BPF', 39]] as const;
const CAP_SYS_ADMIN = 21;
const CLOCKS_FAST = ['tsc', 'kvm-clock', 'arch_sys_counter', 'hyperv_clocksource_tsc_page', 'xen'];

function atLeast(version: string, least: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map((part) => Number.parseInt(part, 10));
  return major > least[0] || (major === least[0] && minor >= least[1]);
}

function node({ nodeVersion }: Facts): readonly Verdict[] {
  if (atLeast(nodeVersion, NODE_MIN)) return [ok(`Node ${nodeVersion}`)];
  return [fail(`Node ${nodeVersion} is too old`, 'install Node 20.19 or later (24 is what it is deployed on)')];
}

function kernel({ kernelRelease }: Facts): readonly Verdict[] {
  if (!atLeast(kernelRelease, KERNEL_MIN)) return [fail(`kernel ${kernelRelease} is too old`, 'boot a kernel of 5.15 or later; 6.6 or later has tcx')];
  if (atLeast(kernelRelease, KERNEL_TCX)) return [ok(`kernel ${kernelRelease}, with tcx`)];
  return [warn(`kernel ${kernelRelease} has no tcx: clsact filters are used, which other tools can remove`, 'boot a kernel of 6.6 or later')];
}

function features({ kernelConfig }: Facts): readonly Verdict[] {
  if (kernelConfig.kind === 'hidden') return [unseen('the kernel configuration', kernelConfig.reason)];
  if (kernelConfig.kind === 'absent') return [warn('the kernel does not show its configuration', 'nothing to do if sluiced starts: it tries each feature itself')];
  const missing = CONFIG_NEEDED.filter((option) => !/^[ym]$/.test(kernelConfig.value.get(option) ?? ''));
  if (missing.length > 0) return [fail(`the kernel is built without ${missing.join(', ')}`, 'boot a distribution kernel, or build one with these options')];
  return [ok('kernel has BPF, packet sockets with TPACKET_V3, veth and bridge')];
}

function jit({ bpfJit, kernelConfig }: Facts): readonly Verdict[] {
  const always = kernelConfig.kind === 'seen' && kernelConfig.value.get('CONFIG_BPF_JIT_ALWAYS_ON') === 'y';
  if (always) return [ok('BPF programs are compiled (always)')];
  if (bpfJit.kind === 'hidden') return [unseen('net.core.bpf_jit_enable', bpfJit.reason)];
  if (bpfJit.kind === 'absent') return [warn('net.core.bpf_jit_enable is not shown in this network namespace', 'look at it in the first namespace: sysctl net.core.bpf_jit_enable')];
  if (bpfJit.value.trim() !== '0') return [ok('BPF programs are compiled')];
  return [warn('BPF programs are interpreted: every frame pays', 'sysctl -w net.core.bpf_jit_enable=1')];
}

const capabilities = (facts: Facts): readonly Verdict[] => capabilitiesOf(CAPABILITIES, 'load programs and open packet sockets', facts);

/** `what`: for what they are needed. */
export function capabilitiesOf(needed: readonly (readonly [string, number])[], what: string, { status, daemon }: Facts): readonly Verdict[] {
  if (status.kind !== 'seen') return [unseen('/proc/self/status', status.kind === 'hidden' ? status.reason : 'no /proc')];
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status.value)?.[1] ?? '0'}`);
  const has = (bit: number): boolean => ((effective >> BigInt(bit)) & 1n) === 1n;
  const admin = has(CAP_SYS_ADMIN);
  const missing = needed.filter(([name, bit]) => !has(bit) && !(admin && (name === 'CAP_BPF' || name === 'CAP_PERFMON'))).map(([name]) => name);
  if (missing.length === 0) return [ok(`this process may ${what}`)];
  const text = `this process lacks ${missing.join(', ')}`;
  if (daemon.kind !== 'unreachable') return [ok(`${text}; not needed, a daemon is running`)];
  return [fail(`${text}: sluiced started from here would not work`, 'run sluiced as root (sudo), or by its systemd unit')];
}

function bpffs({ mounts, options }: Facts): readonly Verdict[] {
  if (mounts.kind !== 'seen') return [unseen('the mounts', mounts.kind === 'hidden' ? mounts.reason : 'no /proc')];
  const places = mounts.value.split('\n').map((line) => line.split(' ')).filter((fields) => fields[2] === 'bpf').map((fields) => fields[1] ?? '');
  if (places.includes(options.bpffs)) return [ok(`bpffs at ${options.bpffs}`)];
  return [warn(`no bpffs at ${options.bpffs}`, `mount -t bpf bpf ${options.bpffs} (sluiced does it itself when it may)`)];
}

function libraries({ libbpf, libpcap }: Facts): readonly Verdict[] {
  const verdicts: Verdict[] = [];
  if (libbpf.kind === 'seen') verdicts.push(ok(`libbpf: ${libbpf.value}`));
  else verdicts.push(fail('libbpf.so.1 was not found', 'apt-get install libbpf1'));
  if (libpcap.kind === 'seen') verdicts.push(ok(`libpcap: ${libpcap.value}`));
  else verdicts.push(warn('libpcap was not found: `sluice replay` will not work', 'apt-get install libpcap0.8'));
  return verdicts;
}

function brNetfilter({ bridgeNf }: Facts): readonly Verdict[] {
  const on = bridgeNf.filter(({ value }) => value.kind === 'seen' && value.value.trim() !== '0').map(({ name }) => name);
  const dark = bridgeNf.find(({ value }) => value.kind === 'hidden');
  if (on.length > 0) {
    const fix = `sysctl -w ${on.map((name) => `net.bridge.${name}=0`).join(' ')}`;
    return [warn(`${on.join(', ')}: every bridged frame runs through netfilter, and those with bad checksums are dropped`, fix)];
  }
  if (dark?.value.kind === 'hidden') return [unseen(dark.name, dark.value.reason)];
  return [ok('bridged frames stay out of netfilter')];
}

function bridges({ links }: Facts): readonly Verdict[] {
  if (links.kind !== 'seen') return [unseen('network devices', links.kind === 'hidden' ? links.reason : NO_IP)];
  const found = links.value.filter((link) => link.kind === 'bridge');
  if (found.length === 0) return [warn('no bridge in this network namespace', 'ip link add br0 type bridge, and put the VMs\' taps and the uplink in it')];
  return found.map((bridge) => {
    const ports = links.value.filter((link) => link.bridge === bridge.name).map((link) => link.name);
    const text = `bridge ${bridge.name}: ${ports.length === 0 ? 'no ports' : ports.join(' ')}`;
    if (!bridge.up) return warn(`${text}; it is down`, `ip link set ${bridge.name} up`);
    if (bridge.vlanFiltering) return warn(`${text}; vlan_filtering is on, and frames inside a group do not pass its filter`, `ip link set ${bridge.name} type bridge vlan_filtering 0, or keep every group inside one VLAN`);
    return ok(text);
  });
}

function groupPorts({ links, options }: Facts): readonly Verdict[] {
  if (options.wanted === undefined) return [];
  if (options.wanted.length === 0) return [warn('no member of the group lives on this host', 'say which of the group file\'s hosts this is: --host NAME')];
  if (links.kind !== 'seen') return [unseen('the ports of the group', links.kind === 'hidden' ? links.reason : NO_IP)];
  const byName = new Map(links.value.map((link) => [link.name, link]));
  const verdicts = options.wanted.flatMap((wanted) => onePort(wanted, byName.get(wanted.port)));
  const used = [...new Set(options.wanted.map(({ port }) => byName.get(port)?.bridge).filter((name) => name !== undefined))];
  if (used.length > 1) verdicts.push(fail(`the group's ports are in several bridges: ${used.join(', ')}`, 'put them all in one: ip link set PORT master BRIDGE'));
  if (verdicts.length === 0) verdicts.push(ok(`${options.wanted.length} ports of the group are in ${used.join('')}`));
  return verdicts;
}

function onePort({ member, port, mac }: { member: string; port: string; mac: string }, link: Link | undefined): readonly Verdict[] {
  if (link === undefined) return [fail(`port ${port} of ${member} does not exist`, `start the VM or: ip tuntap add ${port} mode tap; or correct \`port:\` in the group file`)];
  if (link.bridge === undefined) return [fail(`port ${port} of ${member} is in no bridge`, `ip link set ${port} master BRIDGE`)];
  if (!link.up) return [warn(`port ${port} of ${member} is down`, `ip link set ${port} up`)];
  if (link.mac.toLowerCase() === mac.toLowerCase()) {
    return [warn(`port ${port} itself has the MAC of ${member}: the bridge takes frames for it as its own`, `give the port another: ip link set ${port} address fe:${mac.slice(3)}`)];
  }
  return [];
}

/** The portable plane's ports are in no bridge: one that is has changed planes, and its old fence stands. */
function fences({ fences: found, links }: Facts): readonly Verdict[] {
  if (found.kind !== 'seen' || links.kind !== 'seen') return [];
  const bridged = new Set(links.value.filter(({ bridge }) => bridge !== undefined).map(({ name }) => name));
  const verdicts = found.value.flatMap(({ table, ports }) => ports.filter((port) => bridged.has(port)).map((port) =>
    fail(`port ${port} is fenced off by a portable plane (nft table ${table}): nothing that comes in at it passes`, `if no sluiced with \`plane: pcap\` serves it any more: nft delete table netdev ${table}`)));
  return verdicts.length > 0 ? verdicts : [ok('no port of a bridge is fenced off')];
}

function offloads({ offloads: all }: Facts): readonly Verdict[] {
  return all.map(({ port, features: seenFeatures }) => {
    if (seenFeatures.kind === 'hidden') return unseen(`offloads of ${port}`, seenFeatures.reason);
    if (seenFeatures.kind === 'absent') return warn(`offloads of ${port}: no such device`, 'name an existing port');
    const bad = ['large-receive-offload', 'rx-gro-list'].filter((name) => seenFeatures.value.get(name) === true);
    if (bad.length === 0) return ok(`offloads of ${port} keep frames as they are`);
    const flags = bad.map((name) => `${name === 'large-receive-offload' ? 'lro' : name} off`).join(' ');
    return warn(`${port}: ${bad.join(', ')} merges frames in a way that cannot be undone exactly`, `ethtool -K ${port} ${flags}`);
  });
}

function clock({ clockSource }: Facts): readonly Verdict[] {
  if (clockSource.kind !== 'seen') return [unseen('the clock source', clockSource.kind === 'hidden' ? clockSource.reason : 'sysfs does not show it')];
  const name = clockSource.value.trim();
  if (CLOCKS_FAST.includes(name)) return [ok(`clock source ${name}`)];
  return [warn(`clock source ${name} is slow to read`, 'choose another of available_clocksource, tsc where it is offered')];
}

/** Only hosts of a group across hosts with isolation addresses need it. */
function probes({ rawSocket }: Facts): readonly Verdict[] {
  if (rawSocket.kind === 'seen') return [ok(`isolation addresses can be probed: ${rawSocket.value}`)];
  if (rawSocket.kind === 'absent') return [warn('isolation addresses can\'t be probed: the package raw-socket is not built', 'npm rebuild raw-socket (needs g++ and make); without `isolation` in the settings nothing is missing')];
  return [warn(`isolation addresses can't be probed from here: ${rawSocket.reason}`, 'run it as root; the daemon\'s unit needs CAP_NET_RAW; without `isolation` in the settings nothing is missing')];
}

function daemonState({ daemon }: Facts): readonly Verdict[] {
  if (daemon.kind === 'ready') return [ok('sluiced answers and is ready')];
  if (daemon.kind === 'unreachable') return [warn(daemon.message, daemon.fix)];
  return [fail(`sluiced is not ready: ${daemon.missing.join('; ')}`, 'put in place what it names; its log has the reason')];
}

/** Protection outlives the daemon on purpose: what it left is only wrong when nobody wants it back. */
function leftovers({ daemon, links, pins, options }: Facts): readonly Verdict[] {
  if (daemon.kind !== 'unreachable') return [];
  const devices = links.kind === 'seen' ? links.value.filter((link) => /^sl([hrqo]\d+|[hr]p)$/.test(link.name)).map((link) => link.name) : [];
  const pinned = pins.kind === 'seen' ? pins.value.filter((name) => name.startsWith('sluice')) : [];
  const verdicts: Verdict[] = [];
  if (pins.kind === 'hidden') verdicts.push(unseen(`pins in ${options.bpffs}`, pins.reason));
  if (devices.length > 0) {
    verdicts.push(warn(`hold devices without a daemon: ${devices.join(' ')}; protected members' outside frames are being dropped`, 'start sluiced: it takes them over; to give protection up, start it and `sluice unprotect`'));
  }
  if (pinned.length > 0) {
    const paths = pinned.map((name) => `${options.bpffs}/${name}`).join(' ');
    verdicts.push(warn(`pinned programs without a daemon: ${paths}`, `start sluiced with the same state directory; to give protection up: rm -r ${paths}`));
  }
  return verdicts.length > 0 ? verdicts : [ok('nothing left behind by an earlier daemon')];
}

export const CHECKS: readonly Check[] = [
  { name: 'node', verdict: node },
  { name: 'kernel', verdict: kernel },
  { name: 'features', verdict: features },
  { name: 'bpf-jit', verdict: jit },
  { name: 'capabilities', verdict: capabilities },
  { name: 'bpffs', verdict: bpffs },
  { name: 'libraries', verdict: libraries },
  { name: 'br_netfilter', verdict: brNetfilter },
  { name: 'bridges', verdict: bridges },
  { name: 'group-ports', verdict: groupPorts },
  { name: 'fences', verdict: fences },
  { name: 'offloads', verdict: offloads },
  { name: 'clock', verdict: clock },
  { name: 'probes', verdict: probes },
  { name: 'daemon', verdict: daemonState },
  { name: 'leftovers', verdict: leftovers },
];
