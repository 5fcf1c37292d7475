/**
 * The device that groups by VXLAN share goes with the last of them. Where it can't be deleted, that group
 * goes all the same, somebody is told, and the next daemon deletes it.
 */
import { describe, expect, it } from 'vitest';
import { namespacePath, runIn } from '../../bench/bed/commands.ts';
import { HostsBed } from '../../bench/bed/hosts.ts';
import type { GateEvent, SpecView, WireView } from '../../classifier/kernel.ts';
import { ownPins } from '../support/own-namespace.ts';
import { gateIn } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

describe.skipIf(UNPRIVILEGED !== undefined)('the VXLAN device', () => {
  it('stays with a sentence where it can\'t be deleted, and its last group goes all the same', async () => {
    const bed = await HostsBed.create({ hosts: 2, routed: true, members: [{ kind: 'tap', host: 0 }] });
    const pins = ownPins('tunnel');
    try {
      const path = namespacePath(bed.host(0));
      const devices = (): Promise<string> => runIn(bed.host(0), 'ip', ['-br', 'link']);
      const { port, mac } = bed.member(0);
      const spec: SpecView = { group: 'g', members: [{ name: 'm', host: 'h1', nics: [{ port, mac, vlan: 0 }] }], foreignSource: 'hold', intraPath: 'redirect' };
      const wire: WireView = { self: 'h1', vlan: 0, vxlan: { vni: 7, hosts: bed.roads() }, generation: 1, base: 1, closed: false };
      const members = [{ name: 'm', colour: 1, ready: true }];

      const gate = gateIn(path, pins.dir, () => ({ deleteTunnel: () => { throw new Error('slx: Operation not permitted'); } }));
      const said: GateEvent[] = [];
      gate.onEvent((event) => said.push(event));
      await gate.attach(0, spec, 1, members, wire);
      await gate.settle();
      const there = await devices();
      expect(there).toMatch(/^slx /m);
      expect(there).toMatch(/^slh0@/m);
      expect(there).toMatch(/^slr0@/m);
      expect(said).toEqual([]);

      await gate.detach(0);
      expect(said).toEqual([{ kind: 'trouble', message: 'slx: Operation not permitted' }]);
      const left = await devices();
      expect(left).toMatch(/^slx /m);
      expect(left, 'no pair of a group is left').not.toMatch(/^sl[hr]/m);
      await gate.close();

      const next = gateIn(path, pins.dir); // of no group
      await next.settle();
      expect(await devices()).not.toMatch(/^slx /m);
      await next.close();
    } finally {
      await bed.close();
      pins.remove();
    }
  }, 60_000);
});
