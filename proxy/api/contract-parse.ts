/**
 * The border: API shapes become core values here, once; nothing behind it checks them again.
 *
 *     JSON or YAML ──► checker (shape) ──► what a schema can't say (unique, one of two forms) ──► GroupSpec
 *
 * and back again: a GroupSpec shown in the shape its user wrote.
 */
import type { GroupSpec, MemberSpec, NicSpec, Wire } from '../core/types.ts';
import { bad, checker, good } from './contract-explain.ts';
import type { Parsed } from './contract-explain.ts';
import { GroupBody as GroupBodySchema, LIMITS, MemberBody as MemberBodySchema } from './contract-schema.ts';
import type { GroupBody, GroupFile, MemberBody, MemberFile } from './contract-schema.ts';

const checkGroup = checker(GroupBodySchema);
const checkMember = checker(MemberBodySchema);

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** Bytes of "64MiB" or 67108864; undefined when it is neither. */
export function parseSize(size: string | number): number | undefined {
  if (typeof size === 'number') return size;
  const match = /^([0-9]+(?:\.[0-9]+)?) ?(KiB|MiB|GiB|B)?$/.exec(size);
  const factor = UNITS[match?.[2] ?? 'B'];
  return match === null || factor === undefined ? undefined : Math.floor(Number(match[1]) * factor);
}

/** A whole group file, or a PUT body with the name from the path. */
export function parseGroup(input: unknown, nameInPath?: string): Parsed<GroupSpec> {
  const shape = checkGroup(input);
  if (!shape.ok) return shape;
  const body = shape.value;
  if (body.group === undefined && nameInPath === undefined) return bad([], 'field "group" is missing; expected a group name: 1 to 32 of the characters a-z, 0-9 and "-"');
  if (body.group !== undefined && nameInPath !== undefined && body.group !== nameInPath) {
    return bad(['group'], `"${body.group}" is not the group in the path; expected "${nameInPath}"`);
  }
  const members: MemberSpec[] = [];
  for (const [index, entry] of body.members.entries()) {
    const member = memberOf(entry, entry.name, ['members', index]);
    if (!member.ok) return member;
    members.push(member.value);
  }
  const twice = findTwice(members);
  if (twice !== undefined) return twice;
  return finishGroup(body, body.group ?? nameInPath ?? '', members);
}

function finishGroup(body: GroupBody, group: string, members: readonly MemberSpec[]): Parsed<GroupSpec> {
  const bytes = parseSize(body.hold?.bytes ?? LIMITS.holdBytesDefault);
  if (bytes === undefined || bytes < LIMITS.holdBytesMin || bytes > LIMITS.holdBytesMax) {
    return bad(['hold', 'bytes'], `${JSON.stringify(body.hold?.bytes)} is out of range; expected 1MiB to 4GiB, as 64MiB`);
  }
  const wire = wireOf(body.wire);
  if (wire === 'unsound') return bad(['wire'], 'expected { vlan } or { vxlan, hosts }, one of the two and whole');
  return good({
    group,
    commit: body.commit ?? (members.some(({ host }) => host !== undefined) ? 'acks' : 'explicit'),
    members,
    hold: { bytes, highWater: body.hold?.highWater ?? LIMITS.highWaterDefault },
    foreignSource: body.foreignSource ?? 'hold',
    intraPath: body.intraPath ?? 'redirect',
    ...(wire === undefined ? {} : { wire }),
  });
}

function wireOf(given: GroupBody['wire']): Wire | 'unsound' | undefined {
  if (given === undefined) return undefined;
  const { vlan, vxlan, hosts } = given;
  if (vlan !== undefined) return vxlan === undefined && hosts === undefined ? { vlan } : 'unsound';
  return vxlan === undefined || hosts === undefined ? 'unsound' : { vxlan, hosts };
}

/** A PUT …/members/{m} body. */
export function parseMember(input: unknown, nameInPath: string): Parsed<MemberSpec> {
  const shape = checkMember(input);
  if (!shape.ok) return shape;
  const name = shape.value.name ?? nameInPath;
  if (name !== nameInPath) return bad(['name'], `"${name}" is not the member in the path; expected "${nameInPath}"`);
  const member = memberOf(shape.value, name, []);
  return member.ok ? (findTwice([member.value], []) ?? member) : member;
}

