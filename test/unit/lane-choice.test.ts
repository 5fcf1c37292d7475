/** Which epochs go by lane: by the length of the frames that were held last. */
import { describe, expect, it } from 'vitest';
import { LaneChoice } from '../../proxy/plane/lane-choice.ts';

/** What it says after each epoch of so many frames of such a length. */
function told(choice: LaneChoice, epochs: readonly (readonly [frames: number, bytes: number])[]): boolean[] {
  let [arrived, arrivedBytes] = [0, 0];
  return epochs.map(([frames, bytes]) => {
    arrived += frames;
    arrivedBytes += frames * bytes;
    return choice.next({ arrived, arrivedBytes });
  });
}

describe('ring or lane', () => {
  it('nothing was held yet: ring', () => {
    expect(told(new LaneChoice('auto'), [[0, 0], [0, 0]])).toEqual([false, false]);
  });

  it('super-frames go by lane from the second epoch on, frames of an MTU by ring', () => {
    expect(told(new LaneChoice('auto'), [[10, 60_000], [10, 60_000]])).toEqual([true, true]);
    expect(told(new LaneChoice('auto'), [[1000, 1500], [1000, 1500]])).toEqual([false, false]);
  });

  it('a stream\'s acknowledgements do not change it, a flood of small frames does', () => {
    expect(told(new LaneChoice('auto'), [[100, 30_000], [110, 27_000], [100, 60], [5000, 60]])).toEqual([true, true, true, false]);
  });

  it('epochs without frames keep it', () => {
    expect(told(new LaneChoice('auto'), [[10, 60_000], ...new Array<[number, number]>(2000).fill([0, 0])]).every((lane) => lane)).toBe(true);
  });

  it('what was held long ago is forgotten: either way within some ten epochs', () => {
    const large: [number, number][] = new Array<[number, number]>(50).fill([100, 60_000]);
    const small: [number, number][] = new Array<[number, number]>(50).fill([100, 60]);
    const all = told(new LaneChoice('auto'), [...large, ...small, ...large]);
    expect(all.slice(0, 50).every((lane) => lane)).toBe(true);
    expect(all.slice(65, 100).some((lane) => lane)).toBe(false);
    expect(all.slice(115).every((lane) => lane)).toBe(true);
  });

  it('counters that begin anew are no frames', () => {
    const choice = new LaneChoice('auto');
    expect(choice.next({ arrived: 1000, arrivedBytes: 60_000 })).toBe(false);
    expect(choice.next({ arrived: 0, arrivedBytes: 0 })).toBe(false);
  });

  it('on: always', () => {
    expect(told(new LaneChoice('on'), [[0, 0], [1000, 60]])).toEqual([true, true]);
  });
});
