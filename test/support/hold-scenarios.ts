/**
 * Scenarios of the hold plane over the real kernel: `unshare --net node --import tsx THIS ring|pool name`.
 * Each checks for itself and ends with one line of JSON: its figures.
 */
import assert from 'node:assert/strict';
import { HoldRig, MEMBER, OUTSIDER, frameOf, sleep, until } from './hold-rig.ts';
import * as bed from '../../bench/bed/libc.ts';
import { BLOCK_FRAMES_MAX, RingQueue } from '../../proxy/edge/packet-ring.ts';
import { ifNametoindex } from '../../proxy/edge/ffi/libc.ts';
import { colour, epoch } from '../../proxy/core/types.ts';
import { WIRE_BUCKETS_MS } from '../../proxy/ports.ts';
import type { HeldFrame } from '../../proxy/ports.ts';
import { Intake } from '../../proxy/ring/frames.ts';
import { Seeded } from './ring-fixture.ts';

type Figures = Record<string, number>;

async function dumped(rig: HoldRig, bytesMax = 1 << 20): Promise<HeldFrame[]> {
  const frames: HeldFrame[] = [];
  for await (const piece of rig.plane.dump(0, bytesMax)) frames.push(...piece);
  return frames;
}

async function exact(rig: HoldRig): Promise<Figures> {
  await rig.open(8 << 20);
  const random = new Seeded(0x51ce);
  const tagged = [[], [], [0x8100_0064], [0x8100_e064], [0x88a8_0007, 0x8100_0064], [0x8100_0000], [0x8100_0064, 0x8100_0065]];
  // The kernel itself drops a tagged frame with less than 2 bytes behind its last type.
  const frames = Array.from({ length: 400 }, (_, i) => {
    const tags = random.pick(tagged);
    const least = 14 + (tags.length === 0 ? 0 : 4 * tags.length + 2);
    return frameOf(i < 60 ? least + i : random.between(least, 1514), tags, () => random.below(256));
  });
  const got: Uint8Array[] = [];
  const collect = (): void => void rig.outsider.drain((frame) => got.push(frame.slice()));
  frames.forEach((frame) => assert.ok(rig.member.send(frame)));
  await until('all frames are held', () => rig.counters.heldFrames === frames.length);
  collect();
  assert.equal(got.length, 0, 'nothing leaves before the commit');
  const dump = await dumped(rig);
  assert.deepEqual(dump.map(({ bytes }) => Buffer.from(bytes).toString('hex')), frames.map((frame) => Buffer.from(frame).toString('hex')));
  const held = await rig.plane.held(0);
  assert.deepEqual(held.map(({ epoch, frames: count }) => [epoch, count]), [[1, frames.length]]);
  const sealed = rig.cut();
  rig.commit(sealed);
  await until('all frames are out', () => (collect(), got.length >= frames.length));
  await until('the release is reported', () => rig.releasedUpTo() === sealed >>> 0);
  assert.deepEqual(got.map((frame) => Buffer.from(frame).toString('hex')), frames.map((frame) => Buffer.from(frame).toString('hex')));
  const { in: sent, out, gone } = rig.queue;
  assert.deepEqual([sent, out, gone], [BigInt(frames.length), BigInt(frames.length), 0n]);
  assert.equal(rig.facts.filter(({ kind }) => kind === 'output-pending').length, 1);
  return { frames: frames.length, holdSumMs: rig.counters.holdSumMs };
}

