import { expect, test } from 'vitest';
import type { GroupCells } from '../../proxy/plane/cells.ts';
import { Meter } from '../../proxy/plane/meter.ts';
import { NEVER } from '../../proxy/plane/never.ts';
import { Pump } from '../../proxy/plane/pump.ts';
import type { PlaneFact } from '../../proxy/ports.ts';
import { Intake } from '../../proxy/ring/frames.ts';
import type { FrameSink, FrameSource, FrameTable } from '../../proxy/ring/frames.ts';
import { CLASS_EARLY, CLASS_HELD, CLASS_LATE, packStamp } from '../../proxy/ring/stamp.ts';
import { TestSource } from '../support/ring-fixture.ts';

const NIC = 5;
const EAGAIN = 11;
const ENOBUFS = 105;

/** The kernel's counters, for one nic; the test plays the kernel. */
class TestCells implements GroupCells {
  sent = new Int32Array(64);
  heldInOut = { in: 0, out: 0, gone: 0 };
  earlyInOut = { in: 0, out: 0, gone: 0 };
  heldIn = (residue: number): number => this.sent[residue]!;
  heldMissing = (nic: number): number => (nic === NIC ? this.heldInOut.in - this.heldInOut.out - this.heldInOut.gone : 0);
  earlyMissing = (nic: number): number => (nic === NIC ? this.earlyInOut.in - this.earlyInOut.out - this.earlyInOut.gone : 0);
  trace = (): number => this.heldInOut.in * 31 + this.heldInOut.out;
  addGone(_nic: number, held: number, early: number): void {
    this.heldInOut.gone += held;
    this.earlyInOut.gone += early;
  }
  nics(nics: Int32Array): number {
    nics[0] = NIC;
    return 1;
  }
}

/** Takes frames unless told otherwise, and says who they were. */
class TestSink implements FrameSink {
  readonly batchMax = 16;
  readonly got: number[] = [];
  refuse: (id: number, attempt: number) => number = () => 0;
  calls = 0;
  readonly #source: TestSource;
  constructor(source: TestSource) {
    this.#source = source;
  }
  send(table: FrameTable, batch: Int32Array, count: number): number {
    this.calls++;
    for (let i = 0; i < count; i++) {
      const row = batch[i]!;
      const id = this.#source.identify(table.offset[row]!, table.length[row]!);
      const errno = this.refuse(id, this.calls);
      if (errno !== 0) return i === 0 ? -errno : i;
      this.got.push(id);
    }
    return count;
  }
}

class Bench {
  readonly source = new TestSource(16, 16, 14);
  readonly sink = new TestSink(this.source);
  readonly cells = new TestCells();
  readonly facts: PlaneFact[] = [];
  /** Held frames by the counters, as who hears of a release finds them. */
  readonly heldAtRelease: number[] = [];
  readonly pump: Pump;
  nowMs = 1000;
  #id = 0;

