/**
 * The guest kit and the bed of real VMs, without protection: guests boot, count in a row, and
 * measure each other; nothing of them is left behind.
 */
import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VmBed } from '../../bench/vm/bed.ts';
import { CountingClient } from '../../bench/vm/client.ts';
import { guestKit, kitMissing } from '../../bench/vm/kit.ts';
import { countOf, pingUs, sendMbps } from '../../bench/vm/lab.ts';
import { UNPRIVILEGED } from './privilege.ts';

const reason = UNPRIVILEGED ?? (await kitMissing());

test.skipIf(reason !== undefined)(`two guests count, and nothing of them stays ${reason ?? ''}`, async () => {
  const again = await guestKit();
  expect(await guestKit()).toEqual(again);
  const bed = await VmBed.create({ guests: 2 });
  const pids: (number | undefined)[] = [];
  try {
    await bed.startGuests();
    pids.push(bed.pid('front', 0), bed.pid('store', 0));
    expect(bed.pid('front', 1)).toBeUndefined();
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    await client.counts(100, 10_000);
    const account = await client.stop();
    expect(account).toMatchObject({ wrong: [], first: 1, last: account.answers });
    expect(account.broken).toBeUndefined();
    for (const name of ['front', 'store']) expect(await countOf(bed, name)).toBeGreaterThanOrEqual(account.answers);
    expect(await sendMbps(bed, 'front', 'store', 300)).toBeGreaterThan(10);
    expect((await pingUs(bed, 'front', 'store', 100)).p50).toBeLessThan(50_000);
  } finally {
    await bed.close();
  }
  expect(pids.map((pid) => pid !== undefined && !existsSync(`/proc/${pid}`))).toEqual([true, true]);
  expect(readdirSync('/dev/shm').filter((name) => name.startsWith(`sl-${bed.bed.id}`))).toEqual([]);
  expect(readdirSync('/run/netns').filter((name) => name.includes(bed.bed.id))).toEqual([]);
});
