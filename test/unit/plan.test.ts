import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GROUP, GROUPS_MAX, MEMBER, MEMBERS_MAX, NIC, NICS_MAX, STATS, VERDICTS } from '../../classifier/abi.ts';
import { Cells } from '../../classifier/cells.ts';
import { bridgeRefusal, refusal, uplinkRefusal } from '../../classifier/claims.ts';
import { keyBytes, keyText } from '../../classifier/keys.ts';
import { TABLES, additions, cautious, emptyPicture, macKey, plan, want } from '../../classifier/plan.ts';
import type { Action, AttachedHook, Entries, Picture, Port, WantedGroup } from '../../classifier/plan.ts';
import { Ledger } from '../../classifier/stats.ts';

/** Two bridges (1, 2), six ports of them, one device in no bridge. */
const port = (ifindex: number, name: string, master: number, kind = 'tun'): Port => ({ ifindex, name, master, kind, up: true });
const PORTS: readonly Port[] = [
  port(1, 'br0', 0, 'bridge'), port(2, 'br1', 0, 'bridge'),
  port(10, 'p0', 1), port(11, 'p1', 1), port(12, 'p2', 1), port(13, 'p3', 2), port(14, 'p4', 2), port(15, 'p5', 0),
];
const NONE: Entries = new Map();
const mac = (n: number): string => `02:00:00:00:00:0${n}`;
const nic = (n: number, name: string) => ({ nic: n, port: name, mac: mac(n), vlan: 0, lastBridge: 0, lastIfindex: 0 });
const group = (id: number, ...nics: WantedGroup['nics']): WantedGroup => ({ holdIfindex: 100 + id, ringIfindex: 200 + id, laneIfindex: 0, exitIfindex: 0, poolHoldIfindex: 0, poolIfindex: 0, nics });

/** What the kernel would show after the actions. */
function carryOut(picture: Picture, actions: readonly Action[]): Picture {
  const hooks = new Map(picture.hooks.map((hook) => [`${hook.ifindex} ${hook.side} ${hook.program}`, hook]));
  const tables = { ports: new Map(picture.tables.ports), macs: new Map(picture.tables.macs), guarded: new Map(picture.tables.guarded), devices: new Map(picture.tables.devices), wires: new Map(picture.tables.wires), vnis: new Map(picture.tables.vnis), peers: new Map(picture.tables.peers) };
  const counted = new Set(picture.counted);
  const forwarding = new Set(picture.forwarding);
  for (const action of actions) {
    switch (action.do) {
      case 'count': counted.add(action.ifindex); break;
      case 'uncount': counted.delete(action.ifindex); break;
      case 'put': tables[action.table].set(action.key, action.value); break;
      case 'remove': tables[action.table].delete(action.key); break;
      case 'hook': hooks.set(`${action.hook.ifindex} ${action.hook.side} ${action.hook.program}`, { ...action.hook, fresh: true }); break;
      case 'unhook': hooks.delete(`${action.hook.ifindex} ${action.hook.side} ${action.hook.program}`); break;
      case 'forward': forwarding.add(action.entry); break;
      case 'unforward': forwarding.delete(action.entry); break;
      case 'wait': break;
    }
  }
  return { hooks: [...hooks.values()], tables, counted, forwarding };
}
const sorted = (picture: Picture): unknown => ({
  hooks: [...picture.hooks].map((h) => `${h.ifindex} ${h.side} ${h.program} ${h.fresh}`).sort(),
  tables: TABLES.map((table) => [...picture.tables[table]].sort()),
  counted: [...picture.counted].sort(),
  forwarding: [...picture.forwarding].sort(),
});

const anyGroups: fc.Arbitrary<WantedGroup[]> = fc.array(fc.record({ port: fc.integer({ min: 0, max: 6 }), group: fc.integer({ min: 0, max: 2 }) }), { maxLength: 6 })
  .map((picks) => [0, 1, 2].flatMap((id) => {
    const nics = picks.map((p, i) => ({ ...p, i })).filter((p) => p.group === id && picks.findIndex((q) => q.port === p.port) === p.i);
    return nics.length === 0 ? [] : [group(id, ...nics.map((p) => nic(p.port + 1, `p${p.port}`)))];
  }));
