/**
 * Echo requests and what answers them, as bytes (RFC 792, RFC 4443). Pure.
 *
 *     type 1 | code 1 | checksum 2 | ident 2 | sequence 2 | cookie 8
 *
 * The cookie is random for each life of a prober: a raw socket hears every echo of the machine, and
 * an answer counts only with ours in it. ICMPv6's sum covers addresses that only the kernel knows
 * here, and a raw ICMPv6 socket puts it in by itself.
 */
const BYTES = 16;
const COOKIE_AT = 8;
export const COOKIE_BYTES = 8;
const REQUEST = { 4: 8, 6: 128 } as const;
const REPLY = { 4: 0, 6: 129 } as const;
export type Family = 4 | 6;

export function echoRequest(family: Family, ident: number, sequence: number, cookie: Uint8Array): Buffer {
  const bytes = Buffer.alloc(BYTES);
  bytes.writeUInt8(REQUEST[family], 0);
  bytes.writeUInt16BE(ident, 4);
  bytes.writeUInt16BE(sequence & 0xffff, 6);
  bytes.set(cookie, COOKIE_AT);
  if (family === 4) bytes.writeUInt16BE(sumOf(bytes), 2);
  return bytes;
}

/** Is this the answer to one of ours? `bytes`: as the raw socket gives them; IPv4's come with their IP header. */
export function isOurReply(family: Family, bytes: Uint8Array, ident: number, cookie: Uint8Array): boolean {
  const at = family === 4 ? ((bytes[0] ?? 0) & 0xf) * 4 : 0;
  if (bytes.length < at + BYTES) return false;
  const echo = Buffer.from(bytes.buffer, bytes.byteOffset + at, BYTES);
  return echo.readUInt8(0) === REPLY[family] && echo.readUInt8(1) === 0 && echo.readUInt16BE(4) === ident && echo.subarray(COOKIE_AT).equals(cookie);
}

/** The Internet checksum: of bytes with their own sum in place it is 0. */
export function sumOf(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
