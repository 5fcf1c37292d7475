import { expect, test } from 'vitest';
import { colour, epoch } from '../../proxy/core/types.ts';
import { GROUP_LAYOUT, NIC_LAYOUT } from '../../proxy/plane/cells.ts';
import { Groups } from '../../proxy/plane/groups.ts';
import { Meter } from '../../proxy/plane/meter.ts';
import { ADVANCE, RELEASE } from '../../proxy/plane/orders.ts';
import { retireMsOf } from '../../proxy/plane/retire.ts';
import { SOFT_BLOCK_FRAMES_MAX, SoftQueue } from '../../proxy/plane/soft-queue.ts';
import type { GroupId } from '../../proxy/ports.ts';
import type { Intake } from '../../proxy/ring/frames.ts';
import { CLASS_HELD, packStamp } from '../../proxy/ring/stamp.ts';

const NIC = 5;
const COLOUR = colour(100);
const NIC_CELLS = 256;

class WatchedQueue extends SoftQueue {
  looks = 0;
  onTake: (() => void) | undefined;
  override take(intake: Intake): number {
    this.looks++;
    this.onTake?.();
    return super.take(intake);
  }
}

/** Groups over queues of the portable plane; time is the test's. */
class Loop {
  readonly queues: WatchedQueue[] = [];
  readonly out: number[] = [];
  readonly heldIn: BigUint64Array;
  readonly groups: Groups;
  nowMs = 1000;

  constructor(count: number) {
    const cells = { groups: new ArrayBuffer(GROUP_LAYOUT.size * 64), nics: new ArrayBuffer(NIC_LAYOUT.size * NIC_CELLS) };
    this.heldIn = new BigUint64Array(cells.groups);
    this.groups = new Groups({
      cells, blockFramesMax: SOFT_BLOCK_FRAMES_MAX,
      openQueue: (id, { bytes }) => {
        const queue = new WatchedQueue(bytes, () => this.out.push(id), () => undefined);
        this.queues.push(queue);
        return queue;
      },
      meterOf: () => new Meter(), answer: () => undefined, hand: () => undefined, fact: () => undefined,
      fail: (_call, error) => { throw error; },
    });
    for (let id: GroupId = 0; id < count; id++) {
      const options = { bytes: 1 << 20, highWater: 0.9, colour: COLOUR, newest: COLOUR, epoch: epoch(1), holdDevice: `slh${id}`, ringDevice: `slr${id}` };
      this.groups.handle({ op: 'open', call: id, id, options, meter: new SharedArrayBuffer(0) });
    }
  }
  /** The kernel holds a frame of this group. */
  arrive(id: number): void {
    const cell = (id * GROUP_LAYOUT.size + GROUP_LAYOUT.heldIn) / 8 + (COLOUR & 63);
    this.heldIn[cell] = this.heldIn[cell]! + 1n;
    this.queues[id]!.push(packStamp(CLASS_HELD, NIC, 0, COLOUR), new Uint8Array(60), Date.now());
  }
  /** Which groups were looked after in one turn. */
  turn(ms = 0): number[] {
    this.nowMs += ms;
    const before = this.queues.map(({ looks }) => looks);
    this.groups.breathe(this.nowMs, Date.now());
    return this.queues.flatMap(({ looks }, id) => (looks > before[id]! ? [id] : []));
  }
}

test('the first rings have blocks of 1 ms, those after them of 2 and 4, those beyond of 8 ms', () => {
  expect(Array.from({ length: 10 }, (_, open) => retireMsOf(open))).toEqual([1, 1, 2, 2, 4, 4, 4, 4, 8, 8]);
});

test('who was passed over and is handed frames by another group\'s look is looked after at once', () => {
  const loop = new Loop(3);
  loop.turn();
  loop.turn(100);
  loop.turn(100);
  const [first, , last] = loop.queues;
  if (first === undefined || last === undefined) throw new Error('the loop has its groups');
  last.onTake = () => { loop.arrive(0); }; // what both share
  loop.arrive(2);
  loop.nowMs += 1;
  expect(loop.groups.breathe(loop.nowMs, Date.now())).toBe(loop.nowMs);
  last.onTake = undefined;
  expect(loop.turn()).toContain(0);
});

test('a group that wants nothing is passed over until it has frames, an order, or its time has come', () => {
  const loop = new Loop(3);
  loop.turn();
  loop.turn(100); // what each looks after by the clock has come to rest
  expect(loop.turn(800)).toEqual([]);
  loop.arrive(1);
  expect(loop.turn(), 'frames').toEqual([1]);
  loop.groups.obey(ADVANCE, 2, 101, 0, 2);
  expect(loop.turn(), 'an order').toEqual([2]);
  expect(loop.turn(), 'nothing').toEqual([]);
  expect(loop.turn(50), 'the look after the frames of before').toEqual([1]);
  expect(loop.turn(2000), 'once a second in any case').toEqual([0, 1, 2]);
  loop.groups.handle({ op: 'held', call: 9, id: 0 });
  expect(loop.turn(), 'a request').toEqual([0]);
});

test('a release lets out what its group holds, and nothing of another', () => {
  const loop = new Loop(3);
  loop.arrive(1);
  loop.arrive(2);
  expect(loop.turn()).toEqual([0, 1, 2]);
  loop.groups.obey(ADVANCE, 1, 101, 0, 2);
  loop.groups.obey(RELEASE, 1, COLOUR, 0, loop.nowMs);
  expect(loop.out).toEqual([]);
  loop.turn();
  expect(loop.out).toEqual([1]);
});