/** The same names, some gone, some with new numbers. */
const anyPorts: fc.Arbitrary<Port[]> = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: PORTS.length, maxLength: PORTS.length })
  .map((fates) => PORTS.flatMap((p, i) => {
    if (p.kind === 'bridge' || fates[i] === 0) return [p];
    return fates[i] === 1 ? [{ ...p, ifindex: p.ifindex + 50 }] : [];
  }));

describe('plan', () => {
  test('carried out, it gives what was wanted, and the next plan is empty', () => {
    fc.assert(fc.property(anyGroups, anyPorts, anyGroups, anyPorts, fc.boolean(), (g1, p1, g2, p2, restarted) => {
      const before = want(g1, p1, NONE).picture;
      const attached = restarted ? { ...before, hooks: before.hooks.map((hook): AttachedHook => ({ ...hook, fresh: false })) } : before;
      const wanted = want(g2, p2, attached.tables.ports).picture;
      const after = carryOut(attached, plan(attached, wanted));
      expect(sorted(after)).toEqual(sorted(wanted));
      expect(plan(after, wanted)).toEqual([]);
    }), { numRuns: 1000 });
  });

  test('at no step is a member\'s port classified without its entry, or let through a guarded bridge before it is classified', () => {
    fc.assert(fc.property(anyGroups, anyPorts, anyGroups, anyPorts, (g1, p1, g2, p2) => {
      const attached = want(g1, p1, NONE).picture;
      const { picture: wanted, placed } = want(g2, p2, attached.tables.ports);
      const guarded = new Set(attached.tables.devices.values());
      let now = attached;
      for (const action of additions(attached, wanted)) {
        now = carryOut(now, [action]);
        if (action.do === 'hook' && action.hook.program === 'classify' && wanted.tables.ports.has(String(action.hook.ifindex))) expect(now.tables.ports.has(String(action.hook.ifindex))).toBe(true);
        if (action.do !== 'put' || action.table !== 'devices' || !guarded.has(action.value)) continue;
        const member = placed.some(({ ifindex }) => String(ifindex) === action.key);
        if (member) expect(now.hooks.some((h) => h.program === 'classify' && String(h.ifindex) === action.key)).toBe(true);
        if (action.key !== String(action.value)) expect(now.hooks.some((h) => h.program === 'guard' && String(h.ifindex) === action.key)).toBe(true);
      }
    }), { numRuns: 1000 });
  });

  test('the first protection of a bridge vets its ports before the guards look at them', () => {
    const steps = plan(emptyPicture(), want([group(0, nic(1, 'p0'), nic(2, 'p1'))], PORTS, NONE).picture);
    const at = (test: (action: Action) => boolean): number => steps.findIndex(test);
    const lastDevice = steps.findLastIndex((a) => a.do === 'put' && a.table === 'devices');
    expect(lastDevice).toBeLessThan(at((a) => a.do === 'hook' && a.hook.program === 'guard'));
    expect(at((a) => a.do === 'hook' && a.hook.program === 'sink')).toBeLessThan(at((a) => a.do === 'hook' && a.hook.program === 'classify'));
    expect(steps.some((a) => a.do === 'wait')).toBe(false);
    expect(steps.filter((a) => a.do === 'hook').map(({ hook }) => `${hook.ifindex} ${hook.side} ${hook.program}`)).toEqual([
      '200 ingress sink', '100 egress enter', '100 ingress release', '200 egress express',
      '1 egress local', '1 ingress guard_self', '10 egress guard', '11 egress guard', '12 egress guard',
      '10 ingress classify', '11 ingress classify', '12 ingress classify',
    ]);
  });

  test('a member moved to a tap that is there already: tables change, no program is attached', () => {
    const before = [group(0, nic(1, 'p0'), nic(2, 'p1'))];
    const attached = want(before, PORTS, NONE).picture;
    const letGo = new Map([...attached.tables.ports].filter(([, index]) => index !== 1));
    const there = { ...attached, tables: { ...attached.tables, ports: letGo } };
    const steps = plan(there, want([group(0, nic(1, 'p2'), nic(2, 'p1'))], PORTS, letGo).picture);
    expect(steps.filter((a) => a.do === 'hook' || a.do === 'unhook' || a.do === 'wait')).toEqual([]);
    expect(steps).toContainEqual({ do: 'put', table: 'ports', key: '12', value: 1 });
  });

  test('a member port made again: all in place, then a wait, then it is vetted', () => {
    const groups = [group(0, nic(1, 'p0'), nic(2, 'p1'))];
    const attached = want(groups, PORTS, NONE).picture;
    const again = PORTS.map((p) => (p.name === 'p0' ? { ...p, ifindex: 30 } : p));
    const steps = plan(attached, want(groups, again, attached.tables.ports).picture);
    const words = steps.map((a) => (a.do === 'hook' || a.do === 'unhook' ? `${a.do} ${a.hook.program}` : a.do === 'put' || a.do === 'remove' ? `${a.do} ${a.table}` : a.do));
    expect(words).toEqual(['count', 'hook guard', 'forward', 'put ports', 'hook classify', 'wait', 'put devices',
      'remove devices', 'unhook classify', 'unhook guard', 'unforward', 'remove ports', 'uncount']);
  });

  test('the uplink of a deleted bridge stays guarded while a nic of it is missing, in no bridge and in the next one', () => {
    const last = { ...nic(1, 'p0'), lastBridge: 1, lastIfindex: 10 };
    const attached = want([group(0, nic(1, 'p0'))], PORTS, NONE).picture;
    const without = PORTS.filter((p) => p.ifindex !== 1 && p.ifindex !== 10).map((p) => ({ ...p, master: p.name === 'p2' ? 0 : p.master }));
    const gone = want([group(0, last)], without, attached.tables.ports, attached.tables.devices);
    const now = carryOut(attached, plan(attached, gone.picture));
    const isGuarded = (picture: Picture, ifindex: number): boolean => picture.hooks.some((h) => h.program === 'guard' && h.ifindex === ifindex);
    expect(isGuarded(now, 12)).toBe(true);

    const next = [...without.map((p) => ({ ...p, master: p.name === 'p2' || p.name === 'p5' ? 3 : p.master })), port(3, 'br0', 0, 'bridge')];
    const found = want([group(0, last)], next, now.tables.ports, now.tables.devices);
    expect(found.missing.map(({ lastBridge }) => lastBridge)).toEqual([3]);
    const then = carryOut(now, plan(now, found.picture));
    expect([12, 15].map((ifindex) => isGuarded(then, ifindex))).toEqual([true, true]);
    expect(then.tables.devices.get('15'), 'who else is in it is let through').toBe(3);

    const left = want([], next, then.tables.ports, then.tables.devices);
    expect(carryOut(then, plan(then, left.picture))).toEqual(carryOut(then, plan(then, emptyPicture())));
  });

  test('a bridge made again around a guarded port: the members that are made again too are vetted last', () => {
    const groups = [group(0, { ...nic(1, 'p0'), lastBridge: 1, lastIfindex: 10 })];
    const attached = want([group(0, nic(1, 'p0'))], PORTS, NONE).picture;
    const again = PORTS.map((p) => ({ ...p, ifindex: p.ifindex === 1 ? 3 : p.name === 'p0' ? 30 : p.ifindex, master: p.master === 1 ? 3 : p.master }));
    const { picture } = want(groups, again, attached.tables.ports, attached.tables.devices);
    const steps = plan(attached, picture);
    const at = (text: string): number => steps.findIndex((step) => JSON.stringify(step).includes(text));
    expect(at('"table":"devices","key":"30"')).toBeGreaterThan(at('"ifindex":30,"side":"ingress","program":"classify"'));
  });

  test('a port that leaves a guarded bridge is unvetted first: should it come back meanwhile, it is not heard', () => {
    const groups = [group(0, nic(1, 'p0'), nic(2, 'p1'))];
    const attached = want(groups, PORTS, NONE).picture;
    const out = PORTS.map((p) => (p.name === 'p0' ? { ...p, master: 0 } : p));
    const steps = plan(attached, want(groups, out, attached.tables.ports).picture);
    expect(steps[0]).toEqual({ do: 'remove', table: 'devices', key: '10' });
    expect(steps.some((a) => a.do === 'unhook' && a.hook.program === 'classify')).toBe(false);
  });

  test('a device that is a nic\'s stays classified at every step, whatever it is called and whatever it is in', () => {
    const moved: fc.Arbitrary<Port[]> = fc.array(fc.record({ name: fc.boolean(), master: fc.constantFrom(0, 1, 2, 3) }), { minLength: PORTS.length, maxLength: PORTS.length })
      .map((fates) => PORTS.flatMap((p, i) => {
        const fate = fates[i];
        if (p.kind === 'bridge') return fate?.master === 0 ? [] : [p]; // deleted, perhaps made again as number 3
        return [{ ...p, name: fate?.name === true ? `z${p.ifindex}` : p.name, master: fate?.master ?? 0 }];
      }).concat(port(3, 'br0', 0, 'bridge')));
    fc.assert(fc.property(anyGroups, moved, (groups, ports) => {
      const attached = want(groups, PORTS, NONE).picture;
      const { picture, placed, missing } = want(groups, ports, attached.tables.ports);
      let now = attached;
      for (const action of plan(attached, picture)) {
        now = carryOut(now, [action]);
        for (const [ifindex, owner] of attached.tables.ports) {
          expect(now.tables.ports.get(ifindex)).toBe(owner);
          expect(now.hooks.some((h) => h.program === 'classify' && String(h.ifindex) === ifindex)).toBe(true);
        }
      }
      const bridges = new Set(ports.filter((p) => p.kind === 'bridge').map((p) => p.ifindex));
      for (const nic of placed) expect(bridges.has(nic.bridge)).toBe(true);
      for (const nic of missing) expect(bridges.has(ports.find((p) => p.ifindex === nic.ifindex)?.master ?? 0)).toBe(false);
    }), { numRuns: 500 });
  });

  test('a device of the old name is classified beside the renamed one, which stays the nic\'s place', () => {
    const groups = [group(0, { ...nic(1, 'p0'), lastBridge: 1, lastIfindex: 10 })];
    const attached = want([group(0, nic(1, 'p0'))], PORTS, NONE).picture;
    const renamed = [...PORTS.map((p) => (p.name === 'p0' ? { ...p, name: 'z' } : p)), port(40, 'p0', 1)];
    const { picture, placed } = want(groups, renamed, attached.tables.ports);
    expect(placed.map(({ ifindex, device }) => [ifindex, device])).toEqual([[10, 'z']]);
    expect([...picture.tables.ports]).toEqual([['10', 1], ['40', 1]]);
  });

  test('the name of another nic\'s device finds nothing', () => {
    const attached = want([group(0, nic(1, 'p0'), nic(2, 'p1'))], PORTS, NONE).picture;
    const swapped = PORTS.map((p) => (p.name === 'p0' ? { ...p, name: 'p1' } : p.name === 'p1' ? { ...p, name: 'p0' } : p));
    const { placed } = want([group(0, nic(1, 'p0'), nic(2, 'p1'))], swapped, attached.tables.ports);
    expect(placed.map(({ nic: n, ifindex }) => [n, ifindex])).toEqual([[1, 10], [2, 11]]);
  });

  test('the MAC of a missing nic stays known, also where its group went to when its bridge is gone', () => {
    const last = (n: number, name: string, ifindex: number) => ({ ...nic(n, name), lastBridge: 1, lastIfindex: ifindex });
    const groups = [group(0, last(1, 'p0', 10), last(2, 'p1', 11))];
    const heard = want([group(0, nic(1, 'p0'), nic(2, 'p1'))], PORTS, NONE).picture.tables.ports;
    const out = PORTS.map((p) => (p.name === 'p1' ? { ...p, master: 0 } : p));
    expect(want(groups, out, heard).picture.tables.macs.get(macKey(1, 0, mac(2)))).toBe(2);
    const again = out.flatMap((p) => (p.ifindex === 1 ? [{ ...p, ifindex: 3 }] : [{ ...p, master: p.name === 'p0' ? 3 : 0 }]));
    const { tables } = want(groups, again, heard).picture;
    expect([...tables.macs]).toEqual([[macKey(1, 0, mac(2)), 2], [macKey(3, 0, mac(2)), 2], [macKey(3, 0, mac(1)), 1]]);
    expect([...tables.guarded.keys()].sort()).toEqual([macKey(3, 0, mac(1)), macKey(3, 0, mac(2))]);
  });

  test('while groups wait to be attached again, a guarded bridge takes in only what is classified', () => {
    const attached = want([group(0, nic(1, 'p0'), nic(2, 'p1'))], PORTS, NONE).picture;
    const now = PORTS.map((p) => (p.name === 'p0' || p.name === 'p1' ? { ...p, ifindex: p.ifindex + 50 } : p)).concat(port(70, 'new', 1));
    const { picture } = want([group(0, nic(1, 'p0'))], now, attached.tables.ports); // p1's group is not attached yet
    const vetted = cautious(attached, picture).flatMap((a) => (a.do === 'put' && a.table === 'devices' ? [a.key] : []));
    expect(vetted).toEqual(['60']);
    const late = additions(carryOut(attached, cautious(attached, picture)), picture);
    expect(late.flatMap((a) => (a.do === 'put' ? [a.key] : []))).toEqual(['61', '70']);
  });

  test('a bridge that all member ports have left stays guarded, its members known', () => {
    const back = (n: number, name: string) => ({ ...nic(n, name), lastBridge: 1 });
    const groups = [group(0, back(1, 'p0'), back(2, 'p1'))];
    const out = PORTS.filter((p) => p.name !== 'p0' && p.name !== 'p1');
    const { picture, missing } = want(groups, out, NONE);
    expect(missing).toHaveLength(2);
    expect(picture.hooks.filter((hook) => hook.program === 'guard').map(({ ifindex }) => ifindex)).toEqual([12]);
    expect(picture.tables.guarded.size).toBe(2);
    expect([...picture.tables.devices.keys()].sort()).toEqual(['1', '12']);
  });

  test('programs of an earlier daemon are replaced where they are, never removed', () => {
    const { picture } = want([group(0, nic(1, 'p0'))], PORTS, NONE);
    const old = { ...picture, hooks: picture.hooks.map((hook) => ({ ...hook, fresh: false })) };
    const steps = plan(old, picture);
    expect(steps.every((action) => action.do === 'hook')).toBe(true);
    expect(steps).toHaveLength(picture.hooks.length);
  });

  test('a port that is gone or in no bridge is missing', () => {
    expect(want([group(0, nic(1, 'p0'), nic(2, 'p5'), nic(3, 'nix'))], PORTS, NONE).missing.map((m) => m.port)).toEqual(['p5', 'nix']);
  });
});

