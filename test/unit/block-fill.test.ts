import { expect, test } from 'vitest';
import { BlockFill } from '../../proxy/ring/block-fill.ts';
import { Intake } from '../../proxy/ring/frames.ts';

const BLOCK_BYTES = 1024;
const LEAD = 32;
const ROOM = LEAD + 64;
const PER_BLOCK = Math.floor(BLOCK_BYTES / ROOM);

function fillOf(blocks: number): { fill: BlockFill; intake: Intake } {
  const memory = new ArrayBuffer(blocks * BLOCK_BYTES);
  return { fill: new BlockFill({ words: new Int32Array(memory), times: new Float64Array(memory) }, { blocks, blockBytes: BLOCK_BYTES, lead: LEAD }), intake: new Intake(BlockFill.framesMax(BLOCK_BYTES, LEAD)) };
}

test('frames come out in their order, with what was said of them, in blocks in turn', () => {
  const { fill, intake } = fillOf(3);
  const places = Array.from({ length: PER_BLOCK + 1 }, (_, i) => fill.reserve(100 + i, 60 + (i % 5), i));
  expect(places.map((at) => at % BLOCK_BYTES).slice(0, 2)).toEqual([LEAD, LEAD + ROOM]);
  expect(fill.take(intake)).toBe(0);
  expect([intake.count, intake.stamp[1], intake.length[4], intake.offset[2], intake.arrivedMs[3]]).toEqual([PER_BLOCK, 101, 64, places[2], 3]);
  expect(fill.take(intake)).toBe(1);
  expect([intake.count, intake.stamp[0]]).toEqual([1, 100 + PER_BLOCK]);
  expect([fill.waiting, fill.take(intake)]).toEqual([false, -1]);
});

test('where the next block is not back there is no room, which is counted, and then there is', () => {
  const { fill, intake } = fillOf(2);
  for (const block of [0, 1]) {
    fill.reserve(1, 60, 0);
    expect(fill.take(intake)).toBe(block);
  }
  expect([fill.reserve(2, 60, 0), fill.reserve(3, 60, 0)]).toEqual([-1, -1]);
  expect([fill.drops(), fill.drops()]).toEqual([2, 0]);
  fill.giveBack(0);
  expect(fill.reserve(4, 60, 0)).toBe(LEAD);
  expect([fill.take(intake), intake.stamp[0]]).toEqual([0, 4]);
});

test('begins with the first block again when nothing is out, and not before', () => {
  const { fill, intake } = fillOf(4);
  const round = (): number => {
    fill.reserve(1, 60, 0);
    return fill.take(intake);
  };
  expect([round(), round()]).toEqual([0, 1]);
  fill.giveBack(0);
  expect(round(), 'block 1 is still out').toBe(2);
  fill.giveBack(1);
  fill.giveBack(2);
  fill.reserve(1, 60, 0);
  fill.reserve(1, 60, 0);
  expect([fill.take(intake), intake.count]).toEqual([0, 2]);
  fill.giveBack(0);
  expect([round(), round()]).toEqual([0, 1]);
});
