/**
 * The hold pair of a group, the VXLAN device of groups by VXLAN, and the file system that pins live on.
 *
 *   bridge side  slh<id> ═══veth═══ slr<id>  ring side        slx  in no bridge
 *    the pool's  slhp    ═══veth═══ slrp     the same, of all groups without a ring of their own (D102)
 *      lanes in  slq<id> ═══veth═══ slo<id>  and out
 *
 * Both ends: MTU 65535 (a larger frame than the MTU dies silently in veth), no IPv6, no ARP, an
 * alias that says whose they are, and only those offloads whose frames a virtio_net_hdr can
 * describe; whatever else arrives as a super-frame (tunnels, SCTP, fragment lists) is segmented by
 * the stack before it enters. A device of the same name with another alias is not touched.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { release as kernelRelease } from 'node:os';
import { lockExclusively } from './ffi/flock.ts';
import { MissingPart } from './ffi/libbpf.ts';
import { SystemError, close, must, socket } from './ffi/libc.ts';
import { LITTLE, Struct, fixedBytes } from './ffi/struct.ts';
import { ioctl, mount } from './ffi/sys.ts';
import { EEXIST } from './netlink.ts';
import type { Link, Netlink, Veth } from './netlink.ts';

const MTU = 65535;
const BPF_FS_MAGIC = 0xcafe4a11;
const EOPNOTSUPP = 95;
const EADDRINUSE = 98;

// ------------------------------------------------------------------------------- offload features

const SIOCETHTOOL = 0x8946;
const ETHTOOL = { strings: 0x1b, stringSets: 0x37, setFeatures: 0x3b } as const;
const SS_FEATURES = 4;
const STRING_BYTES = 32;

/** Segmentation that virtio_net_hdr can describe. Anything else of its kind is switched off. */
const EXPRESSIBLE = new Set(['tx-tcp-segmentation', 'tx-tcp6-segmentation', 'tx-tcp-ecn-segmentation', 'tx-udp-fragmentation', 'tx-gso-robust']);
/** virtio_net_hdr learnt UDP segmentation in 6.2. */
const USO_SINCE = [6, 2] as const;

function expressible(feature: string): boolean {
  if (feature === 'tx-udp-segmentation') return kernelAtLeast(...USO_SINCE);
  if (/^tx-(gso-|.*-segmentation$)/.test(feature)) return EXPRESSIBLE.has(feature);
  // Its checksum is not the one that a virtio_net_hdr can ask for.
  return feature !== 'tx-checksum-sctp' && feature !== 'tx-checksum-fcoe-crc';
}
export function kernelAtLeast(major: number, minor: number): boolean {
  const [a = 0, b = 0] = kernelRelease().split('.').map((part) => Number.parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}

function ethtool(fd: number, device: string, command: Uint8Array): void {
  const request = new Struct(40).pointer(16, command);
  request.set(Buffer.from(device).subarray(0, 15));
  ioctl(fd, SIOCETHTOOL, request, `ethtool ${device}`);
}
const words = (bytes: Uint8Array): DataView => new DataView(bytes.buffer);

function featureNames(fd: number, device: string): string[] {
  const sets = fixedBytes(24);
  words(sets).setUint32(0, ETHTOOL.stringSets, LITTLE);
  words(sets).setBigUint64(8, 1n << BigInt(SS_FEATURES), LITTLE);
  ethtool(fd, device, sets);
  const count = words(sets).getUint32(16, LITTLE);
  const strings = fixedBytes(12 + count * STRING_BYTES);
  words(strings).setUint32(0, ETHTOOL.strings, LITTLE);
  words(strings).setUint32(4, SS_FEATURES, LITTLE);
  words(strings).setUint32(8, count, LITTLE);
  ethtool(fd, device, strings);
  const text = Buffer.from(strings.buffer);
  return Array.from({ length: count }, (_, i) =>
    text.subarray(12 + i * STRING_BYTES, 12 + (i + 1) * STRING_BYTES).toString('latin1').replace(/\0.*$/s, ''));
}

/** Switches off what a virtio_net_hdr can't say. Features that the device fixes stay as they are. */
function limitOffloads(device: string): void {
  const fd = must(socket(2, 2, 0), 'socket', 'ethtool');
  try {
    const names = featureNames(fd, device);
    const blocks = Math.ceil(names.length / 32);
    const set = fixedBytes(8 + blocks * 8);
    words(set).setUint32(0, ETHTOOL.setFeatures, LITTLE);
    words(set).setUint32(4, blocks, LITTLE);
    names.forEach((name, i) => {
      if (!name.startsWith('tx-') || expressible(name)) return;
      const at = 8 + (i >> 5) * 8;
      words(set).setUint32(at, (words(set).getUint32(at, LITTLE) | (1 << (i & 31))) >>> 0, LITTLE);
    });
    ethtool(fd, device, set);
  } finally {
    close(fd);
  }
}

// ------------------------------------------------------------------------------------ hold pair

export interface HoldPair {
  readonly holdIfindex: number;
  readonly ringIfindex: number;
}
export interface HoldNames {
  readonly hold: string;
  readonly ring: string;
}
/** Ends of the lanes' pair: the one with the queues, and where what was in them comes out. */
export interface LaneNames {
  readonly lane: string;
  readonly exit: string;
}
export interface LanePair {
  readonly laneIfindex: number;
  readonly exitIfindex: number;
}

/**
 * No address, no router solicitation. A kernel without IPv6 has no such file, a container may not write it: what the
 * device says of itself then is stopped like anyone's (D13).
 */
function disableIpv6(device: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '1');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && ['ENOENT', 'EROFS'].includes(String(error.code)))) throw error;
  }
}
function prepare(netlink: Netlink, link: Link, owner: string, limited = true): void {
  if (limited) limitOffloads(link.name);
  disableIpv6(link.name);
  netlink.quieten(link.ifindex, owner);
  netlink.setUp(link.ifindex);
}
const find = (links: readonly Link[], name: string): Link | undefined => links.find((link) => link.name === name);

