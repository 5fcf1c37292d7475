import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { ReplayModel } from '../../checkpoint-hooks/replay-model.ts';
import type { ReplayReport, ReplayVerdict } from '../../checkpoint-hooks/replay-model.ts';
import { sluice } from './cli-world.ts';

const dir = mkdtempSync(join(tmpdir(), 'sl-replay-'));
afterAll(() => rmSync(dir, { recursive: true }));

const GROUP = join(dir, 'web.yaml');
writeFileSync(GROUP, `group: web
members:
  - { name: front, port: tap0, mac: "02:00:00:00:00:01" }
  - { name: store, port: tap1, mac: "02:00:00:00:00:02" }
  - { name: tagged, port: tap2, mac: "02:00:00:00:00:03", vlan: 100 }
hold: { bytes: 1MiB }
`);

interface Shot {
  readonly timeUs: number;
  readonly frame: Buffer;
}
const mac = (n: number): string => `02000000000${n}`;
const frame = (dst: string, src: string, type = '0800', bytes = 100): Buffer => Buffer.concat([Buffer.from(dst + src + type, 'hex'), Buffer.alloc(bytes)]).subarray(0, bytes);
const START_US = 1_700_000_000_000_000;

function pcapBytes(shots: readonly Shot[], linkType = 1): Buffer {
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4, 0);
  head.writeUInt16LE(2, 4);
  head.writeUInt16LE(4, 6);
  head.writeUInt32LE(65535, 16);
  head.writeUInt32LE(linkType, 20);
  const records = shots.flatMap(({ timeUs, frame: bytes }) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(Math.floor(timeUs / 1e6), 0);
    record.writeUInt32LE(timeUs % 1e6, 4);
    record.writeUInt32LE(bytes.length, 8);
    record.writeUInt32LE(bytes.length, 12);
    return [record, bytes];
  });
  return Buffer.concat([head, ...records]);
}

/** One section, one Ethernet interface with microseconds, one enhanced packet block a frame. */
function pcapngBytes(shots: readonly Shot[]): Buffer {
  const block = (type: number, body: Buffer): Buffer => {
    const padded = Buffer.concat([body, Buffer.alloc((4 - (body.length % 4)) % 4)]);
    const out = Buffer.alloc(12 + padded.length);
    out.writeUInt32LE(type, 0);
    out.writeUInt32LE(out.length, 4);
    padded.copy(out, 8);
    out.writeUInt32LE(out.length, out.length - 4);
    return out;
  };
  const section = Buffer.from('4d3c2b1a01000000ffffffffffffffff', 'hex');
  const face = Buffer.from('01000000ffff0000', 'hex');
  const packets = shots.map(({ timeUs, frame: bytes }) => {
    const body = Buffer.alloc(20);
    body.writeUInt32LE(Math.floor(timeUs / 2 ** 32), 4);
    body.writeUInt32LE(timeUs % 2 ** 32, 8);
    body.writeUInt32LE(bytes.length, 12);
    body.writeUInt32LE(bytes.length, 16);
    return block(6, Buffer.concat([body, bytes]));
  });
  return Buffer.concat([block(0x0a0d0d0a, section), block(1, face), ...packets]);
}

function capture(name: string, bytes: Buffer): string {
  const path = join(dir, name);
  writeFileSync(path, bytes);
  return path;
}
const report = async (path: string, ...flags: string[]): Promise<ReplayReport & { damaged: boolean }> => {
  const ran = await sluice(['replay', path, '-f', GROUP, '-o', 'json', ...flags]);
  return JSON.parse(ran.out) as ReplayReport & { damaged: boolean };
};

const broadcast = 'ffffffffffff';
/** One of each: what the group file makes of it is beside it. */
const SHOTS: readonly (Shot & { readonly verdict: ReplayVerdict })[] = [
  { timeUs: START_US, frame: frame(mac(2), mac(1)), verdict: 'intra' },
  { timeUs: START_US + 1000, frame: frame(mac(9), mac(1)), verdict: 'held' },
  { timeUs: START_US + 2000, frame: frame(broadcast, mac(2), '0806', 60), verdict: 'split' },
  { timeUs: START_US + 24_999, frame: frame('0180c200000e', mac(1), '88cc'), verdict: 'held' },
  { timeUs: START_US + 25_000, frame: frame(mac(1), mac(9)), verdict: 'pass' },
  { timeUs: START_US + 26_000, frame: frame(mac(3), mac(1)), verdict: 'held' }, // untagged to a tagged nic
  { timeUs: START_US + 27_000, frame: frame(mac(9), mac(3), '8100' + '0064' + '0800'), verdict: 'held' },
  { timeUs: START_US + 90_000, frame: frame(mac(9), mac(2), '0800', 1000), verdict: 'held' },
];

