import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Arena } from '../../bench/hosts/chaos.ts';
import { control } from '../../bench/hosts/controls.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** A short slice of `make test-hosts`: one takeover with ghosts, and one control of the judges (the
 * others are in the series; what the judges say of each kind of frame: hosts-traffic.test.ts). */
const HALF = (): number => 0.5;

describe.skipIf(UNPRIVILEGED)('chaos on three hosts', () => {
  let arena: Arena | undefined;
  const there = (): Arena => arena ?? expect.fail('there is no bed');

  beforeAll(async () => (arena = await Arena.create()), 120_000);
  afterAll(() => arena?.close());

  test('a host cut off is taken over; its VMs speak on and reach nobody, and it is fenced when it is back', async () => {
    const outcome = await there().run({ fault: 'ledger cut, taken over', random: HALF });
    expect(outcome).toMatchObject({ leaked: 0, orphans: 0, old: 0, refused: 0, words: [] });
    expect(outcome.ghosts).toBeGreaterThan(0);
  }, 300_000);

  test('the judges see what is unheld', async () => {
    expect((await control(there(), 'unheld')).leaked).toBeGreaterThan(0);
  }, 300_000);
});
