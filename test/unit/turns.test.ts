import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Turns } from '../../classifier/turns.ts';

let nowMs = 0;
beforeEach(() => {
  nowMs = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs);
});
afterEach(() => {
  vi.restoreAllMocks();
});

test('others have their turn once the loop was had for long, and not before; from then on it counts anew', async () => {
  const turns = new Turns(5);
  let others = 0;
  const other = (): void => {
    others += 1;
    next = setImmediate(other);
  };
  let next = setImmediate(other);
  const seen: number[] = [];
  for (const ms of [0, 4.9, 5, 9.9, 10, 40]) {
    nowMs = ms;
    await turns.give();
    seen.push(others);
  }
  clearImmediate(next);
  expect(seen).toEqual([0, 0, 1, 1, 2, 3]);
});