function memberOf(entry: MemberBody, name: string, path: readonly (string | number)[]): Parsed<MemberSpec> {
  const single = entry.port !== undefined || entry.mac !== undefined || entry.vlan !== undefined || entry.addresses !== undefined;
  if (single && entry.nics !== undefined) return bad(path, `member "${name}" has both port/mac and nics; write one of the two`);
  if (single && entry.port === undefined) return bad(path, `member "${name}" has no "port"; expected the name of its bridge port`);
  if (single && entry.mac === undefined) return bad(path, `member "${name}" has no "mac"; expected a MAC address in quotes`);
  const { port = '', mac: ownMac = '', vlan, addresses } = entry;
  const list = entry.nics ?? [{ port, mac: ownMac, ...(vlan === undefined ? {} : { vlan }), ...(addresses === undefined ? {} : { addresses }) }];
  if (entry.nics === undefined && !single) return bad(path, `member "${name}" has no port; write port and mac, or nics`);
  const nics: NicSpec[] = [];
  for (const [index, nic] of list.entries()) {
    const mac = nic.mac.toLowerCase();
    const place = entry.nics === undefined ? [...path, 'mac'] : [...path, 'nics', index, 'mac'];
    if (mac === '00:00:00:00:00:00' || (parseInt(mac.slice(0, 2), 16) & 1) === 1) {
      return bad(place, `"${nic.mac}" is not an address of a NIC; expected a unicast MAC address`);
    }
    const announced = addressesOf(nic.addresses ?? [], [...place.slice(0, -1), 'addresses']);
    if (!announced.ok) return announced;
    nics.push({ port: nic.port, mac, vlan: nic.vlan ?? 0, ...(announced.value.length === 0 ? {} : { addresses: announced.value }) });
  }
  return good({ name, ...(entry.host === undefined ? {} : { host: entry.host }), nics });
}

/** In their shortest form, so that two ways to write one address are the same address. */
function addressesOf(texts: readonly string[], path: readonly (string | number)[]): Parsed<readonly string[]> {
  const addresses: string[] = [];
  for (const [index, text] of texts.entries()) {
    const address = shortest(text);
    if (address === undefined) return bad([...path, index], `"${text}" is no address that a NIC has; expected an IPv4 or IPv6 unicast address, without prefix length or zone`);
    if (!addresses.includes(address)) addresses.push(address);
  }
  return good(addresses);
}

const IPV4 = /^\d{1,3}(\.\d{1,3}){3}$/;
const IPV4_OTHER = /^(0|127|22[4-9]|2[34]\d|25\d)\./;
const IPV6 = /^[0-9a-f:.]+$/i;
const IPV6_OTHER = /^(ff..:|::1?$|::ffff:)/;

/** Of a unicast address; undefined for anything else. A URL's host is where the platform writes the shortest form. */
function shortest(text: string): string | undefined {
  const [host, other] = IPV4.test(text) ? [text, IPV4_OTHER] : [`[${text}]`, IPV6_OTHER];
  if (other === IPV6_OTHER && !IPV6.test(text)) return undefined;
  if (!URL.canParse(`http://${host}`)) return undefined;
  const address = new URL(`http://${host}`).hostname.replace(/^\[|\]$/g, '');
  if (other === IPV4_OTHER && address !== text) return undefined;
  return other.test(address) ? undefined : address;
}

/** Names, ports (of a host) and MACs are one member's only (D1). The second one is reported. */
function findTwice(members: readonly MemberSpec[], base?: readonly (string | number)[]): { ok: false; problem: { path: (string | number)[]; message: string } } | undefined {
  const seen = new Map<string, string>();
  let count = 0;
  for (const [index, member] of members.entries()) {
    const path = [...(base ?? ['members', index])];
    const failure = (message: string): ReturnType<typeof findTwice> => ({ ok: false, problem: { path, message } });
    if (seen.has(`name ${member.name}`)) return failure(`the name "${member.name}" is used twice; each member needs its own`);
    seen.set(`name ${member.name}`, member.name);
    for (const nic of member.nics) {
      for (const [what, value] of [['port', nic.port], ['MAC', nic.mac]] as const) {
        const key = `${what} ${value} ${what === 'port' ? (member.host ?? '') : ''}`;
        const owner = seen.get(key);
        if (owner !== undefined) return failure(`${what} ${value} is used twice, by "${owner}" and "${member.name}"; each NIC needs its own`);
        seen.set(key, member.name);
      }
      if (++count > LIMITS.nicsMax) return failure(`a group has at most ${LIMITS.nicsMax} NICs`);
    }
  }
  return undefined;
}

/** The group file a spec came from, as GET shows it; parseGroup of it gives the spec again. */
export function groupFileOf(spec: GroupSpec): GroupFile {
  return {
    group: spec.group,
    commit: spec.commit,
    members: spec.members.map(memberFileOf),
    hold: { bytes: spec.hold.bytes, highWater: spec.hold.highWater },
    foreignSource: spec.foreignSource,
    intraPath: spec.intraPath,
    ...(spec.wire === undefined ? {} : { wire: 'vlan' in spec.wire ? { vlan: spec.wire.vlan } : { vxlan: spec.wire.vxlan, hosts: { ...spec.wire.hosts } } }),
  };
}

function memberFileOf(member: MemberSpec): MemberFile {
  const nics = member.nics.map(({ port, mac, vlan, addresses }) =>
    ({ port, mac, ...(vlan === 0 ? {} : { vlan }), ...(addresses === undefined ? {} : { addresses: [...addresses] }) }));
  const [first] = nics;
  const who = { name: member.name, ...(member.host === undefined ? {} : { host: member.host }) };
  return nics.length === 1 && first !== undefined ? { ...who, ...first } : { ...who, nics };
}
