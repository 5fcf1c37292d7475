/**
 * I7 at a member's old port: after a takeover that moved the member, whoever still speaks there is of
 * an old generation, with whatever source MAC, and nothing of it gets through the bridge; not after a
 * restart of the daemon either. Moved back, it is the member's again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { macBytes, parseProbe, probeFlow } from '../../bench/bed/probe.ts';
import { namespacePath } from '../../bench/bed/commands.ts';
import type { SpecView } from '../../classifier/kernel.ts';
import { ownPins } from '../support/own-namespace.ts';
import { gather } from '../support/gather.ts';
import { gateIn } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

const FOREIGN_MAC = '02:77:00:00:00:01';

describe.skipIf(UNPRIVILEGED !== undefined)('the port that a takeover left', () => {
  it('lets nothing through, under any MAC', async () => {
    const bed = await Bed.create({ members: ['tap', 'tap'] });
    try {
      const daemon = bed.daemon();
      await daemon.start('live');
      const outside = bed.outside();
      const { mac } = bed.member(0);
      const at = (i: number): object[] => [{ name: 'm', port: bed.member(i).port, mac }];
      /** Flows of which something arrives when both ports speak, with the member's MAC and a foreign one. */
      const heard = async (commit: () => Promise<unknown>, least: number): Promise<number[]> => {
        for (const i of [0, 1]) {
          for (const [j, source] of [mac, FOREIGN_MAC].entries()) {
            const from = { ...bed.member(0).address, mac: macBytes(source) };
            bed.tap(i).send(probeFlow(from, bed.outsider.address, 10 * i + j)(1));
          }
        }
        await sleep(50);
        await commit();
        const flows = new Set<number>();
        await gather(() => {
          const before = flows.size; // announcements of a takeover come between, and are not waited for
          outside.drain((frame) => {
            const probe = parseProbe(frame);
            if (probe !== undefined) flows.add(probe.flow);
          });
          return flows.size - before;
        }, least);
        return [...flows].sort((a, b) => a - b);
      };
      const turn = (generation: number, epoch: number) => async (): Promise<void> => {
        for (const command of ['cut', 'commit']) await daemon.api.must('POST', `/v1/groups/g/${command}`, { generation, epoch });
      };
      await daemon.api.must('PUT', '/v1/groups/g', { members: at(0) });
      await daemon.api.must('POST', '/v1/groups/g/protect', { generation: 1 });
      expect(await heard(turn(1, 1), 3), 'before: port 1 is a stranger').toEqual([0, 1, 11]);
      await daemon.api.must('POST', '/v1/groups/g/takeover', { generation: 2, epoch: 1, members: at(1) });
      expect(await heard(turn(2, 2), 2), 'moved').toEqual([10, 11]);
      await daemon.kill();
      await daemon.start();
      expect(await heard(turn(2, 3), 2), 'moved, and the daemon another').toEqual([10, 11]);
      await daemon.api.must('POST', '/v1/groups/g/takeover', { generation: 3, epoch: 3, members: at(0) });
      expect(await heard(turn(3, 4), 2), 'moved back').toEqual([0, 1]);
      await daemon.api.must('POST', '/v1/groups/g/unprotect', { generation: 3, held: 'discard' });
      expect(await heard(() => Promise.resolve(), 4), 'unprotected: nothing is left').toEqual([0, 1, 10, 11]);
    } finally {
      await bed.close();
    }
  }, 60_000);

  it('is left by the next daemon, where one died between the journal and the move', async () => {
    const bed = await Bed.create({ members: ['tap', 'tap'] });
    const pins = ownPins('unmoved');
    try {
      const path = namespacePath(bed.host);
      const spec = (i: number): SpecView => ({
        group: 'g', members: [{ name: 'm', nics: [{ port: bed.member(i).port, mac: bed.member(0).mac, vlan: 0 }] }], foreignSource: 'hold', intraPath: 'redirect',
      });
      const members = [{ name: 'm', colour: 1, ready: true }];
      const outside = bed.outside();
      const spokenAt = async (port: number, least = 0): Promise<number> => {
        const from = { ...bed.member(0).address, mac: macBytes(FOREIGN_MAC) };
        outside.drain(() => undefined);
        bed.tap(port).send(probeFlow(from, bed.outsider.address, port)(1));
        let seen = 0;
        await gather(() => outside.drain((frame) => { seen += parseProbe(frame)?.flow === port ? 1 : 0; }), least);
        return seen;
      };
      const first = gateIn(path, pins.dir);
      const before = await first.attach(0, spec(0), 1, members);
      await first.settle();
      expect([await spokenAt(0), await spokenAt(1, 1)], 'the member is held, port 2 is a stranger').toEqual([0, 1]);
      await first.close();

      const next = gateIn(path, pins.dir); // its journal says: at port 2
      const after = await next.attach(0, spec(1), 1, members);
      await next.settle();
      expect(after.nics[0]?.nic).toBe(before.nics[0]?.nic);
      expect(after.nics[0]?.ifindex).not.toBe(before.nics[0]?.ifindex);
      expect(next.ready()).toEqual([]);
      expect([await spokenAt(0), await spokenAt(1)], 'the old port is fenced, the new one held').toEqual([0, 0]);
      await next.detach(0);
      await next.close();
      expect([await spokenAt(0, 1), await spokenAt(1, 1)], 'nothing is left').toEqual([1, 1]);
    } finally {
      await bed.close();
      pins.remove();
    }
  }, 60_000);
});
