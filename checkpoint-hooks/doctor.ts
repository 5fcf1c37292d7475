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
}

/** What a group file says of ports: enough for the checks. */
export interface PortWanted {
  readonly member: string;
  readonly port: string;
  readonly mac: string;
}

export type DaemonSeen =
  | { readonly kind: 'ready' }
  | { readonly kind: 'not_ready'; readonly missing: readonly string[] }
  | { readonly kind: 'unreachable'; readonly message: string; readonly fix: string };

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
  /** Path of a shared library the loader would find. */
  library(name: string): Promise<Seen<string>>;
  /** Whether a raw ICMP socket can be opened by the package that probes isolation addresses. */
  rawSocket(): Promise<Seen<string>>;
  daemon(): Promise<DaemonSeen>;
}

export interface DoctorOptions {
  /** Ports whose offloads are looked at, besides the group's. */
  readonly ports: readonly string[];
  /** Ports of the group file; undefined = no group file was given. */
  readonly wanted: readonly PortWanted[] | undefined;
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
  readonly daemon: DaemonSeen;
}

const BRIDGE_NF = ['bridge-nf-call-iptables', 'bridge-nf-call-ip6tables', 'bridge-nf-call-arptables'];

export async function look(system: System, options: DoctorOptions): Promise<Facts> {
  const ports = [...new Set([...options.ports, ...(options.wanted ?? []).map((wanted) => wanted.port)])];
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
    links: await system.links(),
    offloads: await Promise.all(ports.map(async (port) => ({ port, features: await system.offloads(port) }))),
    clockSource: await system.readText('/sys/devices/system/clocksource/clocksource0/current_clocksource'),
    programs: await system.list('/usr/sbin'),
    pins: await system.list(options.bpffs),
    rawSocket: await system.rawSocket(),
    daemon: await system.daemon(),
  };
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
