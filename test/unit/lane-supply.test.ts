import { expect, test } from 'vitest';
import { LaneSupply } from '../../proxy/plane/lane-supply.ts';
import type { Refusal } from '../../proxy/plane/lane-supply.ts';

/** Everything around: what was done, in order, and how it answers. */
class Around {
  readonly done: string[] = [];
  nowMs = 0;
  ensures: () => Promise<number> = () => Promise.resolve(93);
  uses: (ifindex: number) => Promise<Refusal | undefined> = () => Promise.resolve(undefined);
  readonly supply = new LaneSupply(
    {
      ensure: (id) => {
        this.done.push(`ensure ${id}`);
        return this.ensures();
      },
      drop: (id) => {
        this.done.push(`drop ${id}`);
        return Promise.resolve();
      },
    },
    {
      use: (id, ifindex) => {
        this.done.push(`use ${id} ${ifindex}`);
        return this.uses(ifindex);
      },
      refused: (id, reason) => { this.done.push(`refused ${id}: ${reason}`); },
      clockMs: () => this.nowMs,
    },
  );
  take(): string[] {
    return this.done.splice(0);
  }
}

test('wanted as often as you like, they are made once', async () => {
  const around = new Around();
  around.supply.opened(3);
  void around.supply.give(3);
  await Promise.all([around.supply.give(3), around.supply.give(3)]);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93']);
  await around.supply.give(3);
  expect(around.take()).toEqual([]);
});

test('a group that is not open gets none', async () => {
  const around = new Around();
  await around.supply.give(3);
  around.supply.opened(3);
  around.supply.closed(3);
  await around.supply.give(3);
  await around.supply.lost(3);
  expect(around.take()).toEqual([]);
});

test('lost: taken from the hold loop, and made again a second later', async () => {
  const around = new Around();
  around.supply.opened(3);
  await around.supply.give(3);
  around.take();
  await around.supply.lost(3);
  await around.supply.give(3);
  expect(around.take()).toEqual(['use 3 0']);
  around.nowMs = 1000;
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93']);
});

test('lost while they are made: taken right after', async () => {
  const around = new Around();
  around.supply.opened(3);
  const given = around.supply.give(3);
  await Promise.all([given, around.supply.lost(3)]);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93', 'use 3 0']);
});

test('refused: said once with what to do, devices dropped, tried again after a minute', async () => {
  const around = new Around();
  around.ensures = () => Promise.reject(Object.assign(new Error('device slq3 exists already and is not ours'), { fix: 'remove it' }));
  around.supply.opened(3);
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'refused 3: device slq3 exists already and is not ours: remove it', 'drop 3']);
  await around.supply.give(3);
  expect(around.take()).toEqual([]);
  around.nowMs = 60_000;
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'drop 3']);
});

test('a kernel without the queues is asked twice, and each time it is said', async () => {
  const around = new Around();
  around.uses = () => Promise.resolve({ errno: 2, reason: 'netlink qdisc tbf: No such file or directory' });
  for (const id of [3, 4, 5]) around.supply.opened(id);
  for (const id of [3, 4, 5, 3]) {
    around.nowMs += 60_000;
    await around.supply.give(id);
  }
  const done = around.take();
  expect(done.filter((one) => one.startsWith('ensure'))).toEqual(['ensure 3', 'ensure 4']);
  expect(done.filter((one) => one.startsWith('refused')).slice(0, 1)).toEqual(['refused 3: netlink qdisc tbf: No such file or directory, as of a kernel without sch_tbf: modprobe sch_tbf (CONFIG_NET_SCH_TBF) and restart sluiced']);
});

test('closed while they are made: nothing is said, and nothing dropped that may be the next life\'s', async () => {
  const around = new Around();
  around.supply.opened(3);
  around.uses = () => {
    around.supply.closed(3);
    around.supply.opened(3);
    return Promise.reject(new Error('group 3 is not open'));
  };
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93']);
  around.uses = () => Promise.resolve(undefined);
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93']);
});

test('the end of the loop is no reason to complain', async () => {
  const around = new Around();
  around.supply.opened(3);
  around.uses = () => {
    around.supply.end();
    return Promise.reject(new Error('the hold loop has ended'));
  };
  await around.supply.give(3);
  expect(around.take()).toEqual(['ensure 3', 'use 3 93']);
});