describe('claims', () => {
  const claim = (name: string, ...nics: { port: string; mac: string; vlan: number }[]) => ({ group: name, nics });
  const none = (): boolean => false;
  test.each([
    ['p0', mac(1), undefined],
    ['nix', mac(1), 'port nix does not exist'],
    ['p5', mac(1), 'port p5 is not in a bridge'],
    ['p1', mac(1), 'port p1 belongs to group db already'],
    ['p0', mac(7), `MAC ${mac(7)} belongs to group db on the same bridge`],
    ['p3', mac(7), undefined],
  ])('%s with %s', (name, address, message) => {
    const others = [claim('db', { port: 'p1', mac: mac(7), vlan: 0 })];
    expect(refusal(claim('web', { port: name, mac: address, vlan: 0 }), others, PORTS, none)?.message).toBe(message);
  });
  test('the uplink is nobody\'s port', () => {
    expect(uplinkRefusal(claim('web', { port: 'p0', mac: mac(1), vlan: 0 }), 'p0')).toMatchObject({ code: 'bad_request', message: 'port p0 is the uplink of this host, so no member can be there' });
    expect(uplinkRefusal(claim('web', { port: 'p0', mac: mac(1), vlan: 0 }), 'p1')).toBeUndefined();
    expect(uplinkRefusal(claim('web', { port: 'p0', mac: mac(1), vlan: 0 }), undefined)).toBeUndefined();
  });
  test('a port in a bridge that is not attached, unless it was there before or is in none', () => {
    const ask = (name: string, awaited: boolean) => bridgeRefusal(claim('web', { port: name, mac: mac(1), vlan: 0 }), PORTS, () => awaited, (bridge) => bridge === 'br0');
    expect(ask('p3', false)).toMatchObject({ code: 'bad_request', message: expect.stringContaining('port p3 is in bridge br1') as string, fix: 'sluice attach br1' });
    for (const fits of [ask('p0', false), ask('p3', true), ask('p5', false), ask('nix', false)]) expect(fits).toBeUndefined();
  });
  test('a port that was there before is awaited', () => {
    expect(refusal(claim('web', { port: 'nix', mac: mac(1), vlan: 0 }), [], PORTS, () => true)).toBeUndefined();
  });
});

