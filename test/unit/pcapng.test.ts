import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import { heldCapture } from '../../proxy/api/pcapng.ts';
import { epoch } from '../../proxy/core/types.ts';
import type { HeldFrame, NicPlace } from '../../proxy/ports.ts';

const NICS: readonly NicPlace[] = [
  { nic: 5, member: 'front', port: 'tap0', ifindex: 3 },
  { nic: 9, member: 'store', port: 'tap1', ifindex: 4 },
];
/** Lengths around the padding's corners, and one super-frame. */
const LENGTHS = [14, 15, 16, 17, 60, 1514, 65549];
const NOW_NS = 1_700_000_000_123_456_789n;

const FRAMES: readonly HeldFrame[] = LENGTHS.map((length, i) => ({
  epoch: epoch(i + 1),
  nic: i % 2 === 0 ? 9 : 5,
  class: i === 3 ? 'early' : 'held',
  arrivedNs: NOW_NS - BigInt(i + 1) * 1_500_000n,
  bytes: Uint8Array.from({ length }, (_, k) => (k < 12 ? 2 : k === 12 ? 0x88 : k === 13 ? 0xb5 : (k * 7 + i) & 0xff)),
  wireBytes: length,
}));

/** An independent reader: walks the blocks by the draft's layout, checking every length twice. */
function blocks(file: Buffer): { type: number; body: Buffer }[] {
  const found = [];
  for (let at = 0; at < file.length;) {
    const length = file.readUInt32LE(at + 4);
    expect(length % 4).toBe(0);
    expect(file.readUInt32LE(at + length - 4)).toBe(length);
    found.push({ type: file.readUInt32LE(at), body: file.subarray(at + 8, at + length - 4) });
    at += length;
  }
  return found;
}

/** As the daemon makes it: in pieces, of three frames here. */
async function captured(nics: readonly NicPlace[], frames: readonly HeldFrame[]): Promise<Buffer> {
  const pieces = Readable.from(Array.from({ length: Math.ceil(frames.length / 3) }, (_, i) => frames.slice(3 * i, 3 * i + 3)));
  const chunks: Buffer[] = [];
  for await (const chunk of heldCapture(nics, pieces, () => NOW_NS, 'sluiced test')) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('the blocks say what the frames were', async () => {
  const found = blocks(await captured(NICS, FRAMES));
  expect(found.map(({ type }) => type)).toEqual([0x0a0d0d0a, 1, 1, ...LENGTHS.map(() => 6)]);
  for (const [i, frame] of FRAMES.entries()) {
    const body = found[i + 3]?.body ?? Buffer.alloc(0);
    expect(body.readUInt32LE(0)).toBe(frame.nic === 5 ? 0 : 1);
    expect((BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8))).toBe(frame.arrivedNs);
    expect(body.readUInt32LE(16)).toBe(frame.wireBytes);
    expect(body.subarray(20, 20 + frame.bytes.length).equals(frame.bytes)).toBe(true);
    expect(body.toString('utf8')).toContain(`epoch ${frame.epoch}, ${frame.class}, held ${(1.5 * (i + 1)).toFixed(3)} ms`);
  }
});

test('a frame of a nic that has left keeps its place under a name of its own', async () => {
  const found = blocks(await captured([], FRAMES.slice(0, 3)));
  expect(found.map(({ type }) => type)).toEqual([0x0a0d0d0a, 1, 1, 6, 6, 6]);
  expect(found[1]?.body.toString('latin1')).toContain('nic9');
});

const has = (tool: string): boolean => {
  try {
    execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
async function withFile(run: (file: string) => void): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'sl-pcapng-'));
  try {
    const file = join(directory, 'held.pcapng');
    writeFileSync(file, await captured(NICS, FRAMES));
    run(file);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test.skipIf(!has('tshark'))('tshark reads every frame, its interface and its comment (skipped only where tshark is not installed)', async () => {
  await withFile((file) => {
    const fields = ['frame.interface_name', 'frame.len', 'frame.comment', 'frame.time_epoch'].flatMap((field) => ['-e', field]);
    const rows = execFileSync('tshark', ['-r', file, '-T', 'fields', ...fields], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split('\n');
    expect(rows.map((row) => row.split('\t').slice(0, 3))).toEqual(
      FRAMES.map((frame, i) => [frame.nic === 5 ? 'tap0' : 'tap1', String(frame.wireBytes), `epoch ${frame.epoch}, ${frame.class}, held ${(1.5 * (i + 1)).toFixed(3)} ms`]),
    );
    expect(rows[0]?.split('\t')[3]).toMatch(/^1700000000\.12195678/);
  });
});

test.skipIf(!has('tcpdump'))('tcpdump reads every frame (skipped only where tcpdump is not installed)', async () => {
  await withFile((file) => {
    const rows = execFileSync('tcpdump', ['-r', file, '-n', '-e'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split('\n').filter((row) => row.includes('ethertype'));
    expect(rows.map((row) => Number(/length (\d+)/.exec(row)?.[1]))).toEqual(LENGTHS);
  });
});
