/**
 * Groups without a packet ring of their own (D102): their frames come by one ring, and are each
 * group's own all the same. Taps as members, `worker.rings` 0 or 1, an outsider as the oracle.
 */
import { describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { run, until } from '../../bench/bed/commands.ts';
import { Engine, type EngineApi } from '../../bench/bed/engine.ts';
import { parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import { gather } from '../support/gather.ts';
import { UNPRIVILEGED } from './privilege.ts';

const GROUPS = ['a', 'b'];
const FRAME_BYTES = 200;

interface World {
  readonly bed: Bed;
  /** One of each group, by its index; each has two members. */
  readonly engines: readonly Engine[];
  /** So many frames of the group to the outsider, numbered on. */
  readonly send: (group: number, frames: number) => void;
  readonly held: (group: number) => Promise<number>;
  /** Numbers of what came out, by group; so many are waited for. */
  readonly out: (least?: number) => Promise<number[][]>;
  readonly devices: () => Promise<string[]>;
}

async function world(rings: number, job: (world: World) => Promise<void>, hold = '4MiB'): Promise<void> {
  const bed = await Bed.create({ members: ['tap', 'tap', 'tap', 'tap'], addresses: false });
  try {
    const daemon = bed.daemon();
    daemon.rings = rings;
    await daemon.start();
    const api: EngineApi = { must: (...call) => daemon.api.must(...call), group: (...call) => daemon.api.group(...call) }; // a restart has a new one
    const engines = GROUPS.map((name) => new Engine(api, name));
    for (const [g, engine] of engines.entries()) await engine.protect(bed.groupFile(engine.group, { hold: { bytes: hold }, members: members(bed, g) }));
    const eye = bed.outside();
    const sent = GROUPS.map(() => 0);
    const frames = GROUPS.map((_, g) => probeFlow(bed.member(2 * g).address, bed.outsider.address, g + 1, FRAME_BYTES));
    await job({
      bed, engines,
      send: (group, count) => {
        for (let i = 0; i < count; i++) {
          const frame = frames[group]?.(sent[group] ?? 0) ?? new Uint8Array(0);
          expect(bed.tap(2 * group).send(frame)).toBe(true);
          sent[group] = (sent[group] ?? 0) + 1;
        }
      },
      held: async (group) => (await daemon.api.group('GET', `/v1/groups/${GROUPS[group] ?? ''}`)).held.frames,
      out: async (least = 0) => {
        const seen: number[][] = GROUPS.map(() => []);
        await gather(() => {
          let more = 0;
          eye.drain((bytes) => {
            const probe = parseProbe(bytes);
            if (probe === undefined) return;
            seen[probe.flow - 1]?.push(probe.seq);
            more += 1;
          });
          return more;
        }, least);
        return seen;
      },
      devices: async () => (await run('ip', ['-n', bed.host, '-br', 'link'])).match(/^sl[hr]\w+/gm)?.toSorted() ?? [],
    });
  } finally {
    await bed.close();
  }
}
const members = (bed: Bed, group: number): object[] => bed.members.slice(2 * group, 2 * group + 2).map(({ name, port, mac }) => ({ name, port, mac }));
const numbers = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

describe.skipIf(UNPRIVILEGED !== undefined)('groups that share a ring', () => {
  test('each holds and releases its own; the pool goes with the last of them', async () => {
    await world(0, async ({ bed, engines: [a, b], send, held, out, devices }) => {
      expect(await devices()).toEqual(['slh0', 'slh1', 'slhp', 'slr0', 'slr1', 'slrp']);
      send(0, 50);
      send(1, 30);
      await until('all are held', async () => (await held(0)) === 50 && (await held(1)) === 30);
      await a?.cut();
      await b?.cut();
      await b?.commit();
      expect(await out(30)).toEqual([[], numbers(0, 30)]);
      send(1, 5); // of an epoch that is open
      await a?.commit();
      expect(await out(50)).toEqual([numbers(0, 50), []]);
      await bed.daemon().api.group('POST', '/v1/groups/a/unprotect', { generation: 1, held: 'discard' });
      await until('a has no pair', async () => !(await devices()).includes('slh0'));
      expect(await devices()).toEqual(['slh1', 'slhp', 'slr1', 'slrp']);
      await b?.cut();
      await b?.commit();
      expect(await out(5)).toEqual([[], numbers(30, 5)]);
      await bed.daemon().api.group('POST', '/v1/groups/b/unprotect', { generation: 1, held: 'discard' });
      await until('nothing is left', async () => (await devices()).length === 0);
    });
  });

  test('one that is full drops its own and costs the other nothing', async () => {
    await world(0, async ({ bed, engines: [, b], send, held, out }) => {
      send(0, 40_000); // more than 1 MiB has rows for
      send(1, 100);
      await until('the other has all of its own', async () => (await held(1)) === 100);
      await until('its loss is counted', async () => {
        const { held: { frames }, dropped } = await bed.daemon().api.group('GET', '/v1/groups/a');
        return dropped.overflow > 0 && frames + dropped.overflow === 40_000;
      });
      expect((await bed.daemon().api.group('GET', '/v1/groups/b')).dropped.overflow).toBe(0);
      await b?.cut();
      await b?.commit();
      expect(await out(100)).toEqual([[], numbers(0, 100)]);
    }, '1MiB');
  });

  test('its pair deleted by another tool: what was on its way is lost, nothing leaks, and all hold again', async () => {
    await world(0, async ({ bed, engines, send, held, out, devices }) => {
      send(0, 10);
      send(1, 10);
      await until('they are held', async () => (await held(0)) + (await held(1)) === 20);
      await run('ip', ['-n', bed.host, 'link', 'del', 'slrp']);
      await until('it is mended', async () => (await bed.daemon().api.call('GET', '/readyz')).status === 200 && (await devices()).includes('slrp') && (await held(0)) === 0 && (await held(1)) === 0);
      send(0, 10);
      send(1, 10);
      await until('new ones are held', async () => (await held(0)) + (await held(1)) === 20);
      expect(await out()).toEqual([[], []]);
      for (const engine of engines) await engine.cut();
      for (const engine of engines) await engine.commit();
      expect(await out(20)).toEqual([numbers(10, 10), numbers(10, 10)]);
      for (const name of GROUPS) expect((await bed.daemon().api.group('GET', `/v1/groups/${name}`)).dropped.overflow).toBe(0);
    });
  });

  test('groups that go make room for rings of the next ones', async () => {
    await world(1, async ({ bed, devices }) => {
      const { api } = bed.daemon();
      expect((await devices()).includes('slrp'), 'the second is in the pool').toBe(true);
      for (const name of GROUPS) await api.group('POST', `/v1/groups/${name}/unprotect`, { generation: 1, held: 'discard' });
      await until('nothing is left', async () => (await devices()).length === 0);
      await api.group('POST', '/v1/groups/b/protect', {});
      expect(await devices()).toEqual(['slh1', 'slr1']);
    });
  });

  test('killed, and started again with other groups in the pool: nothing leaks, and each holds again', async () => {
    await world(1, async ({ bed, engines, send, held, out, devices }) => {
      const daemon = bed.daemon();
      let number = 0;
      for (const rings of [0, 2, 1]) {
        send(0, 10);
        send(1, 10);
        await until('they are held', async () => (await held(0)) + (await held(1)) === 20);
        await daemon.kill();
        daemon.rings = rings;
        await daemon.start();
        send(0, 10);
        send(1, 10);
        await until('new ones are held', async () => (await held(0)) + (await held(1)) === 20);
        expect(await out(), `with ${rings} rings`).toEqual([[], []]);
        for (const engine of engines) await engine.sync();
        for (const engine of engines) await engine.cut();
        for (const engine of engines) await engine.commit();
        expect(await out(20), `with ${rings} rings`).toEqual([numbers(number + 10, 10), numbers(number + 10, 10)]);
        for (const name of GROUPS) expect((await daemon.api.group('GET', `/v1/groups/${name}`)).dropped.overflow, 'what an earlier life held is no overflow').toBe(0);
        expect((await devices()).includes('slrp')).toBe(rings < 2);
        number += 20;
      }
    });
  });
});