describe('keys', () => {
  test('text and bytes are one', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 31 - 1 }), fc.integer({ min: 0, max: 4095 }), fc.integer({ min: 0, max: 9 }), (bridge, vlan, n) => {
      const text = `${bridge} ${vlan} ${mac(n)}`;
      expect(keyText('macs', keyBytes('macs', text))).toBe(text);
      expect(keyText('ports', keyBytes('ports', String(bridge)))).toBe(String(bridge));
    }));
  });
});

describe('cells', () => {
  const memory = () => ({
    groups: new ArrayBuffer(GROUPS_MAX * GROUP.size), nics: new ArrayBuffer(NICS_MAX * NIC.size), members: new ArrayBuffer(MEMBERS_MAX * MEMBER.size),
  });
  const make = (cells: Cells, member: number): number => cells.newNic({ group: 3, member, vlan: 9, mac: mac(4) });
  /** As a kernel program walks it. */
  const walk = (nics: ArrayBuffer, groups: ArrayBuffer): number[] => {
    const found: number[] = [];
    let next = new DataView(groups).getUint32(3 * GROUP.size + GROUP.firstNic, true);
    for (; next !== 0; next = new DataView(nics).getUint32(next * NIC.size + NIC.next, true)) found.push(next);
    return found;
  };

  test('a nic is read back, a freed one is not given out at once, its counters start at zero', () => {
    const place = memory();
    const cells = new Cells(place);
    const member = cells.newMember();
    const first = make(cells, member);
    expect(cells.nic(first)).toEqual({ nic: first, group: 3, member, ifindex: 0, bridge: 0, flags: 0, vlan: 9, mac: mac(4) });
    new DataView(place.nics).setBigUint64(first * NIC.size + NIC.heldIn, 5n, true);
    cells.freeNic(first);
    expect(make(cells, member)).not.toBe(first);
    expect(new Cells(place).adopted().map(({ nic: index }) => index)).toEqual([first + 1]);
  });
  test('no more nics than there are, and then a clear end', () => {
    const cells = new Cells(memory());
    for (let i = 1; i < NICS_MAX; i += 1) make(cells, 1);
    expect(() => make(cells, 1)).toThrow('all 4095 are in use');
    cells.freeNic(17);
    expect(make(cells, 1)).toBe(17);
  });
  test('a list has each nic once after any change', () => {
    fc.assert(fc.property(fc.array(fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { maxLength: 12 }), { minLength: 1, maxLength: 6 }), (lists) => {
      const place = memory();
      const cells = new Cells(place);
      for (const list of lists) {
        cells.link(3, list);
        expect(walk(place.nics, place.groups)).toEqual([...list].sort((a, b) => a - b));
      }
    }));
  });
  test('a group releases nothing before its first commit', () => {
    const place = memory();
    new Cells(place).openGroup(3, { holdIfindex: 50, ringIfindex: 51, laneIfindex: 52, exitIfindex: 53, poolIfindex: 0 }, 10);
    const view = new DataView(place.groups);
    expect((view.getUint32(3 * GROUP.size + GROUP.colour, true) - view.getUint32(3 * GROUP.size + GROUP.commit, true)) | 0).toBeGreaterThan(1024);
  });
});

