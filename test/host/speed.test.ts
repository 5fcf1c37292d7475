/**
 * The quick figures can be taken, every one of them, and none is off by an order of magnitude. The
 * floors themselves are `make bench`'s: on a machine that others share, a floor in a test would say
 * more about the neighbours than about the gate.
 */
import { describe, expect, it } from 'vitest';
import { quick, table } from '../../bench/quick.ts';
import { UNPRIVILEGED } from './privilege.ts';

const RATIO_MIN = 0.02;
const LATENCY_MS_MAX = 50;

describe.skipIf(UNPRIVILEGED !== undefined)('speed', () => {
  it('is measured beside the plain bridge in one run', { timeout: 240_000, retry: 1 }, async () => {
    const figures = await quick({ rounds: 1, seconds: 1, say: () => undefined });
    console.log(table(figures));
    expect(figures).toHaveLength(8);
    const broken = figures.filter(({ lowerIsBetter, ratio, value }) => (lowerIsBetter ? !(value > 0 && value < LATENCY_MS_MAX) : !((ratio ?? 0) > RATIO_MIN)));
    expect(broken.map(({ name, value }) => `${name}: ${value}`)).toEqual([]);
  });
});
