/**
 * The frames that say where a nic is, and what address it has. Pure.
 *
 *     RARP                       the MAC; switches learn by it                       one a nic
 *     ARP request for itself     "gratuitous": neighbours and switches that keep     one an IPv4 address
 *                                tables of IPv4 addresses
 *     neighbour advertisement    the same for IPv6: unsolicited, override            one an IPv6 address
 *
 * Each has the nic's MAC as source, is tagged where the nic is, and says nothing of an execution:
 * addresses are the operator's word. The advertisement says "not a router", so that neighbours would
 * forget a default route through that address: a router's is not for the list.
 */
const ETH_ARP = 0x0806;
const ETH_RARP = 0x8035;
const ETH_IPV6 = 0x86dd;
const FRAME_BYTES_MIN = 60;
const BROADCAST = 'ffffffffffff';
/** ff02::1, all nodes of the link, and the group MAC it has. */
const ALL_NODES = Buffer.from('ff020000000000000000000000000001', 'hex');
const ALL_NODES_MAC = '333300000001';
const ICMPV6 = 58;

/** Where a nic is. */
export interface NicName {
  readonly mac: string;
  readonly vlan: number;
}

export function rarpFrame({ mac, vlan }: NicName): Uint8Array {
  const own = macBytes(mac);
  return frame(BROADCAST, { mac, vlan }, ETH_RARP, Buffer.from([0, 1, 8, 0, 6, 4, 0, 3, ...own, 0, 0, 0, 0, ...own, 0, 0, 0, 0]));
}

/** `address`: a parsed one, in its shortest form (contract-parse). */
export const addressFrame = (nic: NicName, address: string): Uint8Array =>
  (address.includes(':') ? advertisement(nic, ipv6Bytes(address)) : arpFrame(nic, address.split('.').map(Number)));

function arpFrame(nic: NicName, address: readonly number[]): Uint8Array {
  const body = Buffer.from([0, 1, 8, 0, 6, 4, 0, 1, ...macBytes(nic.mac), ...address, 0, 0, 0, 0, 0, 0, ...address]);
  return frame(BROADCAST, nic, ETH_ARP, body);
}

function advertisement(nic: NicName, address: Buffer): Uint8Array {
  const message = Buffer.from([136, 0, 0, 0, 0x20, 0, 0, 0, ...address, 2, 1, ...macBytes(nic.mac)]);
  const length = Buffer.from([0, 0, 0, message.length]);
  message.writeUInt16BE(checksum(Buffer.concat([address, ALL_NODES, length, Buffer.from([0, 0, 0, ICMPV6]), message])), 2);
  // Hop limit 255: a receiver believes no other.
  const header = Buffer.from([0x60, 0, 0, 0, 0, message.length, ICMPV6, 255]);
  return frame(ALL_NODES_MAC, nic, ETH_IPV6, Buffer.concat([header, address, ALL_NODES, message]));
}

function frame(to: string, { mac, vlan }: NicName, ethertype: number, body: Buffer): Uint8Array {
  const tag = vlan === 0 ? [] : [0x81, 0x00, vlan >> 8, vlan & 0xff];
  const head = Buffer.concat([Buffer.from(to, 'hex'), macBytes(mac), Buffer.from([...tag, ethertype >> 8, ethertype & 0xff])]);
  const whole = new Uint8Array(Math.max(FRAME_BYTES_MIN + tag.length, head.length + body.length));
  whole.set(head);
  whole.set(body, head.length);
  return whole;
}

const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');

function ipv6Bytes(text: string): Buffer {
  const [head = '', tail] = text.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const [before, after] = [groups(head), groups(tail ?? '')];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, '0')).join(''), 'hex');
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
