/** Questions about a group's spec: is it sound, are two the same, what differs. Pure. */
import { GROUP_NICS_MAX } from './types.ts';
import type { GroupSpec, MemberSpec, NicSpec, Wire } from './types.ts';

function firstTwice(values: readonly string[]): string | undefined {
  const seen = new Set<string>();
  return values.find((value) => seen.size === seen.add(value).size);
}

/** What is wrong with it, one sentence with what to do; undefined = sound. */
export function specFault(spec: GroupSpec): string | undefined {
  const nics = spec.members.flatMap((member) => member.nics);
  if (spec.members.length === 0) return 'a group has at least one member: name one';
  if (nics.length > GROUP_NICS_MAX) return `${nics.length} nics are more than a group's ${GROUP_NICS_MAX}: split the group`;
  const bare = spec.members.find((member) => member.nics.length === 0);
  if (bare !== undefined) return `member ${bare.name} has no nic: give it a port and a mac`;
  const name = firstTwice(spec.members.map((member) => member.name));
  if (name !== undefined) return `two members are called ${name}: rename one`;
  const port = firstTwice(spec.members.flatMap(({ host, nics: own }) => own.map((nic) => (host === undefined ? nic.port : `${nic.port} of host ${host}`))));
  if (port !== undefined) return `port ${port} is named twice: a nic has a port of its own`;
  const elsewhere = hostsFault(spec);
  if (elsewhere !== undefined) return elsewhere;
  const address = firstTwice(nics.map((nic) => `${nic.mac} (vlan ${nic.vlan})`));
  if (address !== undefined) return `mac ${address} is named twice: a nic has an address of its own`;
  return undefined;
}

export const isAcross = (spec: GroupSpec): boolean => spec.members.some(({ host }) => host !== undefined);

/** Most hosts of a group: their acks fit into one transaction with its head. */
export const GROUP_HOSTS_MAX = 64;

function hostsFault({ members, wire, commit }: GroupSpec): string | undefined {
  const hosts = new Set(members.map(({ host }) => host));
  if (hosts.size === 1 && hosts.has(undefined)) return wire === undefined ? undefined : 'wire is for a group across hosts: give its members a host, or take it out';
  if (hosts.has(undefined)) return 'some members have a host and some have none: give all of them one';
  if (hosts.size > GROUP_HOSTS_MAX) return `${hosts.size} hosts are more than a group's ${GROUP_HOSTS_MAX}: split the group`;
  if (hosts.size > 1 && wire === undefined) return 'members are on several hosts: say wire: { vlan } or { vxlan, hosts } for the frames between them';
  const wrong = wire === undefined || 'vlan' in wire ? undefined : roadFault(wire.hosts, [...hosts].flatMap((host) => host ?? []));
  if (wrong !== undefined) return wrong;
  return commit === 'acks' ? undefined : 'a group across hosts commits by its acks: write commit: acks';
}

const IPV4 = /^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){4}$/;
/** This network, the host itself, multicast, and what is reserved up to the broadcast address. */
const NO_HOST = /^(0|127|22[4-9]|23\d|24\d|25[0-5])\./;
/** By VXLAN each host is reached at an address of its own. */
function roadFault(hosts: Readonly<Record<string, string>>, homes: readonly string[]): string | undefined {
  const lost = homes.find((host) => !Object.hasOwn(hosts, host));
  if (lost !== undefined) return `host ${lost} has no address in wire.hosts: add ${lost}: <its IPv4 address>`;
  const bad = Object.entries(hosts).find(([, address]) => !IPV4.test(address) || NO_HOST.test(address));
  if (bad !== undefined) return `${bad[1]} of host ${bad[0]} is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1`;
  const twice = firstTwice(Object.values(hosts));
  return twice === undefined ? undefined : `address ${twice} is named twice in wire.hosts: a host has one of its own`;
}

const sameNic = (a: NicSpec, b: NicSpec): boolean => a.port === b.port && a.mac === b.mac && a.vlan === b.vlan;

export function sameNics(a: MemberSpec, b: MemberSpec): boolean {
  return a.nics.length === b.nics.length && a.nics.every((nic, i) => b.nics.some((other, j) => i === j && sameNic(nic, other)));
}

/** The same addresses in the same order: what is announced, and nothing that holds or passes a frame. */
export const sameAddresses = (a: MemberSpec, b: MemberSpec): boolean =>
  a.nics.every((nic, i) => (nic.addresses ?? []).join() === (b.nics[i]?.addresses ?? []).join());

export const sameHold = (a: GroupSpec, b: GroupSpec): boolean =>
  a.hold.bytes === b.hold.bytes && a.hold.highWater === b.hold.highWater;

function sameWire(a: Wire | undefined, b: Wire | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if ('vlan' in a || 'vlan' in b) return 'vlan' in a && 'vlan' in b && a.vlan === b.vlan;
  const names = Object.keys(a.hosts);
  return a.vxlan === b.vxlan && names.length === Object.keys(b.hosts).length && names.every((name) => a.hosts[name] === b.hosts[name]);
}

/** Equal but for the order in which members are named. */
export function sameSpec(a: GroupSpec, b: GroupSpec): boolean {
  return (
    a.group === b.group &&
    a.commit === b.commit &&
    a.foreignSource === b.foreignSource &&
    a.intraPath === b.intraPath &&
    sameHold(a, b) &&
    sameWire(a.wire, b.wire) &&
    a.members.length === b.members.length &&
    a.members.every((member) => b.members.some((other) => other.name === member.name && other.host === member.host && sameNics(member, other) && sameAddresses(member, other)))
  );
}

/** Members of `now` that `wanted` lacks or gives other nics: a protected group would lose frames of them. */
export function lostMembers(now: GroupSpec, wanted: GroupSpec): readonly MemberSpec[] {
  return now.members.filter((member) => !wanted.members.some((other) => other.name === member.name && sameNics(member, other)));
}

/** Who moves and says nothing of its addresses keeps them. */
const keepingAddresses = (then: MemberSpec, now: MemberSpec): MemberSpec =>
  ({ ...then, nics: then.nics.map((nic, i) => ({ ...now.nics[i], ...nic })) });

/** The spec with its members at the ports that `moved` gives them; a sentence when they are not the same members. */
export function movedTo(spec: GroupSpec, moved: readonly MemberSpec[]): GroupSpec | string {
  const found = spec.members.map(({ name }) => moved.find((other) => other.name === name));
  const stays = (now: NicSpec, then: NicSpec | undefined): boolean => now.mac === then?.mac && now.vlan === then.vlan;
  const isSame = moved.length === spec.members.length && spec.members.every(({ nics }, i) =>
    nics.length === found[i]?.nics.length && nics.every((nic, j) => stays(nic, found[i]?.nics[j])));
  if (!isSame) return 'a takeover moves members to other ports and nothing else: name every member with its nics in order';
  const next = { ...spec, members: spec.members.flatMap((now, i) => (found[i] === undefined ? [] : [keepingAddresses(found[i], now)])) };
  return specFault(next) ?? next;
}

export function newMembers(now: GroupSpec, wanted: GroupSpec): readonly MemberSpec[] {
  return wanted.members.filter((member) => !now.members.some((other) => other.name === member.name));
}
