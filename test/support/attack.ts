/**
 * A row of the attack table, for both data planes: traffic, the attack, traffic, and then the count.
 * What must hold in every row is checked here; what an attack does is the test's.
 */
import { expect } from 'vitest';
import { sleep } from '../../bench/bed/commands.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { macBytes, probeFlow } from '../../bench/bed/probe.ts';
import { Rig, type RigOptions } from '../../bench/bed/rig.ts';
import { flowKey } from '../../bench/bed/traffic.ts';
import { corpus } from '../corpus/corpus.ts';

/** A row: traffic, `attack`, traffic; then the count and what must hold in every row. */
export async function row(name: string, attack: (rig: Rig) => Promise<void>, options: RigOptions = {}): Promise<Rig> {
  const rig = await Rig.create(options);
  try {
    rig.start();
    await rig.pause(150);
    await attack(rig);
    await rig.pause(150);
    await rig.finish();
    judge(name, rig);
    return rig;
  } finally {
    await rig.close();
  }
}

/** What must hold in every row, once its traffic has ended. */
export function judge(name: string, rig: Rig): void {
  console.log(rig.line(name));
  expect(rig.traffic.missed(), 'the capture must miss nothing').toBe(0);
  expect(rig.oracle.leaks).toEqual([]);
  expect(rig.leaked()).toBe(0);
  expect(rig.oracle.count().duplicates).toBe(0);
  expect(rig.oracle.count().seen, 'frames must have left at all').toBeGreaterThan(10);
}

/** How many frames are seen outside from now on, over `ms`. */
export async function seenIn(rig: Rig, ms: number): Promise<number> {
  rig.traffic.drain();
  const before = rig.oracle.count().seen;
  await rig.pause(ms);
  return rig.oracle.count().seen - before;
}

/** Frames with a foreign source to outside and to the other member: held like any other, never intra. */
export async function spoof(rig: Rig, mac: string): Promise<void> {
  const from = { ...rig.bed.member(0).address, mac: macBytes(mac) };
  const outward = probeFlow(from, rig.bed.outsider.address, 1000);
  const inward = probeFlow(from, rig.bed.member(1).address, 1001);
  const tap = rig.bed.tap(0);
  for (let seq = 0; seq < 200; seq++) {
    rig.oracle.sent(flowKey(1000, seq), 'm1', nowUs());
    tap.send(outward(seq));
    rig.oracle.sent(flowKey(1001, seq), 'm1', nowUs()); // flooded or not: outside it may be seen once committed
    tap.send(inward(seq));
    if (seq % 10 === 0) await sleep(2);
  }
}

/** The corpus, spread over many epochs; a frame is known by its bytes. */
export async function oddFrames(rig: Rig): Promise<void> {
  const { mac } = rig.bed.member(0);
  const frames = corpus({ source: macBytes(mac), outsider: macBytes(rig.bed.outsider.mac), mtu: 9000 }, 11);
  const key = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
  rig.traffic.watch((frame, atUs) => rig.oracle.seen(key(frame), atUs));
  const done = new Set<string>();
  for (const { bytes } of frames) {
    if (done.has(key(bytes))) continue;
    done.add(key(bytes));
    rig.oracle.sent(key(bytes), 'm1', nowUs());
    rig.bed.tap(0).send(bytes);
    await sleep(1);
  }
  await rig.pause(50);
}

/** A body beyond the limit is refused before all of it is read, so its sender may find the pipe broken instead. */
export async function refusedCall(rig: Rig, path: string, body: object | string): Promise<{ readonly status: number }> {
  try {
    return await rig.daemon.api.call('POST', `/v1/groups/${path}`, body);
  } catch (error) {
    if (typeof body === 'string' && body.length > 256 << 10 && /EPIPE|ECONNRESET|other side closed/.test(String(error))) return { status: 413 };
    throw error;
  }
}

export function badCommands(generation: number, open: number): [string, object | string][] {
  return [
    ['g/commit', '{'], ['g/commit', '[]'], ['g/commit', {}], ['g/commit', { generation, epoch: -1 }],
    ['g/commit', { generation, epoch: open }], ['g/commit', { generation, epoch: open + 1000 }],
    ['g/commit', { generation, epoch: 1e300 }], ['g/commit', { generation, epoch: open - 1, extra: 1 }],
    ['g/commit', { generation: generation - 1, epoch: open - 1 }], ['g/commit', { generation: generation + 1, epoch: open - 1 }],
    ['g/cut', { generation, epoch: open + 1 }], ['g/cut', { generation: 0, epoch: open }],
    ['g/rollback', { generation: generation + 7, epoch: open - 1 }], ['g/rollback', { generation, epoch: open + 5 }],
    ['g/takeover', { generation, epoch: open - 1 }], ['g/takeover', { generation: generation - 1, epoch: open - 1 }],
    ['g/unprotect', { generation }], ['g/unprotect', { generation: generation - 1, held: 'release' }],
    ['nobody/commit', { generation, epoch: open - 1 }], ['g/release', {}], ['g/protect', { generation: 'x' }],
    ['g/commit', 'x'.repeat(300 << 10)],
  ];
}
