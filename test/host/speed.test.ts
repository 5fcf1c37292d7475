/**
 * The floors of speed, as ratios to the plain bridge in the same run. The machine is shared, so
 * the floors have room for noise here and a miss is measured once more; `make bench` prints the
 * figures themselves against the bare floors.
 */
import { describe, expect, it } from 'vitest';
import { meets, quick, table } from '../../bench/quick.ts';
import { UNPRIVILEGED } from './privilege.ts';

const ROOM = 0.85;

describe.skipIf(UNPRIVILEGED !== undefined)('speed', () => {
  it('keeps its floors', { timeout: 240_000, retry: 1 }, async () => {
    const figures = await quick({ rounds: 5, seconds: 1, say: () => undefined });
    console.log(table(figures));
    expect(figures.filter((figure) => !meets(figure, ROOM)).map((figure) => `${figure.name}: ${figure.ratio ?? figure.value}`)).toEqual([]);
  });
});
