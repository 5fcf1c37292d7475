import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { REJOIN_ROUNDS, SUSPECT_ROUNDS, heedSign, peerOf, unknownAt } from '../../proxy/core/isolation.ts';
import type { Isolation } from '../../proxy/core/isolation.ts';

const ROUNDS = 4;
/** r: a round begins, a: somebody answers. A sign a second. */
function after(signs: string, from: Isolation = unknownAt(0)): Isolation {
  return [...signs].reduce((state, sign, i) => heedSign(state, { kind: sign === 'r' ? 'round' : 'answer', atMs: i + 1 }, ROUNDS), from);
}
const phases = (signs: string): string[] => [...signs].map((_, i) => after(signs.slice(0, i + 1)).phase);

describe('isolation', () => {
  test.each([
    ['nobody was asked yet', '', 'unknown'],
    ['an answer before the first round is of another life', 'a', 'unknown'],
    ['asked, and it is too early to tell', 'rrr', 'unknown'],
    ['one answer is enough at the start', 'ra', 'reachable'],
    ['one silent round is nothing', 'rarr', 'reachable'],
    ['two are suspicious', 'rarrr', 'suspect'],
    ['an answer ends the suspicion', 'rarrra', 'reachable'],
    ['four silent rounds isolate', 'rarrrrr', 'isolated'],
    ['also from the start', 'rrrrr', 'isolated'],
    ['the round under way is not counted as silent', 'rrrr', 'unknown'],
    ['one answered round does not end it', 'rrrrra', 'isolated'],
    ['nor two answers to one round', 'rrrrraa', 'isolated'],
    ['answers in two rounds in a row do', 'rrrrrara', 'reachable'],
    ['not in a row do not', 'rrrrrarra', 'isolated'],
  ])('%s', (_, signs, phase) => {
    expect(after(signs).phase).toBe(phase);
  });

  test('a prober that sends nothing leaves everything as it is, however long', () => {
    const before = after('rarrr');
    expect(heedSign(before, { kind: 'answer', atMs: 1e9 }, ROUNDS).phase).toBe('reachable');
    expect(before).toMatchObject({ phase: 'suspect', sinceMs: 5 });
  });

  test('the time of a phase is that of the sign that began it', () => {
    expect(after('rarrrrr')).toMatchObject({ phase: 'isolated', sinceMs: 7 });
    expect(phases('rarrrrrr').at(-1)).toBe('isolated');
    expect(after('rarrrrrr').sinceMs).toBe(7);
  });

  test('whatever comes: isolated only after so many silent rounds, left only after answers in a row', () => {
    fc.assert(fc.property(fc.array(fc.constantFrom('r', 'a'), { maxLength: 200 }), (signs) => {
      let state = unknownAt(0);
      let [silent, inARow] = [0, 0];
      let [heard, begun] = [false, false];
      for (const sign of signs) {
        const before = state.phase;
        state = heedSign(state, { kind: sign === 'r' ? 'round' : 'answer', atMs: 1 }, ROUNDS);
        if (sign === 'r') {
          [silent, inARow] = !begun || heard ? [0, inARow] : [silent + 1, 0];
          [heard, begun] = [false, true];
        } else if (begun && !heard) [heard, silent, inARow] = [true, 0, inARow + 1];
        expect(state.phase === 'isolated').toBe(before === 'isolated' ? inARow < REJOIN_ROUNDS : silent >= ROUNDS);
        if (state.phase === 'suspect') expect(silent).toBeGreaterThanOrEqual(SUSPECT_ROUNDS);
      }
    }));
  });
});

test('a peer is late only for one who hears itself', () => {
  const heard = { heardMs: 1000, selfHeardMs: 5000, isAlive: true };
  expect(peerOf(heard, 2000, 1500)).toBe('there');
  expect(peerOf(heard, 5000, 1500)).toBe('late');
  expect(peerOf(heard, 9000, 1500), 'it hears not even itself').toBe('unknown');
  expect(peerOf({ ...heard, isAlive: false }, 5000, 1500)).toBe('lost');
});
