import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Arena } from '../../bench/hosts/chaos.ts';
import { control } from '../../bench/hosts/controls.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** A short slice of `make test-hosts`: one takeover with ghosts, and two controls of the judges. */
const HALF = (): number => 0.5;

describe.skipIf(UNPRIVILEGED)('chaos on three hosts', () => {
  let arena: Arena | undefined;
  const there = (): Arena => arena ?? expect.fail('there is no bed');

  beforeAll(async () => (arena = await Arena.create()), 90_000);
  afterAll(() => arena?.close());

  test('a host cut off is taken over; its VMs speak on and reach nobody, and it is fenced when it is back', async () => {
    const outcome = await there().run({ fault: 'ledger cut, taken over', random: HALF });
    expect(outcome).toMatchObject({ leaked: 0, orphans: 0, old: 0, refused: 0, words: [] });
    expect(outcome.ghosts).toBeGreaterThan(0);
  }, 120_000);

  test('the judges see what is unheld, and a frame of the old generation that is given the new colour', async () => {
    expect((await control(there(), 'unheld')).leaked).toBeGreaterThan(0);
    expect((await control(there(), 'colour')).old).toBeGreaterThan(0);
  }, 120_000);
});
