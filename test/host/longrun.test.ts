/** Twenty seconds of the long run; `make longrun` is the ten minutes. */
import { describe, expect, it } from 'vitest';
import { faults, longRun } from '../../bench/longrun.ts';
import { UNPRIVILEGED } from './privilege.ts';

describe.skipIf(UNPRIVILEGED !== undefined)('long run, short', () => {
  it('mixed traffic at 100 epochs a second: nothing leaked, nothing lost, memory flat', { timeout: 120_000 }, async () => {
    const run = await longRun(20, () => undefined);
    console.log(`long run 20 s: ${JSON.stringify(run)}`);
    expect(faults(run)).toEqual([]);
  });
});
