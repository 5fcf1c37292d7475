/** What a NIC with offloads would have done (I9 on the portable plane), against sums made the plain way. */
import { describe, expect, test } from 'vitest';
import fc from 'fast-check';
import { complete, segment } from '../../proxy/switch/offload.ts';
import { ethernet, ipv4, ipv6, tag, tagged, tcp, udp } from '../corpus/bytes.ts';
import { corpus } from '../corpus/corpus.ts';

const A = Uint8Array.of(2, 0x51, 0, 0, 0, 1);
const B = Uint8Array.of(2, 0x51, 0, 0, 0, 0xfe);
const payload = (bytes: number): Uint8Array => new Uint8Array(bytes).map((_, i) => i * 31);

/** Ones' complement sum by the book: 16-bit words, end-around carry each time. */
function slowSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] ?? 0) * 256 + (bytes[i + 1] ?? 0);
    sum = (sum % 65536) + Math.floor(sum / 65536);
  }
  return sum;
}
interface Cut { readonly ip: number; readonly l4: number; readonly six: boolean }
const pseudo = (frame: Uint8Array, { ip, l4, six }: Cut, protocol: number): Uint8Array =>
  Uint8Array.of(...frame.subarray(six ? ip + 8 : ip + 12, six ? ip + 40 : ip + 20), 0, protocol, (frame.length - l4) >> 8, (frame.length - l4) & 255);
/** 0xffff = the sum is right. */
const verify = (frame: Uint8Array, at: Cut, protocol: number): number => slowSum(Uint8Array.of(...pseudo(frame, at, protocol), ...frame.subarray(at.l4)));
function partial(frame: Uint8Array, at: Cut, protocol: number): Uint8Array {
  const left = frame.slice();
  const field = at.l4 + (protocol === 6 ? 16 : 6);
  left.set([0, 0], field);
  const sum = slowSum(pseudo(left, at, protocol));
  left.set([sum >> 8, sum & 255], field);
  return left;
}
const four: Cut = { ip: 14, l4: 34, six: false };
const kinds: readonly [string, (n: number) => Uint8Array, Cut, number][] = [
  ['TCP over IPv4', (n) => ethernet(B, A, 0x0800, ipv4({ protocol: 6, payload: tcp(payload(n), 0x18) })), four, 6],
  ['UDP over IPv4', (n) => ethernet(B, A, 0x0800, ipv4({ protocol: 17, payload: udp(payload(n)) })), four, 17],
  ['TCP over IPv6', (n) => ethernet(B, A, 0x86dd, ipv6(6, tcp(payload(n), 0x18, [], 0, 6))), { ip: 14, l4: 54, six: true }, 6],
  ['TCP, tagged', (n) => tagged(ethernet(B, A, 0x0800, ipv4({ protocol: 6, payload: tcp(payload(n), 0x18) })), tag(0x8100, 100)), { ip: 18, l4: 38, six: false }, 6],
];

describe('complete', () => {
  test.each(kinds)('%s: a sum left to the device is put in', (_name, make, at, protocol) => {
    for (const n of [0, 1, 2, 501, 1400]) {
      const frame = partial(make(n), at, protocol);
      expect(complete(frame), `${n} bytes`).toBe(true);
      expect(verify(frame, at, protocol), `${n} bytes`).toBe(0xffff);
    }
  });
  test('a frame that is whole, or wrong in any other way, is not touched', () => {
    const [, make] = kinds[0] ?? ['', () => new Uint8Array(0)];
    fc.assert(fc.property(fc.integer({ min: 0, max: 1400 }), fc.nat(0xffff), (n, wrong) => {
      const frame = partial(make(n), four, 6);
      const left = (frame[50] ?? 0) * 256 + (frame[51] ?? 0);
      fc.pre(wrong !== left);
      frame.set([wrong >> 8, wrong & 255], 50);
      const before = frame.slice();
      expect(complete(frame)).toBe(false);
      expect(frame).toEqual(before);
    }), { numRuns: 200 });
  });
  test('nothing of the corpus is changed', () => {
    const changed = corpus({ source: A, outsider: B, mtu: 9000 }, 20_170_717).filter(({ bytes }) => {
      const copy = bytes.slice();
      complete(copy);
      return Buffer.compare(copy, bytes) !== 0;
    });
    expect(changed.map(({ name }) => name)).toEqual([]);
  });
  test('cut anywhere, filled with anything: no read beyond the end, no throw', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 90 }), fc.constantFrom(0x0800, 0x86dd, 0x8100, 0x88a8), (bytes, type) => {
      if (bytes.length >= 14) bytes.set([type >> 8, type & 255], 12);
      complete(bytes);
      segment(bytes, 1500);
    }), { numRuns: 2000 });
  });
});

describe('segment', () => {
  test.each(kinds.filter(([name]) => name.startsWith('TCP')))('%s: the segments are the super-frame', (_name, make, at) => {
    const whole = make(20_000);
    const segments = segment(partial(whole, at, 6), 1500) ?? [];
    const header = at.l4 + 20;
    expect(segments.length).toBe(Math.ceil(20_000 / (1500 - (header - at.ip))));
    const carried = Buffer.concat(segments.map((one) => one.subarray(header)));
    expect(Buffer.compare(carried, whole.subarray(header))).toBe(0);
    let sequence = new DataView(whole.buffer).getUint32(at.l4 + 4);
    for (const [i, one] of segments.entries()) {
      expect(one.length - at.ip).toBeLessThanOrEqual(1500);
      expect(verify(one, at, 6)).toBe(0xffff);
      if (!at.six) expect(slowSum(one.subarray(at.ip, at.l4))).toBe(0xffff);
      expect(new DataView(one.buffer).getUint32(at.l4 + 4)).toBe(sequence);
      expect((one[at.l4 + 13] ?? 0) & 0x08, 'PSH only on the last').toBe(i === segments.length - 1 ? 0x08 : 0);
      sequence = (sequence + one.length - header) >>> 0;
    }
  });
  test('what has no segments says so', () => {
    expect(segment(ethernet(B, A, 0x0800, ipv4({ protocol: 17, payload: udp(payload(20_000)) })), 1500)).toBeUndefined();
    expect(segment(new Uint8Array(3000), 1500)).toBeUndefined();
  });
});