/** A virtio_net_hdr and a TCP super-frame with a partial checksum, as a guest writes them. */
function superFrame(payload: number, tags: readonly number[]): Uint8Array {
  const frame = frameOf(14 + 4 * tags.length + 40 + payload, tags, (at) => at & 0xff, 0x0800);
  const l3 = 14 + 4 * tags.length;
  const view = new DataView(frame.buffer);
  frame.fill(0, l3, l3 + 40);
  frame.set([0x45, 0, (40 + payload) >> 8, (40 + payload) & 0xff, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9], l3);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(l3 + i);
  view.setUint16(l3 + 10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
  view.setUint16(l3 + 20, 1000);
  view.setUint16(l3 + 22, 2000);
  view.setUint8(l3 + 32, 0x50);
  view.setUint8(l3 + 33, 0x10);
  let pseudo = 6 + 20 + payload;
  for (let i = 12; i < 20; i += 2) pseudo += view.getUint16(l3 + i);
  while (pseudo > 0xffff) pseudo = (pseudo & 0xffff) + (pseudo >>> 16);
  view.setUint16(l3 + 36, pseudo);
  const header = Uint8Array.of(1, 1, (l3 + 40) & 0xff, 0, 1448 & 0xff, 1448 >> 8, l3 + 20, 0, 16, 0);
  return Buffer.concat([header, frame]);
}

function vnetSender(device: string): number {
  const fd = bed.socket(17, 3, 0);
  bed.setOption(fd, 263, 15, 1);
  const address = new DataView(new ArrayBuffer(20));
  address.setUint16(0, 17, true);
  address.setInt32(4, ifNametoindex(device), true);
  bed.bindSocket(fd, new Uint8Array(address.buffer));
  return fd;
}

async function gso(rig: HoldRig): Promise<Figures> {
  await rig.open(8 << 20);
  const fd = vnetSender('mem1');
  const receiver = new RingQueue('out1', 4 << 20);
  receiver.bind();
  const frames = [superFrame(60_000, []), superFrame(20_000, [0x8100_0064]), superFrame(1448, []), superFrame(63_000, [0x88a8_0007])];
  for (const frame of frames) assert.equal(bed.send(fd, frame, frame.length, 0), frame.length);
  await until('all super-frames are held', () => rig.counters.heldFrames === frames.length);
  rig.commit(rig.cut());
  const intake = new Intake(BLOCK_FRAMES_MAX);
  const got: Uint8Array[] = [];
  await until('all super-frames are out', () => {
    const block = receiver.take(intake);
    if (block < 0) return got.length >= frames.length;
    for (let i = 0; i < intake.count; i++) got.push(receiver.memory.read(intake.offset[i]! - 10, intake.length[i]! + 10));
    receiver.giveBack(block);
    return got.length >= frames.length;
  });
  got.forEach((frame, i) => {
    const sent = frames[i]!;
    assert.equal(Buffer.compare(frame.subarray(10), sent.subarray(10)), 0, `bytes of super-frame ${i}`);
    const gsoKept = sent.length - 10 > 1514;
    if (gsoKept) assert.deepEqual([frame[1]! & 0x7f, frame[4]! | (frame[5]! << 8)], [1, 1448], `gso of super-frame ${i}`);
    if ((frame[0]! & 1) !== 0) assert.equal(frame[6], sent[6], `checksum start of super-frame ${i}`);
  });
  receiver.close();
  bed.close(fd);
  return { frames: got.length, bytes: rig.counters.releasedBytes, refused: rig.counters.refusedFrames };
}

async function rollback(rig: HoldRig): Promise<Figures> {
  await rig.open(8 << 20);
  const numbered = (n: number): Uint8Array => frameOf(64, [], (at) => (at === 20 ? n : 0));
  const sealed: number[] = [];
  for (let n = 0; n < 4; n++) {
    for (let i = 0; i < 50; i++) rig.member.send(numbered(n));
    if (n < 3) sealed.push(rig.cut());
    if (n === 1) await sleep(5);
  }
  await rig.restore(sealed[1]!);
  for (let i = 0; i < 50; i++) rig.member.send(numbered(9));
  const got: number[] = [];
  const collect = (): void => void rig.outsider.drain((frame) => got.push(frame[20]!));
  await until('the surviving epochs are out', () => (collect(), got.length >= 100));
  await until('the new frames are held', () => rig.counters.heldFrames === 50);
  await sleep(50);
  collect();
  assert.deepEqual(got, [...Array<number>(50).fill(0), ...Array<number>(50).fill(1)]);
  await until('the dead are accounted for', () => rig.queue.in - rig.queue.out - rig.queue.gone === 50n);
  rig.commit(rig.cut());
  await until('the new epoch is out', () => (collect(), got.length >= 150));
  assert.deepEqual(got.slice(100), Array<number>(50).fill(9));
  return { out: got.length, discarded: rig.counters.discardedFrames };
}

async function overflow(rig: HoldRig): Promise<Figures> {
  await rig.open(2 << 20, 0.5);
  const frame = frameOf(60, [], () => 0);
  const COUNT = 100_000;
  let sent = 0;
  for (let i = 0; i < COUNT; i++) {
    if (rig.member.send(frame)) sent++;
    if (i % 500 === 0) await sleep(1);
  }
  await until('every frame is accounted for', () => {
    const { arrived, overflowFrames, heldFrames } = rig.counters;
    return arrived > 0 && rig.queue.in - rig.queue.gone - rig.queue.out === BigInt(heldFrames) && overflowFrames > 0;
  });
  const held = rig.counters.heldFrames;
  const kinds = rig.facts.map(({ kind }) => kind);
  assert.ok(kinds.includes('overflow') && kinds.indexOf('high-water') < kinds.indexOf('overflow'), 'high-water comes before overflow');
  assert.equal(kinds.filter((kind) => kind === 'high-water').length, 1, 'high-water is said once');
  const sealed = rig.cut();
  rig.commit(sealed);
  let got = 0;
  await until('what was held is out', () => ((got += rig.outsider.drain(() => undefined)), got >= held));
  await until('the release is reported in spite of the loss', () => rig.releasedUpTo() === sealed >>> 0);
  await until('nothing is owed', () => rig.queue.in === rig.queue.out + rig.queue.gone);
  assert.equal(got, held);
  return { sent, held, overflow: rig.counters.overflowFrames };
}

/** A million held frames, or SLUICE_FRAMES: memory stays where it was. */
async function million(rig: HoldRig): Promise<Figures> {
  await rig.open(64 << 20);
  const frame = frameOf(60, [], () => 0);
  const COUNT = Number(process.env['SLUICE_FRAMES'] ?? 1_000_000);
  let got = 0;
  let middle = 0;
  const began = process.hrtime.bigint();
  for (let i = 1; i <= COUNT; i++) {
    while (!rig.member.send(frame)) await sleep(0);
    if (i % 1000 === 0) {
      rig.commit(rig.cut());
      await until('the ring has room', () => i - rig.counters.releasedFrames < 20_000);
      got += rig.outsider.drain(() => undefined);
    }
    if (i === COUNT / 4) middle = process.memoryUsage().rss;
  }
  rig.commit(rig.cut());
  await until('all frames are out', () => ((got += rig.outsider.drain(() => undefined)), got + rig.outsider.missed() + rig.counters.overflowFrames >= COUNT), 60_000);
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const grownMB = (process.memoryUsage().rss - middle) / 2 ** 20;
  const { releasedFrames, overflowFrames, refusedFrames, discardedFrames, wireHistogram } = rig.counters;
  assert.deepEqual([refusedFrames, discardedFrames], [0, 0]);
  assert.equal(releasedFrames + overflowFrames, COUNT); // a starved loop may overflow; nothing is lost unsaid
  assert.ok(grownMB < 24, `memory grew by ${grownMB} MB over ${COUNT * 0.75} frames`);
  const releases = wireHistogram.reduce((a, b) => a + b, 0);
  let median = 0;
  for (let seen = wireHistogram[0]!; seen * 2 < releases; seen += wireHistogram[++median]!);
  return { frames: got, overflow: overflowFrames, kframesPerSec: COUNT / seconds / 1000, grownMB, releases, wireP50BelowMs: WIRE_BUCKETS_MS[median] ?? Infinity };
}

async function drain(rig: HoldRig): Promise<Figures> {
  await rig.open(8 << 20);
  for (let i = 0; i < 300; i++) rig.member.send(frameOf(64 + i, [], () => i));
  await until('all are held', () => rig.counters.heldFrames === 300);
  rig.cells.setFlags(rig.nic, rig.cells.flags(rig.nic) | 2);
  const covered = await rig.plane.drain(0, undefined, 'release');
  let got = 0;
  await until('all are out', () => ((got += rig.outsider.drain(() => undefined)), got >= 300));
  assert.equal(covered, 300);
  rig.member.send(frameOf(64, [], () => 1));
  await until('a new frame passes', () => ((got += rig.outsider.drain(() => undefined)), got >= 301));
  assert.equal(rig.queue.in, 300n);
  return { covered };
}

/** The fault of one request is an answer; a broken invariant ends the worker, and everyone is told. */
async function fault(rig: HoldRig): Promise<Figures> {
  await rig.open(1 << 20);
  await assert.rejects(rig.plane.held(9), { code: 'plane_down', message: 'group 9 is not open' });
  await assert.rejects(rig.plane.open(9, { holdDevice: 'none', ringDevice: 'none', bytes: 1 << 20, highWater: 0.75, colour: colour(1), epoch: epoch(1), newest: colour(1) }), { code: 'plane_down' });
  assert.deepEqual(await rig.plane.held(0), []);
  rig.commit(rig.cut());
  await assert.rejects(rig.plane.restore(0, colour(-9), colour(99), epoch(1)), { code: 'plane_down', message: /behind a release/ });
  await until('the end is told', () => rig.facts.some(({ kind }) => kind === 'dead'));
  await assert.rejects(rig.plane.restore(0, colour(-9), colour(99), epoch(1)), { code: 'plane_down', message: /behind a release/ });
  return { dead: 1 };
}

const SCENARIOS = { exact, gso, rollback, overflow, million, drain, fault };
const kind = process.argv[2] as 'ring' | 'pool';
const name = process.argv[3] as keyof typeof SCENARIOS;
const FIRST = { exact: 1, gso: 2 ** 14 - 1, rollback: 2 ** 32 - 2, overflow: 2 ** 31 - 1, million: 2 ** 32 - 500, drain: 7, fault: 50 };
if (OUTSIDER.length !== MEMBER.length) throw new Error('addresses differ in length');
const rig = new HoldRig(FIRST[name], kind === 'pool');
try {
  console.log(JSON.stringify(await SCENARIOS[name](rig)));
} catch (error) {
  console.error(rig.counters, rig.queue, rig.facts.slice(0, 20));
  throw error;
} finally {
  await rig.close();
}
