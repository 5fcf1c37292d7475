/**
 * `sluice doctor`: is this machine fit to hold frames, and if not, what is to be done?
 *
 *   System (doctor-system.ts: files, ip, ethtool, the daemon's socket)
 *      │ look() once: Facts, each `Seen` or not, with the reason
 *      ▼
 *   CHECKS (the table in doctor-checks.ts): facts -> findings, pure
 *      ▼
 *   findings: ok | warn | fail, one line each, a fix with every one that is not ok
 *
 * It needs no daemon and no root: what it may not look at becomes a `warn` that says so. It changes
 * nothing. `fail` means that sluiced will not start or that a group will not be protected; `warn`
 * means slower, or less safe than it could be, or not looked at.
 */

export type Level = 'ok' | 'warn' | 'fail';

export interface Finding {
  readonly check: string;
  readonly level: Level;
  /** What was found, one line. */
  readonly text: string;
  /** What to do about it, one line; none where all is well. */
  readonly fix?: string;
}

/** A fact, or why it could not be had. `absent`: looked, and it is not there. */
export type Seen<T> =
  | { readonly kind: 'seen'; readonly value: T }
  | { readonly kind: 'absent' }
  | { readonly kind: 'hidden'; readonly reason: string };

export const seen = <T>(value: T): Seen<T> => ({ kind: 'seen', value });
export const absent: Seen<never> = { kind: 'absent' };
export const hidden = (reason: string): Seen<never> => ({ kind: 'hidden', reason });

/** One network device as `ip -j -d link` shows it, reduced to what is asked here. */
export interface Link {
  readonly name: string;
  readonly mac: string;
  readonly up: boolean;
  /** veth, tun, bridge, …; '' for a plain NIC. */
  readonly kind: string;
  /** Name of the bridge it is a port of. */
  readonly bridge: string | undefined;
  /** Only of a bridge. */
  readonly vlanFiltering: boolean;
  readonly mtu: number;
  readonly qdisc: string;
  /** Only of a VXLAN device: its UDP port, whether it is for all VNIs, whether it carries policy ids. */
  readonly vxlan?: { readonly port: number; readonly external: boolean; readonly gbp: boolean };
}

/** What a group file says of ports: enough for the checks. */
export interface PortWanted {
  readonly member: string;
  readonly port: string;
  readonly mac: string;
}

/** Of a group by VXLAN: how this host reaches the others. */
export interface RoadWanted {
  /** This host's name. */
  readonly self: string;
  /** Each host's address. */
  readonly hosts: Readonly<Record<string, string>>;
  /** Bytes around a member's IP packet: the outer headers, and a tag where a member has one. */
  readonly outerBytes: number;
  /** `vxlan.port` of sluiced's settings, where it is not the default. */
  readonly port?: number;
}
export interface PeerSeen {
  readonly host: string;
  readonly address: string;
  /** Answers a small ping, and one as large as the members' largest frame in its outer headers, not to be cut. */
  readonly small: Seen<boolean>;
  readonly large: Seen<boolean>;
}
export interface RoadSeen {
  /** IPv4 addresses of this host. */
  readonly addresses: Seen<readonly string[]>;
  /** Local ports of the UDP sockets of this network namespace, IPv4's and IPv6's. */
  readonly udpPorts: Seen<ReadonlySet<number>>;
  /** MTU of the members' ports here. */
  readonly innerBytes: number;
  readonly peers: readonly PeerSeen[];
}

export type DaemonSeen =
  | { readonly kind: 'ready' }
  | { readonly kind: 'not_ready'; readonly missing: readonly string[] }
  | { readonly kind: 'unreachable'; readonly message: string; readonly fix: string };

/** A netdev table of nftables (edge/fence.ts). */
export interface FenceSeen {
  readonly table: string;
  readonly ports: readonly string[];
}

/** Everything the checks may ask. One method a question; none throws. */
export interface System {
  readonly nodeVersion: string;
  readonly kernelRelease: string;
  readText(path: string): Promise<Seen<string>>;
  list(path: string): Promise<Seen<readonly string[]>>;
  /** Kernel build options, from /proc/config.gz or /boot. */
  kernelConfig(): Promise<Seen<ReadonlyMap<string, string>>>;
  links(): Promise<Seen<readonly Link[]>>;
  /** Features of one device by ethtool's names: true = on. */
  offloads(port: string): Promise<Seen<ReadonlyMap<string, boolean>>>;
  addresses(): Promise<Seen<readonly string[]>>;
  /** Whether an IP packet of so many bytes, not to be cut on its way, is answered. */
  ping(address: string, bytes: number): Promise<Seen<boolean>>;
  /** Path of a shared library the loader would find. */
  library(name: string): Promise<Seen<string>>;
  /** Whether a raw ICMP socket can be opened by the package that probes isolation addresses. */
  rawSocket(): Promise<Seen<string>>;
  /** Tables by which portable planes keep ports from the host, and those ports. */
  fences(): Promise<Seen<readonly FenceSeen[]>>;
  daemon(): Promise<DaemonSeen>;
}