/** As whoever is killed between making a device and saying whose it is leaves it. */
const isNameless = ({ alias, up, master }: Link): boolean => alias === '' && !up && master === 0;
/** Each other's end, both as they are made. */
const isPair = (a: Link, b: Link): boolean => a.peer === b.ifindex && b.peer === a.ifindex && a.mtu === MTU && b.mtu === MTU;
const othersDevice = ({ name, alias }: Link): MissingPart => new MissingPart(
  alias === '' ? `device ${name} exists already and is not ours` : `device ${name} exists already and belongs to '${alias}'`,
  alias === '' ? `remove or rename it (ip link del ${name}), or give sluiced a network namespace of its own` : 'end the other daemon, or give this one a network namespace of its own');

/** Makes the pair, or takes over the one that `owner` left there. */
export function ensureHoldPair(netlink: Netlink, names: HoldNames, owner: string): HoldPair {
  const [hold, ring] = ensurePair(netlink, { name: names.hold, peer: names.ring }, owner);
  for (const end of [ring, hold]) prepare(netlink, end, owner);
  return { holdIfindex: hold.ifindex, ringIfindex: ring.ifindex };
}
/** Deletes the pair if it is `owner`'s. */
export function deleteHoldPair(netlink: Netlink, names: HoldNames, owner: string): void {
  deletePair(netlink, names.hold, owner);
}
/** The same for the pair of the lanes. No frame of it is described to us: all offloads stay. */
export function ensureLanePair(netlink: Netlink, names: LaneNames, queues: number, owner: string): LanePair {
  const [lane, exit] = ensurePair(netlink, { name: names.lane, peer: names.exit, queues }, owner);
  try {
    for (const end of [exit, lane]) prepare(netlink, end, owner, false);
  } catch (error) {
    netlink.deleteLink(lane.ifindex);
    throw error;
  }
  return { laneIfindex: lane.ifindex, exitIfindex: exit.ifindex };
}
export function deleteLanePair(netlink: Netlink, names: LaneNames, owner: string): void {
  deletePair(netlink, names.lane, owner);
}

function ensurePair(netlink: Netlink, names: Veth, owner: string): [Link, Link] {
  let links = netlink.links();
  let there = find(links, names.name);
  const other = find(links, names.peer);
  const isHalfMade = there !== undefined && other !== undefined && isNameless(there) && (isNameless(other) || other.alias === owner) && isPair(there, other);
  if (there !== undefined && there.alias !== owner && !isHalfMade) throw othersDevice(there);
  if (there !== undefined && (isHalfMade || other === undefined)) {
    netlink.deleteLink(there.ifindex); // nothing went through it yet, or its other end went elsewhere: half a pair is none
    there = undefined;
  }
  if (there === undefined) {
    netlink.addVeth(names, MTU);
    links = netlink.links();
  }
  const first = find(links, names.name);
  const second = find(links, names.peer);
  if (first === undefined || second === undefined) throw new Error(`hold pair ${names.name}/${names.peer} is not complete`);
  return [first, second];
}
function deletePair(netlink: Netlink, name: string, owner: string): void {
  const there = find(netlink.links(), name);
  if (there?.alias === owner) netlink.deleteLink(there.ifindex);
}

