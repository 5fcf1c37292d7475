import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { sleep, until } from '../../bench/bed/commands.ts';
import { Etcd } from '../../bench/bed/etcd.ts';
import { committedOf, decideHead } from '../../proxy/core/hosts.ts';
import type { Asker, HeadCommand } from '../../proxy/core/hosts.ts';
import { epoch, generation } from '../../proxy/core/types.ts';
import type { Acked, LedgerView } from '../../proxy/core/types.ts';
import { EtcdLedger, LEASE_S } from '../../proxy/edge/etcd-ledger.ts';
import { EMPTY, acked, swapped, viewOf } from '../sim/memory-ledger.ts';
import type { Store } from '../sim/memory-ledger.ts';
import { specFor } from '../sim/hosts-world.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** The ledger over a real etcd of three nodes on loopback. */
const HOSTS = ['h1', 'h2', 'h3'];
const directory = mkdtempSync(join(tmpdir(), 'sl-etcd-'));
const etcd = new Etcd({ directory, port: 21_000 + (process.pid % 5000) * 6 });
let prefixes = 0;

/** A daemon's view of the ledger, and all it was shown. */
async function joined(self: string, prefix: string, endpoints = etcd.endpoints) {
  const shown = new Map<string, LedgerView>();
  const committed: number[] = [];
  const lost: string[] = [];
  const wentBack: number[] = [];
  const ledger = new EtcdLedger({
    self, owner: self, prefix, endpoints, tls: undefined,
    onHost: (host, isAlive) => void (isAlive || lost.push(host)), onWentBack: (_was, is) => void wentBack.push(is),
  });
  ledger.onView((group, view) => {
    const before = wentBack.length > 0 ? undefined : shown.get(group);
    if ((before?.head?.serial ?? 0) > (view.head?.serial ?? 0)) throw new Error('an older head was shown');
    shown.set(group, view);
    if (view.head !== undefined) committed.push(committedOf(view.head, view));
  });
  await ledger.start();
  const at = (group = 'g'): number => {
    const view = shown.get(group);
    return view?.head === undefined ? -1 : committedOf(view.head, view);
  };
  return { ledger, shown, committed, lost, wentBack, at };
}
type Joined = Awaited<ReturnType<typeof joined>>;

const lifeOf = (g: number): string => `a${g}`;
const asked = (given: HeadCommand): Asker => ({ life: lifeOf(given.kind === 'takeover' || given.kind === 'protect' ? (given.generation ?? 1) : 0), known: undefined });

async function command(ledger: EtcdLedger, given: HeadCommand, group = 'g'): Promise<string> {
  for (let tries = 0; tries < 40; tries += 1) {
    try {
      const { reply, swap } = decideHead(await ledger.read(group), given, asked(given));
      if (swap === undefined) return reply.outcome === 'denied' ? reply.denial.code : reply.outcome;
      if (await ledger.swap(group, swap)) return reply.outcome;
    } catch (error) {
      if (tries === 39) throw error;
      await sleep(100);
    }
  }
  return 'in vain';
}

async function world(run: (hosts: readonly [Joined, Joined, Joined]) => Promise<void>): Promise<void> {
  const prefix = `/t${(prefixes += 1)}/`;
  const made: Joined[] = [];
  try {
    for (const name of HOSTS) made.push(await joined(name, prefix));
    const [a, b, c] = made;
    if (a === undefined || b === undefined || c === undefined) throw new Error('three hosts');
    expect(await command(a.ledger, { kind: 'apply', spec: specFor(HOSTS) })).toBe('accepted');
    expect(await command(a.ledger, { kind: 'protect' })).toBe('accepted');
    await run([a, b, c]);
  } finally {
    for (const { ledger } of made) await ledger.close();
  }
}
const G1 = generation(1);
const publish = ({ ledger }: Joined, e: number, g = G1): void => ledger.publish('g', { generation: g, life: lifeOf(g), epoch: epoch(e) });

