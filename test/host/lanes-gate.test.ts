/**
 * The gate's side of lanes: devices that come and go with what is asked, and whatever fails about them is no
 * reason to refuse the group anything.
 */
import { readdirSync, rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { namespacePath, runIn } from '../../bench/bed/commands.ts';
import type { KernelGate } from '../../classifier/attach.ts';
import type { GateEvent, SpecView } from '../../classifier/kernel.ts';
import { ownPins } from '../support/own-namespace.ts';
import { gateIn } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

const GROUP = 0;
const MEMBERS = [{ name: 'm', colour: 1, ready: true }];

interface World {
  readonly gate: KernelGate;
  readonly spec: SpecView;
  readonly said: GateEvent[];
  readonly pins: string;
  /** `isBroken`: no program can be put anywhere. */
  readonly switches: { isBroken: boolean };
  readonly ip: (...args: string[]) => Promise<string>;
  /** Names of ours, sorted. */
  readonly devices: () => Promise<string[]>;
}

async function withGate(job: (world: World) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: ['tap'], addresses: false });
  const pins = ownPins('lanes');
  const switches = { isBroken: false };
  try {
    const { port, mac } = bed.member(0);
    const spec: SpecView = { group: 'g', members: [{ name: 'm', nics: [{ port, mac, vlan: 0 }] }], foreignSource: 'hold', intraPath: 'redirect' };
    const gate = gateIn(namespacePath(bed.host), pins.dir, (kernel) => ({
      hook: (hook) => {
        if (switches.isBroken) throw new Error('no hook for a lane');
        kernel.hook(hook);
      },
    }));
    const said: GateEvent[] = [];
    gate.onEvent((event) => said.push(event));
    const ip = (...args: string[]): Promise<string> => runIn(bed.host, 'ip', args);
    const devices = async (): Promise<string[]> => (JSON.parse(await ip('-j', 'link')) as { ifname: string }[]).map(({ ifname }) => ifname).filter((name) => name.startsWith('sl') && name.endsWith('0') && name.length === 4).sort();
    await gate.attach(GROUP, spec, 1, MEMBERS);
    await gate.settle();
    await job({ gate, spec, said, pins: pins.dir, ip, devices, switches });
    await gate.detach(GROUP);
    expect(await devices()).toEqual([]);
    await gate.close();
  } finally {
    await bed.close();
    pins.remove();
  }
}

describe.skipIf(UNPRIVILEGED !== undefined)('lanes at the gate', () => {
  it('are made when they are asked for, once; lost, the hold pair stays; asked for again, they are new', async () => {
    await withGate(async ({ gate, said, ip, devices }) => {
      expect(await devices()).toEqual(['slh0', 'slr0']);
      const [first, same] = await Promise.all([gate.ensureLanes(GROUP), gate.ensureLanes(GROUP)]);
      expect(first).toBeGreaterThan(0);
      expect(same).toBe(first);
      expect(await devices()).toEqual(['slh0', 'slo0', 'slq0', 'slr0']);
      expect(gate.ready()).toEqual([]);
      await ip('link', 'del', 'slo0');
      await gate.reconcile();
      expect(said).toEqual([{ kind: 'lanes-lost', id: GROUP }]);
      expect(await devices()).toEqual(['slh0', 'slr0']);
      expect(await gate.ensureLanes(GROUP)).toBeGreaterThan(first);
      await gate.dropLanes(GROUP);
      expect(await devices()).toEqual(['slh0', 'slr0']);
      expect(await gate.ensureLanes(GROUP + 1), 'a group that is not attached').toBe(0);
    });
  }, 60_000);

  it('refused: the group is whole without them, and changes as ever', async () => {
    await withGate(async ({ gate, spec, devices, switches }) => {
      switches.isBroken = true;
      await expect(gate.ensureLanes(GROUP)).rejects.toThrow('no hook for a lane');
      expect(gate.ready()).toEqual([]);
      await gate.reattach(GROUP, { ...spec, foreignSource: 'drop' }, MEMBERS);
      await gate.dropLanes(GROUP);
      expect(await devices()).toEqual(['slh0', 'slr0']);
    });
  }, 60_000);

  it('a program of theirs taken off, and not to be put back: their use ends, and a change of the group goes through', async () => {
    await withGate(async ({ gate, spec, said, pins, switches }) => {
      const ifindex = await gate.ensureLanes(GROUP);
      const link = readdirSync(pins).find((name) => name.startsWith(`link-${ifindex}-`));
      expect(link).toBeDefined();
      rmSync(`${pins}/${link ?? ''}`);
      switches.isBroken = true;
      await gate.reattach(GROUP, { ...spec, foreignSource: 'drop' }, MEMBERS);
      expect(said).toContainEqual({ kind: 'lanes-lost', id: GROUP });
      expect(gate.ready()).toEqual([]);
    });
  }, 60_000);
});
