import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { addressFrame, rarpFrame } from '../../proxy/edge/announcements.ts';
import { announcementsOf } from '../../proxy/edge/announcer.ts';
import { Rounds } from '../../proxy/edge/rounds.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const nic = { mac: '02:00:00:00:00:0a', vlan: 0 };
const tagged = { ...nic, vlan: 0x123 };

describe('where a nic is', () => {
  test('a RARP request of the nic for itself, padded to the least size', () => {
    const frame = rarpFrame(nic);
    expect(frame.length).toBe(60);
    expect(hex(frame).replace(/0+$/, '')).toBe('ffffffffffff02000000000a8035000108000604000302000000000a0000000002000000000a'.replace(/0+$/, ''));
  });

  test('tagged where the nic is', () => {
    for (const frame of [rarpFrame(tagged), addressFrame(tagged, '10.0.0.1')]) {
      expect(frame.length).toBe(64);
      expect(hex(frame.subarray(12, 16))).toBe('81000123');
    }
    expect(hex(addressFrame(tagged, 'fd00::1').subarray(12, 18))).toBe('8100012386dd');
  });
});

describe('what address it has', () => {
  test('IPv4: an ARP request of the address for itself', () => {
    const frame = addressFrame(nic, '10.81.0.254');
    expect(frame.length).toBe(60);
    expect(hex(frame.subarray(0, 42))).toBe('ffffffffffff02000000000a0806' + '0001080006040001' + '02000000000a' + '0a5100fe' + '000000000000' + '0a5100fe');
  });

  test('IPv6: an unsolicited advertisement that overrides, to all nodes, with hop limit 255 and the nic\'s MAC', () => {
    const frame = addressFrame(nic, 'fd00::a:1');
    const own = 'fd0000000000000000000000000a0001';
    expect(hex(frame.subarray(0, 14))).toBe('33330000000102000000000a86dd');
    expect(hex(frame.subarray(14, 54))).toBe('6000000000203aff' + own + 'ff020000000000000000000000000001');
    const message = Buffer.from(frame.subarray(54));
    expect(hex(message.subarray(0, 2))).toBe('8800');
    expect(hex(message.subarray(4))).toBe('20000000' + own + '0201' + '02000000000a');
    // RFC 1071: the sum over everything, checksum included, is all ones.
    const summed = Buffer.concat([frame.subarray(22, 54), Buffer.from([0, 0, 0, 32, 0, 0, 0, 58]), message]);
    let sum = 0;
    for (let at = 0; at < summed.length; at += 2) sum += summed.readUInt16BE(at);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    expect(sum).toBe(0xffff);
  });

  test.each([
    ['::2', '00000000000000000000000000000002'], ['fe80::', 'fe800000000000000000000000000000'],
    ['2001:db8:0:1:2:3:4:5', '20010db8000000010002000300040005'], ['1::2:3', '00010000000000000000000000020003'],
  ])('%s in 16 bytes', (text, bytes) => {
    expect(hex(addressFrame(nic, text).subarray(22, 38))).toBe(bytes);
  });

  test('of a group: every place first, then every address', () => {
    const members = [
      { name: 'a', nics: [{ port: 'p', mac: '02:00:00:00:00:01', vlan: 0, addresses: ['10.0.0.1', 'fd00::1'] }, { port: 'q', mac: '02:00:00:00:00:02', vlan: 7 }] },
      { name: 'b', nics: [{ port: 'r', mac: '02:00:00:00:00:03', vlan: 0, addresses: ['10.0.0.3'] }] },
    ];
    const all = announcementsOf({ group: 'g', commit: 'explicit', members, hold: { bytes: 1, highWater: 1 }, foreignSource: 'hold', intraPath: 'redirect' });
    const typeOf = (frame: Uint8Array): string => (hex(frame.subarray(12, 14)) === '8100' ? hex(frame.subarray(16, 18)) : hex(frame.subarray(12, 14)));
    expect(all.map(({ port, frame }) => `${port} ${typeOf(frame)}`)).toEqual(['p 8035', 'q 8035', 'r 8035', 'p 0806', 'p 86dd', 'r 0806']);
  });
});

describe('when it is said', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  const said: string[] = [];
  const round = (name: string, frames: number) => (): (() => void)[] => Array.from({ length: frames }, (_, i) => () => void said.push(`${name}${i}`));
  const take = (): string[] => said.splice(0);

  test('at once and twice again', () => {
    const rounds = new Rounds();
    rounds.begin(1, () => true, round('a', 2));
    expect(take()).toEqual(['a0', 'a1']);
    vi.advanceTimersByTime(300);
    expect(take()).toEqual(['a0', 'a1']);
    vi.advanceTimersByTime(10_000);
    expect(take()).toEqual(['a0', 'a1']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('64 frames a moment, whoever speaks, and all of them in the end', () => {
    const rounds = new Rounds();
    rounds.begin(1, () => true, round('a', 100));
    rounds.begin(2, () => true, round('b', 100));
    expect(take()).toHaveLength(64);
    vi.advanceTimersByTime(10);
    expect(take()).toHaveLength(64);
    vi.advanceTimersByTime(100);
    expect(take().at(-1)).toBe('b99');
    vi.advanceTimersByTime(10_000);
    expect(take()).toHaveLength(400);
  });

  test('not again when it is no longer so, and a later one of the group takes its place', () => {
    const rounds = new Rounds();
    let isStill = true;
    rounds.begin(1, () => isStill, round('a', 1));
    rounds.begin(2, () => true, round('b', 1));
    vi.advanceTimersByTime(100);
    expect(take()).toEqual(['a0', 'b0']);
    isStill = false;
    rounds.begin(2, () => true, round('c', 1));
    vi.advanceTimersByTime(10_000);
    expect(take()).toEqual(['c0', 'c0', 'c0']);
  });

  test('a failure at once is told, later ones are not; closed, it is silent', () => {
    const rounds = new Rounds();
    let broken = true;
    const one = (): (() => void)[] => [() => { if (broken) throw new Error('no bridge'); said.push('x'); }];
    expect(() => rounds.begin(1, () => true, one)).toThrow('no bridge');
    vi.advanceTimersByTime(300);
    broken = false;
    vi.advanceTimersByTime(10_000);
    expect(take()).toEqual(['x']);
    rounds.begin(1, () => true, one);
    rounds.close();
    vi.advanceTimersByTime(10_000);
    expect(take()).toEqual(['x']);
  });
});