describe.skipIf(UNPRIVILEGED)('the ledger on etcd', () => {
  beforeAll(() => etcd.start());
  afterAll(async () => {
    await etcd.close();
    rmSync(directory, { recursive: true, force: true });
  });

  test('what it promises is what the exploration assumed: same writes, same answers', async () => {
    await world(async ([a]) => {
      let model: Store = EMPTY;
      for (const given of [{ kind: 'apply', spec: specFor(HOSTS) }, { kind: 'protect' }] as const) {
        const { swap } = decideHead(viewOf(model.head, model.revision, model.acks), given, asked(given));
        model = swap === undefined ? model : (swapped(model, swap) ?? model);
      }
      const write = async (acks: Omit<Acked, 'life'>): Promise<void> => {
        const e = { ...acks, life: lifeOf(acks.generation) };
        model = acked(model, e) ?? model;
        const other = new EtcdLedger({ self: e.host, owner: e.host, prefix: `/t${prefixes}/`, endpoints: etcd.endpoints, tls: undefined });
        await other.start();
        other.publish('g', e);
        await until('the ack is decided', () => other.counts.acks === 1);
        await other.close();
        expect((await a.ledger.read('g')).acks).toEqual(viewOf(model.head, 1, model.acks).acks);
      };
      await write({ host: 'h1', generation: G1, epoch: epoch(3) });
      await write({ host: 'h1', generation: G1, epoch: epoch(2) }); // late: takes nothing back
      await write({ host: 'h2', generation: generation(2), epoch: epoch(9) }); // a generation that has not begun
      await write({ host: 'h9', generation: G1, epoch: epoch(9) }); // no host of it
      const view = await a.ledger.read('g');
      const second = { kind: 'takeover', generation: generation(2), epoch: epoch(3) } as const;
      const stale = decideHead(view, { ...second, epoch: epoch(0) }, asked(second));
      await write({ host: 'h2', generation: G1, epoch: epoch(4) });
      await write({ host: 'h3', generation: G1, epoch: epoch(4) });
      const { swap } = stale;
      if (swap === undefined) throw new Error('a takeover at 0 was possible then');
      expect(await a.ledger.swap('g', swap), 'its witness has moved: epoch 3 may have left').toBe(false);
      expect(await command(a.ledger, second)).toBe('accepted');
      const raised = decideHead(viewOf(model.head, model.revision, model.acks), second, asked(second)).swap;
      model = raised === undefined ? model : (swapped(model, raised) ?? model);
      await write({ host: 'h1', generation: G1, epoch: epoch(7) }); // fenced
      await write({ host: 'h1', generation: generation(2), epoch: epoch(4) });
    });
  });

  test('committed is the least ack, everywhere, and an ack of an old generation moves nothing', async () => {
    await world(async ([a, b, c]) => {
      publish(a, 2);
      publish(b, 3);
      await sleep(50);
      expect([a, b, c].map(({ at }) => at())).toEqual([0, 0, 0]);
      publish(c, 1);
      for (const host of [a, b, c]) await until('all see 1', () => host.at() === 1);
      expect(await command(b.ledger, { kind: 'takeover', generation: generation(2), epoch: epoch(1) })).toBe('accepted');
      publish(a, 5);
      publish(c, 5);
      for (const host of [a, b, c]) await until('all see the takeover', () => host.shown.get('g')?.head?.generation === 2);
      await until('acks of old generations are removed', async () =>
        (await etcd.ctl(['get', '--prefix', `/t${prefixes}/groups/g/ack/`, '--keys-only'])).match(/ack/g)?.length === 3);
      expect([a, b, c].map(({ at }) => at())).toEqual([1, 1, 1]);
    });
  });

  test('acks that share a transaction: one that is refused stops no other', async () => {
    await world(async ([a, b, c]) => {
      expect(await command(a.ledger, { kind: 'apply', spec: { ...specFor(HOSTS), group: 'k', wire: { vlan: 8 } } }, 'k')).toBe('accepted');
      expect(await command(a.ledger, { kind: 'protect' }, 'k')).toBe('accepted');
      for (const host of [a, b, c]) publish(host, 2);
      for (const host of [a, b, c]) await until('all are at 2', () => host.at() === 2);
      const { ackTxns } = a.ledger.counts;
      publish(a, 1); // late, and refused
      for (const { ledger } of [a, b, c]) ledger.publish('k', { generation: G1, life: lifeOf(1), epoch: epoch(5) });
      for (const host of [a, b, c]) await until('k is at 5', () => host.at('k') === 5);
      expect(a.ledger.counts.ackTxns - ackTxns, 'both went together').toBe(1);
      expect([a, b, c].map(({ at }) => at())).toEqual([2, 2, 2]);
    });
  });

  test('leader killed, and its return: no event lost, committed only rises', async () => {
    await world(async ([a, b, c]) => {
      const all = [a, b, c];
      let e = 0;
      const turn = async (upTo: number, ms: number): Promise<void> => {
        for (const until_ = Date.now() + ms; e < upTo || Date.now() < until_;) {
          e += 1;
          for (const host of all) publish(host, e);
          await sleep(25);
        }
        for (const host of all) await until(`all are at ${e}`, () => host.at() === e, 40_000);
      };
      await turn(20, 0);
      const leader = await etcd.leader();
      expect(leader).toBeGreaterThanOrEqual(0);
      await etcd.kill(leader);
      const killedAt = performance.now();
      await turn(e + 20, 0);
      console.log(`leader killed: all committed again after ${Math.round(performance.now() - killedAt)} ms, of which 500 were epochs`);
      etcd.startNode(leader);
      await turn(e + 10, 500);
      for (const { committed } of all) expect(committed).toEqual([...committed].sort((x, y) => x - y));
    });
  }, 60_000);

  test('majority lost and back: nothing commits meanwhile, a read says ledger_down, then all goes on', async () => {
    await world(async ([a, b, c]) => {
      for (const host of [a, b, c]) publish(host, 1);
      for (const host of [a, b, c]) await until('all are at 1', () => host.at() === 1, 15_000);
      etcd.pause(0);
      etcd.pause(1);
      for (const host of [a, b, c]) publish(host, 2);
      await expect(a.ledger.read('g')).rejects.toMatchObject({ code: 'ledger_down' });
      await sleep(700);
      expect([a, b, c].map(({ at }) => at()), 'an ack that no majority has is no ack').toEqual([1, 1, 1]);
      etcd.wake(0);
      etcd.wake(1);
      const backAt = performance.now();
      for (const host of [a, b, c]) await until('all are at 2', () => host.at() === 2, 20_000);
      console.log(`majority back: committed after ${Math.round(performance.now() - backAt)} ms`);
    });
  }, 60_000);

  test('a node is paused under a watch: it is noticed by the silence, and nothing is lost', async () => {
    await world(async ([a, b, c]) => {
      etcd.pause(0);
      for (const host of [a, b, c]) publish(host, 3);
      for (const host of [a, b, c]) await until('all are at 3', () => host.at() === 3, 20_000);
      etcd.wake(0);
    });
  }, 60_000);

  test('what a read finds is told, too: to the watch it is nothing new then', async () => {
    await world(async ([a, b, c]) => {
      for (const host of [a, c]) publish(host, 99);
      await until('two have acked', () => [a, c].every(({ ledger }) => ledger.counts.acks === 1));
      for (let e = 1; e < 20; e += 1) {
        a.ledger.show(undefined); // its watch ends, and begins again a moment later
        publish(b, e);
        await until('the last has acked', () => b.ledger.counts.acks === e);
        if (a.at() === e) continue; // the watch was there first
        await a.ledger.read('g');
        expect(a.at()).toBe(e);
        return;
      }
      throw new Error('the watch was always first');
    });
  });

  test('an ack of a generation that the watch has not told yet is not given up when its write fails', async () => {
    await world(async ([a, b, c]) => {
      for (let n = 2; n < 12; n += 1) {
        const raised = generation(n);
        await until('the ledger is well', () => a.ledger.read('g').then(() => true, () => false), 30_000);
        c.ledger.show(undefined); // its watch ends, and begins again a moment later
        expect(await command(a.ledger, { kind: 'takeover', generation: raised, epoch: epoch(0) })).toBe('accepted');
        for (const i of [0, 1, 2]) etcd.pause(i);
        const late = c.shown.get('g')?.head?.generation !== raised;
        try {
          if (late) publish(c, 1, raised);
          const { failures } = c.ledger.counts;
          if (late) await until('its write fails', () => c.ledger.counts.ackTxns > 1 || c.ledger.counts.failures > failures + 3, 10_000);
        } finally {
          for (const i of [0, 1, 2]) etcd.wake(i);
        }
        if (!late) continue; // the watch was there first
        for (const host of [a, b]) publish(host, 1, raised);
        await until('all are at 1', () => a.at() === 1, 15_000);
        return;
      }
      throw new Error('the watch was always first');
    });
  }, 60_000);

  test('the store was compacted beyond what a watch had seen: all is read again', async () => {
    await world(async ([a, b, c]) => {
      const late = await joined('h9', `/t${prefixes}/`, etcd.endpoints.slice(0, 1));
      try {
        await until('it has begun', () => late.at() === 0);
        etcd.pause(0);
        for (const host of [a, b, c]) publish(host, 4);
        for (const host of [a, b, c]) await until('the others see 4', () => host.at() === 4, 20_000);
        const watches = late.ledger.counts.watches;
        await until('the silence is noticed', () => late.ledger.counts.watches > watches, 15_000);
        const { header } = JSON.parse(await etcd.ctl(['get', 'x', '-w', 'json', '--endpoints', etcd.endpoints[1] ?? ''])) as { header: { revision: number } };
        await etcd.ctl(['compact', String(header.revision), '--endpoints', etcd.endpoints[1] ?? '']);
        expect(late.at()).toBe(0);
        etcd.wake(0);
        await until('it sees 4', () => late.at() === 4, 15_000);
        for (const host of [a, b, c]) publish(host, 5);
        await until('it follows', () => late.at() === 5, 15_000);
      } finally {
        etcd.wake(0);
        await late.ledger.close();
      }
    });
  }, 60_000);

  test('a store that is brought back from a backup: noticed, read anew, the acks said again', async () => {
    await world(async ([a, b, c]) => {
      const all = [a, b, c];
      const to = async (e: number): Promise<void> => {
        for (const host of all) publish(host, e);
        for (const host of all) await until(`all are at ${e}`, () => host.at() === e, 40_000);
      };
      await to(1);
      const file = join(directory, 'backup');
      await etcd.save(file);
      await to(2);
      expect(await command(a.ledger, { kind: 'takeover', generation: generation(2), epoch: epoch(2) })).toBe('accepted');
      for (const host of all) publish(host, 7, generation(2));
      for (const host of all) await until('all are at 7', () => host.at() === 7, 15_000);
      expect(all.flatMap(({ wentBack }) => wentBack), 'an ordinary day').toEqual([]);
      await etcd.restore(file);
      for (const host of all) await until('it is noticed', () => host.wentBack.length > 0, 30_000);
      for (const host of all) await until('generation 1 is shown again', () => host.shown.get('g')?.head?.generation === 1, 15_000);
      await sleep(300);
      expect(all.map(({ at }) => at()), 'acks of generation 2 are none of it').toEqual([1, 1, 1]);
      await to(3);
      expect(all.map(({ wentBack }) => wentBack.length), 'said once').toEqual([1, 1, 1]);
    });
  }, 120_000);

  test('a store that is full: said once, with what to do, and acks go on when there is room', async () => {
    const full = new Etcd({ directory: join(directory, 'full'), port: 47_000 + (process.pid % 1500) * 2, nodes: 1, quotaBytes: 512 * 1024 });
    const states: string[] = [];
    const ledger = new EtcdLedger({ self: 'h1', owner: 'h1', prefix: '/f/', endpoints: full.endpoints, tls: undefined, onState: (ok, why) => void states.push(ok ? 'ok' : why) });
    try {
      await full.start();
      await ledger.start();
      const spec = { ...specFor(['h1', 'h2']), members: specFor(['h1', 'h2']).members.map((member) => ({ ...member, host: 'h1' })) };
      for (const given of [{ kind: 'apply', spec }, { kind: 'protect' }] as const) expect(await command(ledger, given)).toBe('accepted');
      expect(ledger.storeBytes, 'it asks how large the file is').toBeGreaterThan(0);
      const at = async (): Promise<number> => Number((await ledger.read('g')).acks['h1']);
      let e = 0;
      await until('it is full', async () => {
        await full.ctl(['put', '/pad', 'x'.repeat(60_000)]).catch(() => undefined); // refused at last
        ledger.publish('g', { generation: G1, life: lifeOf(1), epoch: epoch((e += 1)) });
        return states.length > 0;
      }, 60_000);
      await sleep(1200); // heartbeats come and go
      expect(states, 'once').toHaveLength(1);
      expect(states[0]).toMatch(/database space exceeded/);
      await expect(command(ledger, { kind: 'unprotect', generation: G1, held: 'discard' })).rejects.toMatchObject({ code: 'ledger_down', fix: expect.stringMatching(/auto-compaction-retention/) as string });
      const { header } = JSON.parse(await full.ctl(['get', 'x', '-w', 'json'])) as { header: { revision: number } };
      for (const remedy of [['compact', '--physical', String(header.revision)], ['defrag'], ['alarm', 'disarm']]) await full.ctl(remedy);
      await until('the newest ack is there', async () => await at() === e, 15_000);
      await until('the ledger is well again', () => states.length === 2 && states[1] === 'ok');
    } finally {
      await ledger.close();
      await full.close();
    }
  }, 120_000);

  test('commands of many groups wait their turn, not for ever; acks do not wait behind them', async () => {
    const WAITING = 60;
    await world(async ([a, b, c]) => {
      for (const i of [0, 1, 2]) etcd.pause(i);
      let answers: PromiseSettledResult<unknown>[];
      try {
        answers = await Promise.allSettled(Array.from({ length: WAITING }, () => a.ledger.read('g')));
      } finally {
        for (const i of [0, 1, 2]) etcd.wake(i);
      }
      const refused = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason as { code: string; message: string }] : []));
      expect(refused.map(({ code }) => code), 'each got an answer').toEqual(Array(WAITING).fill('ledger_down'));
      expect(refused.filter(({ message }) => message.startsWith('more commands wait for etcd')).length, 'those whose turn did not come').toBeGreaterThan(WAITING / 4);
      await until('the group goes on', () => a.ledger.read('g').then(() => true, () => false), 30_000);
      const order: string[] = [];
      const reads = Array.from({ length: 2000 }, () => a.ledger.read('g').then(() => void order.push('read'), () => undefined));
      for (const host of [a, b, c]) publish(host, 1);
      await until('all are at 1', () => a.at() === 1, 15_000);
      order.push('committed');
      await Promise.all(reads);
      expect(order.indexOf('committed'), 'before the reads that were asked first have ended').toBeLessThan(order.length - 1);
    });
  }, 90_000);

  test('a host whose heartbeats end is told of, after its lease', async () => {
    await world(async ([a, , c]) => {
      await until('h3 is there', () => a.ledger.hosts.has('h3'), 10_000);
      await c.ledger.close();
      await until('h3 is lost', () => a.lost.includes('h3'), (LEASE_S + 7) * 1000);
    });
  }, 60_000);
});
