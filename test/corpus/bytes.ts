/**
 * Writing frames by bytes: addresses, headers, checksums, and a seeded source of numbers.
 *
 * Every builder takes parts and returns new bytes; nothing is kept. Checksums are right unless a
 * kind of the corpus asks otherwise.
 */

/** A seeded generator of u32 (xorshift32): the same seed gives the same corpus. */
export class Seeded {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed >>> 0) || 0x9e3779b9;
  }
  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }
  below(n: number): number {
    return this.u32() % n;
  }
  bytes(n: number): Uint8Array {
    return Uint8Array.from({ length: n }, () => this.u32() & 0xff);
  }
}

export type Part = Uint8Array | readonly number[] | string;

export function join(...parts: Part[]): Uint8Array {
  const all = parts.map((part) => (typeof part === 'string' ? hex(part) : Uint8Array.from(part)));
  const whole = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of all) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Bytes from hexadecimal text; colons and blanks are skipped. */
export function hex(text: string): Uint8Array {
  const digits = text.replace(/[:\s]/g, '');
  if (!/^([0-9a-f]{2})*$/i.test(digits)) throw new Error(`not hexadecimal: ${text}`);
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

export const u16 = (value: number): number[] => [(value >>> 8) & 0xff, value & 0xff];
export const u32 = (value: number): number[] => [...u16(value >>> 16), ...u16(value & 0xffff)];
export const filled = (n: number, value: number): Uint8Array => new Uint8Array(n).fill(value);

/** Internet checksum of the parts taken together. */
export function checksum(...parts: Part[]): number {
  const bytes = join(...parts);
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export const ethernet = (dst: Part, src: Part, type: number, payload: Part): Uint8Array => join(dst, src, u16(type), payload);
/** 802.3: a length where Ethernet II has the type. */
export const llc = (dst: Part, src: Part, payload: Part): Uint8Array => join(dst, src, u16(join(payload).length), payload);
/** A tag as it stands before the inner type: TPID and TCI. */
export const tag = (tpid: number, vid: number, priority = 0): number[] => [...u16(tpid), ...u16((priority << 13) | vid)];
/** The frame with tags between its addresses and its type. */
export const tagged = (frame: Uint8Array, ...tags: Part[]): Uint8Array => join(frame.subarray(0, 12), ...tags, frame.subarray(12));

export interface Ip4 {
  readonly protocol: number;
  readonly payload: Part;
  readonly src?: Part;
  readonly dst?: Part;
  readonly id?: number;
  /** Flags and offset, as they stand in the header. */
  readonly fragment?: number;
  readonly ttl?: number;
  readonly tos?: number;
  /** Whole words. */
  readonly options?: Part;
  /** Added to the right checksum; not 0 = wrong. */
  readonly spoil?: number;
}

export const IP4_SRC = [10, 81, 0, 1];
export const IP4_DST = [10, 81, 0, 254];

export function ipv4(ip: Ip4): Uint8Array {
  const options = join(ip.options ?? []);
  const payload = join(ip.payload);
  const words = 5 + options.length / 4;
  const head = (sum: number): Uint8Array => join(
    [0x40 | words, ip.tos ?? 0], u16(words * 4 + payload.length), u16(ip.id ?? 1), u16(ip.fragment ?? 0),
    [ip.ttl ?? 64, ip.protocol], u16(sum), ip.src ?? IP4_SRC, ip.dst ?? IP4_DST, options,
  );
  return join(head((checksum(head(0)) + (ip.spoil ?? 0)) & 0xffff), payload);
}

export const IP6_SRC = hex('fe80 0000 0000 0000 0051 00ff fe00 0001');
export const IP6_DST = hex('fe80 0000 0000 0000 0051 00ff fe00 00fe');

export const ipv6 = (next: number, payload: Part, dst: Part = IP6_DST, src: Part = IP6_SRC, hops = 64): Uint8Array => {
  const body = join(payload);
  return join(u32(0x60000000), u16(body.length), [next, hops], src, dst, body);
};

const pseudo4 = (protocol: number, bytes: number): Uint8Array => join(IP4_SRC, IP4_DST, [0, protocol], u16(bytes));
const pseudo6 = (next: number, bytes: number, dst: Part): Uint8Array => join(IP6_SRC, dst, u32(bytes), [0, 0, 0, next]);

export function udp(payload: Part, port = 5789, spoil = 0, over: 4 | 6 = 4): Uint8Array {
  const body = join(payload);
  const bytes = 8 + body.length;
  const pseudo = over === 4 ? pseudo4(17, bytes) : pseudo6(17, bytes, IP6_DST);
  const whole = (sum: number): Uint8Array => join(u16(40000), u16(port), u16(bytes), u16(sum), body);
  return whole((checksum(pseudo, whole(0)) + spoil) & 0xffff || 0xffff);
}

export function tcp(payload: Part, flags: number, options: Part = [], spoil = 0, over: 4 | 6 = 4): Uint8Array {
  const body = join(payload);
  const extra = join(options);
  const words = 5 + extra.length / 4;
  const bytes = words * 4 + body.length;
  const pseudo = over === 4 ? pseudo4(6, bytes) : pseudo6(6, bytes, IP6_DST);
  const whole = (sum: number): Uint8Array =>
    join(u16(40001), u16(80), u32(1000), u32(2000), [words << 4, flags], u16(65535), u16(sum), u16(0), extra, body);
  return whole((checksum(pseudo, whole(0)) + spoil) & 0xffff);
}

export function icmp6(type: number, code: number, body: Part, dst: Part = IP6_DST): Uint8Array {
  const whole = (sum: number): Uint8Array => join([type, code], u16(sum), body);
  const sum = checksum(pseudo6(58, whole(0).length, dst), whole(0));
  return whole(sum);
}

export function icmp4(type: number, code: number, body: Part): Uint8Array {
  const whole = (sum: number): Uint8Array => join([type, code], u16(sum), body);
  return whole(checksum(whole(0)));
}
