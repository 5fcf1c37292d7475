/** The corpus itself: enough of it, of every kind, the same for the same seed, and honest. */
import { describe, expect, it } from 'vitest';
import { checksum, hex, ipv4, tcp, udp, IP4_DST, IP4_SRC, join, u16 } from '../corpus/bytes.ts';
import { corpus, type CorpusPlace } from '../corpus/corpus.ts';

const place: CorpusPlace = { source: hex('025100000001'), outsider: hex('0251000000fe'), mtu: 9000 };
const frames = corpus(place, 7);

/** Every kind the appliance has promised to hold. */
const PROMISED = [
  'arp-request', 'gratuitous-arp', 'nd-solicit', 'nd-unsolicited', 'mld-report', 'mld2-report', 'lldp', 'rarp', 'stp',
  'lacp', 'unknown-type', 'llc', 'snap', 'vlan', 'qinq', '8021ad', 'priority-tag', 'mpls', 'pppoe-discovery',
  'pppoe-session', 'jumbo', 'runt', 'fragment', 'fragment6', 'ip-options', 'bad-ip-sum', 'bad-udp-sum', 'bad-tcp-sum',
  'tcp', 'udp', 'sctp', 'icmp', 'igmp-report', 'gre', 'esp', 'vxlan', 'geneve', 'eapol', 'ptp', 'cfm', 'macsec',
  'wake-on-lan', 'aoe', 'fcoe', 'filled', 'max-size', 'unknown-unicast', 'truncated-ip', 'damaged-ip',
];

describe('corpus', () => {
  it('has hundreds of frames, each with its own name', () => {
    expect(frames.length).toBeGreaterThanOrEqual(400);
    expect(new Set(frames.map((frame) => frame.name)).size).toBe(frames.length);
  });

  it('has every promised kind', () => {
    const kinds = new Set(frames.map((frame) => frame.kind));
    expect(PROMISED.filter((kind) => !kinds.has(kind))).toEqual([]);
  });

  it('has every runt length from 14 to 59 bytes', () => {
    const lengths = new Set(frames.filter((frame) => frame.kind === 'runt').map((frame) => frame.bytes.length));
    expect([...lengths].sort((a, b) => a - b)).toEqual(Array.from({ length: 46 }, (_, i) => 14 + i));
  });

  it('is all from the member and never to a member, within the MTU', () => {
    for (const { name, bytes } of frames) {
      expect(Buffer.from(bytes.subarray(6, 12)).toString('hex'), name).toBe('025100000001');
      expect(Buffer.from(bytes.subarray(0, 6)).toString('hex'), name).not.toMatch(/^02510000000[0-9]$/);
      expect(bytes.length, name).toBeGreaterThanOrEqual(14);
      expect(bytes.length, name).toBeLessThanOrEqual(place.mtu + 14 + 4);
    }
  });

  it('is the same for the same seed and another for another', () => {
    const text = (seed: number): string => corpus(place, seed).map((frame) => Buffer.from(frame.bytes).toString('hex')).join();
    expect(text(7)).toBe(text(7));
    expect(text(7)).not.toBe(text(8));
  });

  it('leaves out what the MTU has no room for', () => {
    const small = corpus({ ...place, mtu: 1500 }, 7);
    expect(small.filter((frame) => frame.bytes.length > 1518)).toEqual([]);
    expect(small.some((frame) => frame.kind === 'jumbo')).toBe(false);
  });
});

describe('checksums', () => {
  it('are right by default: a sum over header and sum is zero', () => {
    expect(checksum(ipv4({ protocol: 17, payload: [] }))).toBe(0);
    for (const [protocol, segment] of [[17, udp([1, 2, 3])], [6, tcp([1, 2, 3], 0x18)]] as const) {
      expect(checksum(join(IP4_SRC, IP4_DST, [0, protocol], u16(segment.length)), segment)).toBe(0);
    }
  });

  it('are wrong where asked', () => {
    expect(checksum(ipv4({ protocol: 17, payload: [], spoil: 1 }))).not.toBe(0);
  });

  it('give the value of a published example', () => {
    // RFC 1071, section 3: 0001 f203 f4f5 f6f7 sums to ddf2; the checksum is its complement.
    expect(checksum(hex('0001f203f4f5f6f7'))).toBe(~0xddf2 & 0xffff);
  });
});