  constructor(bytesMax = 1 << 20, settleMs = 3) {
    const options = { id: 3, framesMax: 4096, bytesMax, colour: 100, epoch: 1, highWater: 0.5, originMs: 0, settleMs, clockMs: () => this.nowMs + 0.25 };
    this.pump = new Pump(options, this.source, this.sink, this.cells, new Intake(1024), new Meter(), (fact) => {
      this.facts.push(fact);
      if (fact.kind === 'released') this.heldAtRelease.push(this.pump.meter.read(0).heldFrames);
    });
  }
  /** The kernel classifies frames; `lost` of them never reach the ring. */
  arrive(count: number, colour: number, lost = 0, length = 100): number[] {
    const frames = Array.from({ length: count }, () => ({ id: this.#id++, stamp: packStamp(CLASS_HELD, NIC, 0, colour) | 0, length }));
    this.cells.heldInOut.in += count;
    this.cells.sent[colour & 63]! += count;
    this.source.fill(frames.slice(lost));
    return frames.slice(lost).map(({ id }) => id);
  }
  stamped(cls: number, colour: number, lead = 0): number {
    this.source.fill([{ id: this.#id, stamp: packStamp(cls, NIC, lead, colour) | 0, length: 100 }]);
    if (cls === CLASS_EARLY) this.cells.earlyInOut.in++;
    return this.#id++;
  }
  breathe(ms = 0): number {
    this.nowMs += ms;
    return this.pump.breath({ nowMs: this.nowMs, wallMs: this.nowMs });
  }
  /** Breathes as often as asked, but never sleeps longer than `ms` in all. */
  run(ms: number): void {
    for (const end = this.nowMs + ms; ; ) {
      const again = this.breathe();
      if (again === NEVER || again > end) break;
      this.nowMs = Math.max(again, this.nowMs);
    }
    this.nowMs += 0.01;
  }
  kinds(): string[] {
    return this.facts.map(({ kind }) => kind);
  }
}

test('frames wait for the release of their colour and leave in order', () => {
  const bench = new Bench();
  const first = bench.arrive(30, 100);
  bench.pump.ring.advance(101, 2);
  const second = bench.arrive(30, 101);
  bench.run(100);
  expect(bench.sink.got).toEqual([]);
  bench.pump.release(100, bench.nowMs);
  bench.run(100);
  expect(bench.sink.got).toEqual(first);
  bench.pump.ring.advance(102, 3);
  bench.pump.release(101, bench.nowMs);
  bench.run(100);
  expect(bench.sink.got).toEqual([...first, ...second]);
  expect(bench.facts.filter(({ kind }) => kind === 'released')).toEqual([100, 101].map((colour) => ({ kind: 'released', id: 3, colour })));
  expect(bench.heldAtRelease).toEqual([30, 0]);
  expect(bench.facts.filter(({ kind }) => kind === 'output-pending')).toEqual([1, 2].map((epoch) => ({ kind: 'output-pending', id: 3, epoch })));
  expect(bench.pump.meter.read(0).wireHistogram.reduce((a, b) => a + b, 0)).toBe(2);
});

test('released waits for frames on their way, and for 20 ms of silence after a loss', () => {
  const bench = new Bench();
  bench.cells.sent[100 & 63]! += 5; // counted by the kernel, in a block that is not retired yet
  bench.cells.heldInOut.in += 5;
  bench.pump.ring.advance(101, 2);
  bench.pump.release(100, bench.nowMs);
  bench.breathe();
  bench.breathe(19);
  expect(bench.kinds()).not.toContain('released');
  bench.run(40);
  expect(bench.kinds()).toContain('released');
  expect(bench.cells.heldMissing(NIC)).toBe(0);
  expect(bench.cells.heldInOut.gone).toBe(5);
});

test('a ring of long blocks has a longer silence: what it hands over late is not taken for lost, and nothing overtakes it', () => {
  const bench = new Bench(1 << 20, 17);
  bench.cells.sent[100 & 63]! += 1;
  bench.cells.heldInOut.in += 1;
  bench.pump.ring.advance(101, 2);
  bench.pump.release(100, bench.nowMs);
  for (let ms = 0; ms < 33; ms++) bench.breathe(1);
  expect(bench.cells.heldInOut.gone).toBe(0);
  expect(bench.kinds()).not.toContain('released');
  bench.run(40);
  expect(bench.cells.heldInOut.gone).toBe(1);
  expect(bench.kinds()).toContain('released');
});

test('a frame that is never taken is given up after 8 tries; those behind it leave', () => {
  const bench = new Bench();
  const ids = bench.arrive(5, 100);
  bench.sink.refuse = (id) => (id === ids[2] ? ENOBUFS : 0);
  bench.pump.ring.advance(101, 2);
  bench.pump.release(100, bench.nowMs);
  bench.run(15); // less than the silence after which what was sent and did not come back is lost
  expect(bench.sink.got).toEqual(ids.filter((id) => id !== ids[2]));
  expect(bench.sink.calls).toBeLessThan(14);
  expect(bench.pump.meter.read(0).refusedFrames).toBe(1);
  expect(bench.cells.heldInOut.gone).toBe(1);
});

test('a full send buffer is waited for, a quarter of a second at most for one frame', () => {
  const bench = new Bench();
  const ids = bench.arrive(3, 100);
  let full = true;
  bench.sink.refuse = () => (full ? EAGAIN : 0);
  bench.pump.ring.advance(101, 2);
  bench.pump.release(100, bench.nowMs);
  bench.run(200);
  expect(bench.sink.got).toEqual([]);
  expect(bench.sink.calls).toBeLessThan(250);
  expect(bench.pump.meter.read(0).refusedFrames).toBe(0);
  bench.run(60);
  expect(bench.pump.meter.read(0).refusedFrames).toBe(1);
  full = false;
  bench.run(60);
  expect(bench.sink.got).toEqual(ids.slice(1));
});

test('high-water comes once, before overflow, and again only after a calm', () => {
  const bench = new Bench(10_000);
  bench.arrive(60, 100);
  bench.run(10);
  expect(bench.kinds().filter((kind) => kind === 'high-water')).toHaveLength(1);
  bench.arrive(60, 100);
  bench.run(300);
  expect(bench.kinds().filter((kind) => kind === 'high-water')).toHaveLength(1);
  expect(bench.facts.find(({ kind }) => kind === 'overflow')).toEqual({ kind: 'overflow', id: 3, frames: 20 });
  expect(bench.cells.heldInOut.gone).toBe(20);
  bench.pump.ring.advance(101, 2);
  bench.pump.release(100, bench.nowMs);
  bench.run(100);
  bench.arrive(70, 101);
  bench.run(10);
  expect(bench.kinds().filter((kind) => kind === 'high-water')).toHaveLength(2);
});

test('a drain ends when the kernel has everything back, and says how much it was', () => {
  const bench = new Bench();
  const ids = bench.arrive(40, 100);
  bench.run(10);
  let covered = -1;
  bench.pump.drain([NIC], 1, bench.nowMs, (frames) => { covered = frames; });
  const more = bench.arrive(2, 100);
  bench.breathe(1);
  bench.breathe(1);
  expect(bench.sink.got).toEqual([...ids, ...more]);
  expect(covered).toBe(-1);
  bench.cells.heldInOut.out += 42;
  bench.breathe(1);
  expect(covered).toBe(42);
});

test('a sender that never pauses cannot keep a drain from ending: what was here leaves, the rest is dropped', () => {
  const bench = new Bench();
  const ids = bench.arrive(40, 100);
  bench.run(10);
  const endsAt: number[] = [];
  bench.pump.drain([NIC], 1, bench.nowMs, () => endsAt.push(bench.nowMs));
  const begun = bench.nowMs;
  while (endsAt.length === 0 && bench.nowMs < begun + 10_000) {
    bench.arrive(1, 100); // one is always on its way
    bench.breathe(1);
    bench.cells.heldInOut.out = bench.sink.got.length;
  }
  expect(endsAt[0]! - begun).toBeLessThan(500);
  expect(bench.sink.got.slice(0, 40)).toEqual(ids);
  expect(bench.pump.meter.read(0)).toMatchObject({ heldFrames: 0, overflowFrames: 0 });
  const { arrived, releasedFrames, discardedFrames } = bench.pump.meter.read(0);
  expect(releasedFrames + discardedFrames).toBe(arrived);
});

test('a discard waits for what is on its way to the ring, and not for the sender to pause', () => {
  const bench = new Bench();
  bench.arrive(40, 100);
  bench.run(10);
  const endsAt: number[] = [];
  bench.pump.drain([NIC], 2, bench.nowMs, () => endsAt.push(bench.nowMs));
  const begun = bench.nowMs;
  bench.breathe(1);
  bench.breathe(1);
  expect(endsAt).toEqual([]); // a block that is not retired yet may hold more
  while (endsAt.length === 0 && bench.nowMs < begun + 10_000) {
    bench.cells.heldInOut.in += 1;
    bench.arrive(1, 100);
    bench.breathe(1);
  }
  expect(endsAt[0]! - begun).toBeLessThan(50);
  expect(bench.sink.got).toEqual([]);
});

test('a release of what was sealed before this ring was made is answered at once', () => {
  const bench = new Bench();
  bench.breathe();
  expect(bench.kinds()).toEqual([]);
  bench.pump.release(97, bench.nowMs);
  expect(bench.facts).toEqual([{ kind: 'released', id: 3, colour: 97 }]);
});

test('a restore ends when the records it found were handed over, those still on their way too', () => {
  const bench = new Bench();
  bench.pump.ring.advance(101, 2);
  const here = bench.stamped(CLASS_LATE, 100, 1);
  bench.breathe();
  let done = false;
  bench.pump.restore(100, 103, 2, bench.nowMs, () => { done = true; });
  bench.breathe();
  const onItsWay = bench.stamped(CLASS_LATE, 100, 1);
  bench.breathe(1);
  expect(done).toBe(false);
  bench.run(10);
  expect(done).toBe(true);
  expect(bench.sink.got).toEqual([here, onItsWay]);
  bench.pump.restore(102, 104, 2, bench.nowMs, () => undefined);
  bench.run(10);
  expect(bench.sink.got).toEqual([here, onItsWay, here, onItsWay]);
});

test('early frames wait for their receiver and are told as gone when they die', () => {
  const bench = new Bench();
  bench.pump.ring.receiver(NIC, 100);
  bench.pump.ring.advance(101, 2);
  const early = bench.stamped(CLASS_EARLY, 101);
  bench.run(10);
  expect(bench.sink.got).toEqual([]);
  bench.pump.ring.receiver(NIC, 101);
  bench.run(10);
  expect(bench.sink.got).toEqual([early]);
  bench.cells.earlyInOut.out++;
  bench.stamped(CLASS_EARLY, 102);
  bench.pump.ring.advance(102, 3);
  bench.run(10);
  bench.pump.restore(100, 103, 2, bench.nowMs, () => undefined);
  bench.run(10);
  expect(bench.cells.earlyInOut).toEqual({ in: 2, out: 1, gone: 1 });
});

test('nothing is allocated per frame', () => {
  const FRAMES = 128;
  const source: FrameSource = {
    ringBlocks: 8, arenaBlocks: 8, blockShift: 16,
    take(intake) {
      if (given === 0) return -1;
      given--;
      for (let i = 0; i < FRAMES; i++) {
        intake.stamp[i] = packStamp(CLASS_HELD, NIC, 0, 100) | 0;
        intake.offset[i] = (block << 16) + 64 + i * 256;
        intake.length[i] = 60;
      }
      intake.count = FRAMES;
      const taken = block;
      block = (block + 1) & 7;
      return taken;
    },
    giveBack: () => undefined, copy: () => undefined, drops: () => 0,
  };
  const sink: FrameSink = { batchMax: 64, send: (_table, _batch, count) => count };
  let given = 0;
  let block = 0;
  let facts = 0;
  const options = { id: 0, framesMax: 4096, bytesMax: 1 << 20, colour: 100, epoch: 1, highWater: 0.9, originMs: 0, settleMs: 3, clockMs: () => 0 };
  const cells = new TestCells();
  const pump = new Pump(options, source, sink, cells, new Intake(FRAMES), new Meter(), () => { facts++; });
  pump.ring.advance(101, 2);
  pump.release(100, 0);
  const at = { nowMs: 1, wallMs: 1 };
  const work = (blocks: number): void => {
    for (let i = 0; i < blocks; i++) {
      given = 1;
      pump.breath(at);
      pump.breath(at);
    }
  };
  work(4000);
  const before = process.memoryUsage().heapUsed;
  work(4000);
  const bytesPerFrame = (process.memoryUsage().heapUsed - before) / (4000 * FRAMES);
  expect(pump.ring.store.tally.released).toBe(8000 * FRAMES);
  expect(facts).toBeLessThan(10);
  expect(bytesPerFrame).toBeLessThan(4);
});
