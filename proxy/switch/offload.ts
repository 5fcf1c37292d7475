/**
 * What a NIC with offloads would do to a frame before the wire, and libpcap cannot: the sum of a
 * TCP or UDP frame whose sender left it to the device, and a TCP super-frame cut into frames.
 *
 *   complete  the checksum field holds the sum of the pseudo header alone: that is how a stack
 *             leaves it for the device. Nothing else of the frame is looked at or changed.
 *   segment   headers copied, payload shared out; lengths, identification, sequence numbers, flags
 *             and sums as Linux sets them. The sender's own segment size is not known here: the
 *             segments are as large as the port takes.
 *
 * Only the outermost TCP or UDP over IPv4 or IPv6 without extension headers, below up to two VLAN
 * tags; tunnels and UDP segmentation are not done (`segment` says so: the frame is dropped and
 * counted; switch such offloads off in the guest). A frame from a wire is never touched, but one
 * whose wrong sum is by chance that of its pseudo header (1 in 65,536 of corrupted ones). Pure.
 */
import { HEADER_BYTES, TYPE_8021AD, TYPE_8021Q } from '../../classifier/frame.ts';

const TYPE_IPV4 = 0x0800;
const TYPE_IPV6 = 0x86dd;
const TCP = 6;
const UDP = 17;
const IPV6_BYTES = 40;
const TAGS_MAX = 2;
const FLAG_FIN_PSH = 0x09;
const FLAG_CWR = 0x80;

/** Where the parts of a TCP or UDP frame are. */
interface Parts {
  readonly ip: number;
  readonly version: 4 | 6;
  readonly protocol: typeof TCP | typeof UDP;
  /** First byte of the TCP or UDP header, and the end of what the IP header says is there. */
  readonly l4: number;
  readonly end: number;
}

const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;
function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}
const fold = (sum: number): number => {
  let folded = (sum & 0xffff) + Math.floor(sum / 0x10000);
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
};
function sumOf(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  const even = to - ((to - from) & 1);
  for (let at = from; at < even; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  return even < to ? sum + (bytes[even]! << 8) : sum;
}

function partsOf(bytes: Uint8Array): Parts | undefined {
  let at = HEADER_BYTES - 2;
  let type = bytes.length < HEADER_BYTES ? 0 : u16(bytes, at);
  for (let tags = 0; tags < TAGS_MAX && (type === TYPE_8021Q || type === TYPE_8021AD) && bytes.length >= at + 6; tags++) {
    at += 4;
    type = u16(bytes, at);
  }
  const ip = at + 2;
  if (type === TYPE_IPV4) return parts4(bytes, ip);
  return type === TYPE_IPV6 ? parts6(bytes, ip) : undefined;
}
function parts4(bytes: Uint8Array, ip: number): Parts | undefined {
  if (bytes.length < ip + 20 || bytes[ip]! >>> 4 !== 4) return undefined;
  const header = (bytes[ip]! & 15) * 4;
  const isFragment = (u16(bytes, ip + 6) & 0x3fff) !== 0;
  return header < 20 || isFragment ? undefined : checked(bytes, ip, 4, bytes[ip + 9]!, ip + header, ip + u16(bytes, ip + 2));
}
function parts6(bytes: Uint8Array, ip: number): Parts | undefined {
  if (bytes.length < ip + IPV6_BYTES || bytes[ip]! >>> 4 !== 6) return undefined;
  return checked(bytes, ip, 6, bytes[ip + 6]!, ip + IPV6_BYTES, ip + IPV6_BYTES + u16(bytes, ip + 4));
}
function checked(bytes: Uint8Array, ip: number, version: 4 | 6, protocol: number, l4: number, end: number): Parts | undefined {
  if (protocol !== TCP && protocol !== UDP) return undefined;
  const whole = end <= bytes.length && end >= l4 + (protocol === TCP ? 20 : 8);
  return whole ? { ip, version, protocol, l4, end } : undefined;
}

/** Folded, not complemented: as a stack leaves it in the field. */
function pseudoSum(bytes: Uint8Array, { ip, version, protocol }: Parts, l4Bytes: number): number {
  const addresses = version === 4 ? sumOf(bytes, ip + 12, ip + 20) : sumOf(bytes, ip + 8, ip + 40);
  return fold(addresses + protocol + l4Bytes);
}
const sumField = ({ protocol, l4 }: Parts): number => l4 + (protocol === TCP ? 16 : 6);

function putL4Sum(bytes: Uint8Array, parts: Parts): void {
  const field = sumField(parts);
  put16(bytes, field, pseudoSum(bytes, parts, parts.end - parts.l4));
  const sum = ~fold(sumOf(bytes, parts.l4, parts.end)) & 0xffff;
  put16(bytes, field, sum === 0 && parts.protocol === UDP ? 0xffff : sum);
}

/** In place. True where a sum was put in. */
export function complete(bytes: Uint8Array): boolean {
  const parts = partsOf(bytes);
  if (parts === undefined) return false;
  if (u16(bytes, sumField(parts)) !== pseudoSum(bytes, parts, parts.end - parts.l4)) return false;
  putL4Sum(bytes, parts);
  return true;
}

/** The frames of a super-frame, each of at most `mtu` bytes of IP; undefined = it can't be cut. */
export function segment(bytes: Uint8Array, mtu: number): Uint8Array[] | undefined {
  const parts = partsOf(bytes);
  if (parts === undefined || parts.protocol !== TCP) return undefined;
  const payload = parts.l4 + (bytes[parts.l4 + 12]! >>> 4) * 4;
  const room = mtu - (payload - parts.ip);
  if (payload < parts.l4 + 20 || payload >= parts.end || room <= 0) return undefined;
  const segments: Uint8Array[] = [];
  for (let at = payload; at < parts.end; at += room) {
    const until = Math.min(parts.end, at + room);
    const one = new Uint8Array(payload + until - at);
    one.set(bytes.subarray(0, payload));
    one.set(bytes.subarray(at, until), payload);
    finish(one, parts, segments.length, at - payload, until === parts.end);
    segments.push(one);
  }
  return segments;
}

function finish(one: Uint8Array, { ip, version, protocol, l4 }: Parts, index: number, offset: number, isLast: boolean): void {
  if (version === 4) {
    put16(one, ip + 2, one.length - ip);
    put16(one, ip + 4, u16(one, ip + 4) + index);
    put16(one, ip + 10, 0);
    put16(one, ip + 10, ~fold(sumOf(one, ip, l4)) & 0xffff);
  } else {
    put16(one, ip + 4, one.length - l4);
  }
  const sequence = new DataView(one.buffer, one.byteOffset + l4 + 4, 4);
  sequence.setUint32(0, (sequence.getUint32(0) + offset) >>> 0);
  if (!isLast) one[l4 + 13] = one[l4 + 13]! & ~FLAG_FIN_PSH;
  if (index > 0) one[l4 + 13] = one[l4 + 13]! & ~FLAG_CWR;
  putL4Sum(one, { ip, version, protocol, l4, end: one.length });
}