// -------------------------------------------------------------------------------- VXLAN device

/** Of one daemon; other hosts' frames come in at this UDP port, so it is the same everywhere. */
export interface Tunnel {
  readonly name: string;
  readonly port: number;
}

/**
 * Makes the device, or takes over the one that `owner` left there; one of ours that is not as it must
 * be is made again. It has no queue: what the kernel is told of a frame it keeps per CPU only until the
 * device has sent it, so a frame that waited in a queue would leave with the next one's colour.
 */
export function ensureTunnel(netlink: Netlink, { name, port }: Tunnel, owner: string): number {
  let there = find(netlink.links(), name);
  if (there !== undefined && there.alias !== owner && !(isNameless(there) && fits(there, port))) throw othersDevice(there);
  if (there !== undefined && !fits(there, port)) {
    netlink.deleteLink(there.ifindex);
    there = undefined;
  }
  if (there === undefined) {
    addTunnel(netlink, name, port);
    there = find(netlink.links(), name);
  }
  if (there === undefined) throw new Error(`device ${name} is gone again`);
  if (there.alias !== owner || !there.up) {
    disableIpv6(name);
    netlink.quieten(there.ifindex, owner);
    openTunnel(netlink, there.ifindex, port);
  }
  return there.ifindex;
}
const fits = ({ vxlan, qdisc, up }: Link, port: number): boolean =>
  vxlan !== undefined && vxlan.external && vxlan.gbp && vxlan.port === port && (!up || qdisc === 'noqueue');

function addTunnel(netlink: Netlink, name: string, port: number): void {
  try {
    netlink.addVxlan(name, port);
  } catch (cause) {
    const code = cause instanceof SystemError ? cause.errno : 0;
    if (code === EEXIST) throw portTaken(port, cause);
    if (code === EOPNOTSUPP) throw new MissingPart('this kernel has no VXLAN devices', 'load or build the module vxlan (CONFIG_VXLAN), or use wire: { vlan }', cause);
    throw cause;
  }
}
/** Its UDP port is taken with that: by any other VXLAN device of the port, of one VNI too, it is refused only here. */
function openTunnel(netlink: Netlink, ifindex: number, port: number): void {
  try {
    netlink.setUp(ifindex);
  } catch (cause) {
    if (cause instanceof SystemError && cause.errno === EADDRINUSE) throw portTaken(port, cause);
    throw cause;
  }
}
const portTaken = (port: number, cause: unknown): MissingPart =>
  new MissingPart(`UDP port ${port} of this host is taken, by another VXLAN device or a socket`, 'set vxlan.port to another one, the same on all hosts', cause);

/** Deletes the device if it is `owner`'s. */
export function deleteTunnel(netlink: Netlink, name: string, owner: string): void {
  const there = find(netlink.links(), name);
  if (there?.alias === owner) netlink.deleteLink(there.ifindex);
}

// ----------------------------------------------------------------------------------------- pins

/** A directory on a bpf file system; `root` is mounted where it is not one yet. */
export function ensurePinDir(root: string, name: string): string {
  try {
    mkdirSync(root, { recursive: true });
    if (statfsSync(root).type !== BPF_FS_MAGIC) mount('bpf', root);
  } catch (cause) {
    const supported = readFileSync('/proc/filesystems', 'utf8').includes('\tbpf\n');
    throw new MissingPart(`${root} is not a bpf file system and can't be mounted`,
      supported ? 'run as root, or mount -t bpf bpf /sys/fs/bpf' : 'this kernel has no BPF file system (CONFIG_BPF_SYSCALL)', cause);
  }
  const dir = `${root}/${name}`;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return dir;
}

/** Nobody else has it until what it returns is closed, or the process ends. */
export function claimPinDir(dir: string): number {
  const fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  if (lockExclusively(fd)) return fd;
  closeSync(fd);
  throw new MissingPart(`pins ${dir} are in use by another sluiced`, 'stop that one, or give each pins of its own; without that setting they are named after the state directory');
}