describe('ledger', () => {
  test('adds up over CPUs and over the lives of a device, and alarms on what rose', () => {
    const counters = new Map<number, Uint8Array>();
    const put = (ifindex: number, leaks: number, held: number): void => {
      const bytes = new Uint8Array(2 * STATS.size);
      const view = new DataView(bytes.buffer);
      const heldAt = STATS.verdict + VERDICTS.indexOf('held') * STATS.countSize;
      for (const cpu of [0, 1]) {
        view.setBigUint64(cpu * STATS.size + STATS.leakBlocked, BigInt(leaks), true);
        view.setBigUint64(cpu * STATS.size + heldAt, BigInt(held), true);
      }
      counters.set(ifindex, bytes);
    };
    const ledger = new Ledger((ifindex) => counters.get(ifindex) ?? new Uint8Array(0));
    ledger.name([{ ifindex: 5, name: 'tap0' }]);
    put(5, 1, 10);
    expect(ledger.read()[0]).toMatchObject({ device: 'tap0', counts: { leakBlocked: 2 }, verdicts: { held: { frames: 20 } } });
    expect(ledger.alarms()).toEqual([{ kind: 'leak-blocked', device: 'tap0', frames: 2 }]);
    expect(ledger.alarms()).toEqual([]);
    ledger.retire(5);
    counters.delete(5);
    ledger.name([{ ifindex: 9, name: 'tap0' }]);
    put(9, 0, 1);
    expect(ledger.read()[0]).toMatchObject({ counts: { leakBlocked: 2 }, verdicts: { held: { frames: 22 } } });
    expect(ledger.alarms()).toEqual([]);
  });
});
