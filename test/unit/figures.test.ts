/** The live figures, the dashboard's files, and what a watcher concludes from both streams. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Compile } from 'typebox/compile';
import { afterEach, describe, expect, test } from 'vitest';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { screenText, spark } from '../../checkpoint-hooks/commands/top.ts';
import { GroupHistory, Histories, isInTrouble, leaksOf, portTrouble } from '../../checkpoint-hooks/page/history.ts';
import { buildApp } from '../../proxy/api/app.ts';
import { Figures } from '../../proxy/api/contract.ts';
import type { ApiEvent } from '../../proxy/api/contract.ts';
import { figuresOf } from '../../proxy/api/figures.ts';
import { serve } from './cli-world.ts';
import type { Served } from './cli-world.ts';
import { OPEN, world, ZERO_COUNTERS } from './memory-control.ts';

const MEMBERS = [{ name: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }, { name: 'store', port: 'tap1', mac: '02:00:00:00:00:02' }];
let served: Served | undefined;
afterEach(async () => {
  await served?.remove();
  served = undefined;
});

async function protectedWorld(commit: 'explicit' | 'acks' = 'explicit'): Promise<{ here: Served; client: SluiceClient }> {
  served = await serve();
  const client = new SluiceClient({ socket: served.socket });
  await client.apply('web', { commit, members: MEMBERS });
  await client.protect('web');
  served.control.counts.set('web', { ...ZERO_COUNTERS, heldFrames: 3, heldBytes: 4500, arrived: 10, releasedFrames: 7 });
  return { here: served, client };
}

describe('the figures', () => {
  test('one picture is what the schema says, and only the group asked for', async () => {
    const { client } = await protectedWorld();
    await client.apply('other', { members: [{ name: 'x', port: 'tap9', mac: '02:00:00:00:00:09' }] });
    const all = await client.figures();
    expect(all.groups.map(({ group }) => group).sort()).toEqual(['other', 'web']);
    const one = await client.figures('web');
    expect(Compile(Figures).Check(one)).toBe(true);
    expect(one).toMatchObject({ host: 'h1', ready: true, guards: { leakBlocked: 0 }, groups: [{ group: 'web', held: { bytes: 4500 }, hold: { arrivedFrames: 10, releasedFrames: 7 }, samples: { atMs: [] } }] });
    await client.close();
  });

  test('live: samples of held bytes lie between the messages, in order, and move when the bytes do', async () => {
    const { here, client } = await protectedWorld();
    const held: number[] = [];
    const times: number[] = [];
    let messages = 0;
    for await (const { groups } of client.liveFigures()) {
      const samples = groups[0]?.samples ?? { atMs: [], heldBytes: [] };
      held.push(...samples.heldBytes);
      times.push(...samples.atMs);
      here.control.counts.set('web', { ...ZERO_COUNTERS, heldBytes: 9000 });
      messages += 1;
      if (messages > 2 && new Set(held).size > 0 && held.includes(9000)) break;
    }
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times.length).toBeGreaterThan(2);
    await client.close();
  });

  test('nobody watches, nobody samples; the stream ends with the daemon', async () => {
    const { here, client } = await protectedWorld();
    const live = client.liveFigures();
    expect((await live.next()).done).toBe(false);
    await here.stop();
    await live.return();
    await client.close();
  });
});

describe('the dashboard\'s files', () => {
  test('are served with a strict policy, from a list and not from paths; without the page there is none', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sl-page-'));
    try {
      mkdirSync(join(dir, 'page'));
      writeFileSync(join(dir, 'page/index.html'), '<p>page');
      writeFileSync(join(dir, 'page/app.js'), '1');
      writeFileSync(join(dir, 'page/app.js.map'), '{}');
      writeFileSync(join(dir, 'format.js'), '2');
      writeFileSync(join(dir, 'client.js'), 'secret');
      const app = await buildApp(world().deps, { ...OPEN, page: dir });
      const get = (url: string) => app.inject({ method: 'GET', url });
      const index = await get('/ui/');
      expect(index.body).toBe('<p>page');
      expect(index.headers['content-security-policy']).toMatch(/default-src 'none'; script-src 'self'; style-src 'self';/);
      expect((await get('/ui/format.js')).headers['content-type']).toMatch(/javascript/);
      for (const path of ['/ui/client.js', '/ui/page/app.js.map', '/ui/page/../client.js', '/ui/page/%2e%2e/client.js', '/ui/%2e%2e/%2e%2e/package.json', '/ui/page/']) {
        expect((await get(path)).statusCode, path).toBe(404);
      }
      await app.close();
      const bare = await buildApp(world().deps, OPEN);
      expect((await bare.inject({ method: 'GET', url: '/ui/' })).statusCode).toBe(404);
      await bare.close();
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

describe('what a watcher concludes', () => {
  const at = (type: ApiEvent['type'], atMs: number, epoch?: number): ApiEvent => ({ type, atMs, group: 'web', ...(epoch === undefined ? {} : { epoch }) });

  test('phases come from the events; a rollback loses what was open and opens anew', () => {
    const history = new GroupHistory();
    for (const event of [at('protected', 0), at('cut', 25, 1), at('cut', 50, 2), at('committed', 60, 1), at('released', 61, 1), at('rolled-back', 70, 1), at('cut', 90, 2), at('committed', 100, 2), at('released', 102, 2)]) history.hear(event);
    expect(history.epochs.map(({ epoch, lostMs, releasedMs }) => [epoch, lostMs, releasedMs])).toEqual([[1, undefined, 61], [2, 70, undefined], [3, 70, undefined], [2, undefined, 102], [3, undefined, undefined]]);
    expect(history.phases().map(({ p50, count }) => [p50, count])).toEqual([[25, 2], [35, 2], [2, 2]]);
  });

  test('without its ledger nobody is called late: nobody knows', async () => {
    const { here, client } = await protectedWorld('acks');
    const [group] = figuresOf(here.deps).groups;
    if (group === undefined) throw new Error('there is a group');
    const hosts = ['h1', 'h2'].map((host, i) => ({ host, acked: i, behind: 1 - i, late: i === 0, alive: i !== 0 }));
    const waiting = { ...group, open: 2, sealed: 1, committed: 0, hosts };
    const text = (isLedgerThere: boolean): string => {
      const history = new GroupHistory();
      for (const event of [at('protected', 0), at('cut', 10, 1)]) history.hear(event);
      history.take(9000, waiting, isLedgerThere);
      return history.alarms(9000).map((alarm) => alarm.text).join();
    };
    expect(text(true)).toMatch(/^epoch 1 waits for acks since .*: host h1 \(not heard of\)$/);
    expect(text(false)).toMatch(/^epoch 1 is not committed since .*: the ledger can't be reached/);
    await client.close();
  });

  test('a member whose port is missing, or closed by isolation, is not called ready', async () => {
    const { here, client } = await protectedWorld();
    const figures = figuresOf(here.deps);
    const [front, store] = figures.groups[0]?.spec.members ?? [];
    const said = (now: Figures): unknown[] => [portTrouble(now, front), portTrouble(now, store), isInTrouble(now, 'web')];
    expect(said(figures)).toEqual([undefined, undefined, false]);
    const lost = { ...figures, missing: ['port tap0 is missing or in no bridge'] };
    expect(said(lost)).toEqual(['tap0 is missing', undefined, true]);
    const isolation = { phase: 'isolated' as const, forMs: 1, policy: 'close' as const, addresses: [], closedPorts: ['tap1'] };
    const cut = { ...figures, across: { ledger: { ok: true, ackTransactions: 0, acks: 0, failures: 0 }, peers: [], isolation } };
    expect(said(cut)).toEqual([undefined, 'tap1 is closed', true]);
    const histories = new Histories();
    histories.take(lost);
    expect(screenText(lost, histories, 0, { columns: 200, rows: 50 })).toMatch(/front +1 +0 +tap0 is missing\n +store +1 +0 +ready/);
    await client.close();
  });

  test('who is late is named: the engine, or the members whose ack is missing', async () => {
    const { here, client } = await protectedWorld('acks');
    const history = new GroupHistory();
    const now = (atMs: number): readonly string[] => {
      const [group] = figuresOf(here.deps).groups;
      if (group !== undefined) history.take(atMs, group);
      return history.alarms(atMs).map(({ text }) => text);
    };
    history.hear(at('protected', 0));
    expect(now(1000)).toEqual([]);
    expect(now(5000)).toEqual([expect.stringMatching(/engine is silent: epoch 1/)]);
    await client.cut('web', { generation: 1, epoch: 1 });
    history.hear(at('cut', 5000, 1));
    await client.ack('web', { generation: 1, epoch: 1, members: ['front'] });
    expect(now(5500)).toEqual([]);
    expect(now(99_000)).toEqual([expect.stringMatching(/epoch 1 waits for acks .*: store$/)]);
    here.control.counts.set('web', { ...ZERO_COUNTERS, overflowFrames: 12, occupancy: 0.9 });
    expect(now(99_100)[0]).toMatch(/12 frames dropped/);
    await client.close();
  });

  test('top shows every group, the one chosen with its members, and fits any screen', async () => {
    const { here, client } = await protectedWorld();
    const histories = new Histories();
    const figures = figuresOf(here.deps);
    histories.take(figures);
    const text = screenText(figures, histories, 0, { columns: 200, rows: 50 });
    expect(text).toMatch(/sluice 0\.1\.0 on h1 {2}ready {2}leaks 0/);
    expect(text).toMatch(/> web +protected +1 +1 /);
    expect(text).toMatch(/front +1 +0 +ready/);
    const early = { ...figures, atMs: figures.atMs - 500, groups: figures.groups.map((group) => ({ ...group, sealed: group.sealed - 10, hold: { ...group.hold, releasedFrames: group.hold.releasedFrames - 600 } })) };
    const two = new Histories();
    two.take(early);
    two.take(figures);
    expect(screenText(figures, two, -1, { columns: 200, rows: 50 }), 'of two looks half a second apart').toMatch(/ web +protected +1 +1 +20\.0 .* 1200 /);
    const small = screenText(figures, histories, 0, { columns: 20, rows: 4 }).split('\n');
    expect(small.length).toBe(4);
    expect(Math.max(...small.map((line) => line.length))).toBeLessThanOrEqual(20);
    expect(spark([0, 4, 8], 3)).toBe(' ▄█');
    expect(spark([0, 8, 0, 0], 2)).toBe('█ ');
    expect(leaksOf({ ...figures, guards: { ...figures.guards, leakBlocked: 2, releaseRefused: 1 } })).toBe(3);
    await client.close();
  });
});
