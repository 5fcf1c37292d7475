/**
 * A group of real VMs dies and goes on: the short series. `make test-vm` is the long one.
 */
import { expect, test } from 'vitest';
import { control, controlFault } from '../../bench/vm/controls.ts';
import { failover, faults } from '../../bench/vm/failover.ts';
import { kitMissing } from '../../bench/vm/kit.ts';
import { UNPRIVILEGED } from './privilege.ts';

const reason = UNPRIVILEGED ?? (await kitMissing());

test.skipIf(reason !== undefined)(`two VMs die between a cut and its commit: the count goes on ${reason ?? ''}`, async () => {
  const run = await failover({ guests: 2, moment: 'cut', at: 0.5 });
  expect(faults(run)).toEqual([]);
  expect(run.explained?.seen).toBeGreaterThan(50);
  expect(run.deaths).toHaveLength(1);
});

test.skipIf(reason !== undefined)(`members from different epochs hang the client: the test above could fail ${reason ?? ''}`, async () => {
  const run = await control('epochs');
  expect(controlFault(run)).toBeUndefined();
  expect(run.answersAfter).toBe(0);
});