describe('replay of a capture', () => {
  test('says what the classifier would have said, and when each epoch would have left', async () => {
    const result = await report(capture('all.pcap', pcapBytes(SHOTS)), '--epoch', '25ms', '--commit-delay', '5ms');
    for (const verdict of ['pass', 'intra', 'held', 'split', 'drop'] as const) {
      const expected = SHOTS.filter((shot) => shot.verdict === verdict);
      expect({ verdict, ...result.verdicts[verdict] }).toEqual({ verdict, frames: expected.length, bytes: expected.reduce((sum, shot) => sum + shot.frame.length, 0) });
    }
    expect(result.epochs.map(({ epoch, frames, bytes, releasedMs }) => [epoch, frames, bytes, releasedMs])).toEqual([[1, 3, 260, 30], [2, 2, 200, 55], [4, 1, 1000, 105]]);
    expect(result.delayMs.max).toBeCloseTo(29, 6);
    expect(result.peak).toEqual({ bytes: 1000, frames: 1, atMs: 90 });
    expect(result.damaged).toBe(false);
  });

  test('pcapng gives the same as pcap', async () => {
    const [a, b] = [await report(capture('a.pcap', pcapBytes(SHOTS))), await report(capture('a.pcapng', pcapngBytes(SHOTS)))];
    expect(b).toEqual(a);
    expect(a.frames).toBe(SHOTS.length);
  });

  test('verbose prints a line a frame, in order, before the report', async () => {
    const path = capture('v.pcap', pcapBytes(SHOTS));
    const text = await sluice(['replay', path, '-f', GROUP, '-v']);
    expect(text.out.split('\n').slice(0, SHOTS.length).map((line) => line.split(/\s+/)[3])).toEqual(SHOTS.map(({ verdict }) => verdict));
    expect(text.out).toMatch(/highest held +1000 B in 1 frames, at 0\.090 s: fits hold\.bytes 1\.00 MiB/);
    const json = await sluice(['replay', path, '-f', GROUP, '-v', '--json']);
    const lines = json.out.trim().split('\n').map((line) => JSON.parse(line) as { verdict?: string });
    expect(lines.slice(0, -1).map(({ verdict }) => verdict)).toEqual(SHOTS.map(({ verdict }) => verdict));
  });

  test('a long capture through a pipe arrives whole', async () => {
    const many = Array.from({ length: 20_000 }, (_, i) => ({ timeUs: START_US + i * 50, frame: frame(mac(9), mac(1)) }));
    const ran = await sluice(['replay', capture('many.pcap', pcapBytes(many)), '-f', GROUP, '-v', '--json']);
    expect(ran.code).toBe(0);
    expect(ran.out.trim().split('\n')).toHaveLength(many.length + 1);
  });

  test('a reader that closes early is no failure', () => {
    const many = Array.from({ length: 20_000 }, (_, i) => ({ timeUs: START_US + i * 50, frame: frame(mac(9), mac(1)) }));
    const path = capture('head.pcap', pcapBytes(many));
    const out = execFileSync('bash', ['-c', `set -o pipefail; "${process.execPath}" --import tsx checkpoint-hooks/cli.ts replay "${path}" -f "${GROUP}" -v | head -n 3`], { encoding: 'utf8' });
    expect(out.split('\n')).toHaveLength(4);
  });

  test('nothing at all, and not a single frame held', async () => {
    const empty = await report(capture('empty.pcap', pcapBytes([])));
    expect(empty).toMatchObject({ frames: 0, heldFrames: 0, epochs: [], delayMs: { p50: 0, p99: 0, max: 0 } });
    const ran = await sluice(['replay', capture('none.pcap', pcapBytes(SHOTS.slice(0, 1))), '-f', GROUP]);
    expect(ran.out).toContain('nothing would have been held');
  });
});

