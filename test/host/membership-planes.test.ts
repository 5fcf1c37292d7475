/**
 * How protection ends and who is in it, over both data planes: unprotect, join, leave, and a tagged NIC.
 */
import { describe, expect, it } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { until } from '../../bench/bed/commands.ts';
import { Engine } from '../../bench/bed/engine.ts';
import { parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import { tag, tagged } from '../corpus/bytes.ts';
import { gather } from '../support/gather.ts';
import { PLANES } from '../support/planes.ts';
import { UNPRIVILEGED } from './privilege.ts';

const FRAMES = 50;
const upTo = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);

describe.skipIf(UNPRIVILEGED !== undefined).each(PLANES)('membership over %s', (plane) => {
  interface Stage {
    readonly bed: Bed;
    readonly engine: Engine;
    /** From member 0's tap to the outside. */
    readonly send: (from: number) => void;
    /** Sequence numbers seen outside since the last look; so many are waited for. */
    readonly outside: (least?: number) => Promise<number[]>;
    readonly call: (method: 'DELETE' | 'POST' | 'PUT', path: string, body?: object) => Promise<void>;
  }
  async function onStage(members: number, group: (bed: Bed) => object, job: (stage: Stage) => Promise<void>): Promise<void> {
    const bed = await Bed.create({ members: Array.from({ length: members }, () => 'tap' as const), addresses: false, plane });
    try {
      const daemon = bed.daemon();
      await daemon.start();
      const engine = new Engine(daemon.api, 'g');
      await engine.protect(group(bed));
      const eye = bed.outside();
      const flow = probeFlow(bed.member(0).address, bed.outsider.address, 1);
      await job({
        bed, engine,
        send: (from) => {
          for (const seq of upTo(FRAMES, from)) expect(bed.tap(0).send(flow(seq))).toBe(true);
        },
        outside: async (least = 0) => {
          const seen: number[] = [];
          await gather(() => eye.drain((frame) => { seen.push(parseProbe(frame)?.seq ?? -1); }), least);
          return seen;
        },
        call: async (method, path, body) => { await daemon.api.must(method, `/v1/groups/g${path}`, body); },
      });
    } finally {
      await bed.close();
    }
  }
  const all = (bed: Bed): object => bed.groupFile('g');

  it.each(['release', 'discard'] as const)('unprotect with %s: what was held does so, in order, and then frames pass', async (held) => {
    await onStage(2, all, async ({ engine, send, outside, call, bed }) => {
      send(0);
      expect(await outside()).toEqual([]);
      await call('POST', '/unprotect', { generation: engine.generation, held });
      await until('it is idle', async () => JSON.stringify((await bed.daemon().api.call('GET', '/v1/groups/g')).body).includes('"phase":"idle"'));
      send(FRAMES);
      expect(await outside(held === 'release' ? 2 * FRAMES : FRAMES)).toEqual(held === 'release' ? upTo(2 * FRAMES) : upTo(FRAMES, FRAMES));
    });
  });

  it('a member leaves with release: its frames go and it is held no more; the others are', async () => {
    await onStage(2, all, async ({ send, outside, call, bed }) => {
      send(0);
      const other = probeFlow(bed.member(1).address, bed.outsider.address, 2);
      bed.tap(1).send(other(0));
      expect(await outside()).toEqual([]);
      await call('DELETE', '/members/m1?held=release');
      send(FRAMES);
      bed.tap(1).send(other(1));
      expect(await outside(2 * FRAMES)).toEqual(upTo(2 * FRAMES));
    });
  });

  it('a member joins: what it sends from then on is held', async () => {
    await onStage(2, (bed) => bed.groupFile('g', { members: [{ name: 'm2', port: bed.member(1).port, mac: bed.member(1).mac }] }), async ({ engine, send, outside, call, bed }) => {
      send(0);
      expect(await outside(FRAMES), 'not yet a member').toEqual(upTo(FRAMES));
      await call('PUT', '/members/m1', { port: bed.member(0).port, mac: bed.member(0).mac });
      send(FRAMES);
      expect(await outside()).toEqual([]);
      await engine.sync();
      await engine.cut();
      await engine.commit(engine.open - 1, '?wait=released');
      expect(await outside(FRAMES)).toEqual(upTo(FRAMES, FRAMES));
    });
  });

  it('a tagged NIC: in its VLAN it is a member, untagged it is a stranger', async () => {
    const vlan = tag(0x8100, 100);
    await onStage(2, (bed) => bed.groupFile('g', { members: bed.members.map(({ name, port, mac }) => ({ name, port, mac, vlan: 100 })) }), async ({ bed }) => {
      const flow = probeFlow(bed.member(0).address, bed.member(1).address, 3);
      bed.tap(0).send(tagged(flow(0), vlan));
      bed.tap(0).send(flow(1));
      const seen: string[] = [];
      await gather(() => bed.tap(1).drain((frame) => { seen.push(Buffer.from(frame).toString('hex')); }), 1);
      expect(seen).toEqual([Buffer.from(tagged(flow(0), vlan)).toString('hex')]);
    });
  });
});