export interface DoctorOptions {
  /** Ports whose offloads are looked at, besides the group's. */
  readonly ports: readonly string[];
  /** Ports of the group file; undefined = no group file was given. */
  readonly wanted: readonly PortWanted[] | undefined;
  /** Absent where no group file by VXLAN was given. */
  readonly road?: RoadWanted;
  /** mountpoint expected for pins, as sluiced has it by default. */
  readonly bpffs: string;
}

/** The world as it was at one moment. */
export interface Facts {
  readonly options: DoctorOptions;
  readonly nodeVersion: string;
  readonly kernelRelease: string;
  readonly kernelConfig: Seen<ReadonlyMap<string, string>>;
  readonly bpfJit: Seen<string>;
  readonly status: Seen<string>;
  readonly mounts: Seen<string>;
  readonly libbpf: Seen<string>;
  readonly libpcap: Seen<string>;
  readonly bridgeNf: readonly { readonly name: string; readonly value: Seen<string> }[];
  readonly links: Seen<readonly Link[]>;
  readonly offloads: readonly { readonly port: string; readonly features: Seen<ReadonlyMap<string, boolean>> }[];
  readonly clockSource: Seen<string>;
  /** Names of what is in /usr/sbin. */
  readonly programs: Seen<readonly string[]>;
  readonly pins: Seen<readonly string[]>;
  readonly rawSocket: Seen<string>;
  readonly fences: Seen<readonly FenceSeen[]>;
  readonly daemon: DaemonSeen;
  /** Absent where the options have none. */
  readonly road?: RoadSeen;
}

/** Of the IP packet. */
const PING_BYTES = 84;
const BRIDGE_NF = ['bridge-nf-call-iptables', 'bridge-nf-call-ip6tables', 'bridge-nf-call-arptables'];

export async function look(system: System, options: DoctorOptions): Promise<Facts> {
  const ports = [...new Set([...options.ports, ...(options.wanted ?? []).map((wanted) => wanted.port)])];
  const links = await system.links();
  return {
    options,
    nodeVersion: system.nodeVersion,
    kernelRelease: system.kernelRelease,
    kernelConfig: await system.kernelConfig(),
    bpfJit: await system.readText('/proc/sys/net/core/bpf_jit_enable'),
    status: await system.readText('/proc/self/status'),
    mounts: await system.readText('/proc/self/mounts'),
    libbpf: await system.library('libbpf.so.1'),
    libpcap: await system.library('libpcap.so'),
    bridgeNf: await Promise.all(BRIDGE_NF.map(async (name) => ({ name, value: await system.readText(`/proc/sys/net/bridge/${name}`) }))),
    links,
    offloads: await Promise.all(ports.map(async (port) => ({ port, features: await system.offloads(port) }))),
    clockSource: await system.readText('/sys/devices/system/clocksource/clocksource0/current_clocksource'),
    programs: await system.list('/usr/sbin'),
    pins: await system.list(options.bpffs),
    rawSocket: await system.rawSocket(),
    fences: await system.fences(),
    daemon: await system.daemon(),
    ...(options.road === undefined ? {} : { road: await lookDown(system, options.road, innerBytes(links, ports)) }),
  };
}

const MTU_DEFAULT = 1500;
const innerBytes = (links: Seen<readonly Link[]>, ports: readonly string[]): number =>
  Math.max(...(links.kind === 'seen' ? links.value.filter(({ name }) => ports.includes(name)).map(({ mtu }) => mtu) : []), MTU_DEFAULT);

/** Local ports in a table of the kernel's UDP sockets, as /proc/net/udp and udp6 show it: `sl: ADDRESS:PORT …`, in hex. */
export const udpPortsOf = (sockets: string): number[] => [...sockets.matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) /gm)].map(([, port = '']) => Number.parseInt(port, 16));

/** Of the namespace that this process is in. Without IPv6 in the kernel there is no second table. */
async function lookAtUdp(system: System): Promise<Seen<ReadonlySet<number>>> {
  const [four, six] = [await system.readText('/proc/self/net/udp'), await system.readText('/proc/self/net/udp6')];
  if (four.kind !== 'seen') return four;
  if (six.kind === 'hidden') return six;
  return seen(new Set([...udpPortsOf(four.value), ...(six.kind === 'seen' ? udpPortsOf(six.value) : [])]));
}

async function lookDown(system: System, { self, hosts, outerBytes }: RoadWanted, inner: number): Promise<RoadSeen> {
  const others = Object.entries(hosts).filter(([host]) => host !== self);
  const peers = others.map(async ([host, address]) =>
    ({ host, address, small: await system.ping(address, PING_BYTES), large: await system.ping(address, inner + outerBytes) }));
  return { addresses: await system.addresses(), udpPorts: await lookAtUdp(system), innerBytes: inner, peers: await Promise.all(peers) };
}

/** A check is a name and a pure function; a check with nothing to say returns no finding. */
export interface Check {
  readonly name: string;
  readonly verdict: (facts: Facts) => readonly Verdict[];
}
export type Verdict = Omit<Finding, 'check'>;

export function examine(facts: Facts, checks: readonly Check[]): readonly Finding[] {
  return checks.flatMap((check) => check.verdict(facts).map((verdict) => ({ check: check.name, ...verdict })));
}