describe('what is not a capture is said so', () => {
  const cases: readonly [string, () => string, RegExp][] = [
    ['text', () => capture('text', Buffer.from('hello, this is no capture at all\n'.repeat(9))), /text: not a capture \(unknown file format\): expected \.pcap or \.pcapng/],
    ['an empty file', () => capture('zero', Buffer.alloc(0)), /zero: not a capture/],
    ['no file', () => join(dir, 'nope.pcap'), /nope\.pcap: no such file/],
    ['another link type', () => capture('sll.pcap', pcapBytes([], 113)), /not Ethernet: capture on a port or a bridge/],
  ];
  test.each(cases)('%s', async (_name, path, message) => {
    const ran = await sluice(['replay', path(), '-f', GROUP]);
    expect(ran.err).toMatch(message);
    expect(ran.code).toBe(1);
    expect(ran.out).toBe('');
  });

  test('a capture cut short: what was there is reported, and that it was cut short', async () => {
    const whole = pcapBytes(SHOTS);
    const ran = await sluice(['replay', capture('cut.pcap', whole.subarray(0, whole.length - 10)), '-f', GROUP, '--json']);
    expect(JSON.parse(ran.out)).toMatchObject({ frames: SHOTS.length - 1, damaged: true });
    expect(ran.err).toMatch(/stops in the middle after 7 frames/);
    expect(ran.code).toBe(1);
  });

  test('more epochs in flight than Sluice allows is a usage error', async () => {
    expect(await sluice(['replay', join(dir, 'all.pcap'), '-f', GROUP, '--epoch', '1ms', '--commit-delay', '2s'])).toMatchObject({ code: 2, err: expect.stringMatching(/1022 epochs/) as string });
  });
});

describe('the model against a plain reckoning', () => {
  const plain = (times: readonly number[], sizes: readonly number[], epochMs: number, delayMs: number): { peak: number; rows: [number, number][] } => {
    const held = times.map((t, i) => ({ t, size: sizes[i] ?? 0, epoch: Math.floor(t / epochMs) + 1 }));
    const peak = Math.max(0, ...held.map(({ t }, at) => held.slice(0, at + 1).filter((f) => f.epoch * epochMs + delayMs > t).reduce((sum, f) => sum + f.size, 0)));
    const epochs = [...new Set(held.map(({ epoch }) => epoch))];
    return { peak, rows: epochs.map((epoch) => [epoch, held.filter((f) => f.epoch === epoch).length]) };
  };

  test('peak, rows and delays agree for any frames', () => {
    const gaps = fc.array(fc.record({ gapUs: fc.integer({ min: 0, max: 20_000 }), size: fc.integer({ min: 14, max: 9000 }) }), { minLength: 1, maxLength: 60 });
    fc.assert(fc.property(gaps, fc.integer({ min: 1, max: 30 }), fc.integer({ min: 0, max: 100 }), (shots, epochMs, commitDelayMs) => {
      const model = new ReplayModel({ epochMs, commitDelayMs }, () => ({ verdict: 'held', from: 'front' }));
      let timeUs = 0;
      const times = shots.map(({ gapUs }, i) => (timeUs += i === 0 ? 0 : gapUs) / 1000);
      const lines = shots.map(({ size }, i) => model.add(START_US + Math.round((times[i] ?? 0) * 1000), new Uint8Array(0), size));
      const result = model.finish();
      const expected = plain(lines.map(({ atMs }) => atMs), shots.map(({ size }) => size), epochMs, commitDelayMs);
      expect(result.peak.bytes).toBe(expected.peak);
      expect(result.epochs.map(({ epoch, frames }) => [epoch, frames])).toEqual(expected.rows);
      for (const { atMs, releasedMs } of lines) {
        expect(releasedMs).toBeGreaterThan(atMs + commitDelayMs - 1e-9);
        expect(releasedMs).toBeLessThanOrEqual(atMs + commitDelayMs + epochMs + 1e-9);
      }
    }));
  });

  test('frames out of order count as of the time of the one before', () => {
    const model = new ReplayModel({ epochMs: 10, commitDelayMs: 0 }, () => ({ verdict: 'held', from: 'front' }));
    model.add(START_US, new Uint8Array(0), 1);
    model.add(START_US + 15_000, new Uint8Array(0), 1);
    expect(model.add(START_US + 5000, new Uint8Array(0), 1).atMs).toBe(15);
    expect(model.finish()).toMatchObject({ outOfOrder: 1, epochs: [{ epoch: 1, frames: 1 }, { epoch: 2, frames: 2 }] });
  });
});
