import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { NIC_FLAG, WIRE_GBP } from '../../classifier/abi.ts';
import { wireRefusal } from '../../classifier/claims.ts';
import { macParse } from '../../classifier/frame.ts';
import { ipv4Parse } from '../../classifier/keys.ts';
import { emptyPicture, plan, want } from '../../classifier/plan.ts';
import type { Port, WantedGroup } from '../../classifier/plan.ts';
import { firstsOf } from '../../classifier/roster.ts';
import { classify, depart, emptyTables, guard, land, newGroup, newNic } from '../../classifier/rules.ts';
import type { Place, Tables } from '../../classifier/rules.ts';
import { groupFileOf, parseGroup } from '../../proxy/api/contract-parse.ts';
import { sameSpec, specFault } from '../../proxy/core/spec.ts';
import type { GroupSpec, Wire } from '../../proxy/core/types.ts';
import { specFor } from '../sim/hosts-world.ts';
import { ALL, framed, gbpOf, vxlanRows } from '../support/wire-frames.ts';
import type { Numbered } from '../support/wire-frames.ts';

/**
 * A group by VXLAN, seen from h2, without a kernel: m2 (nic 2, port 12) and m3 (3, 13) are here, m1 (1)
 * is at h1, m4 (4) at h3, m4's second nic (5) too. Uplink 20 in bridge 100, VXLAN device 30, held in 50.
 */
const VNI = 4711;
const OPEN = 4096; // epoch: its twelve bits are zeros
const BASE = 2 ** 32 - 4000;
const GENERATION = 3;
const mac = (member: number): string => `02:00:00:00:00:0${member}`;
const road = (host: number): string => `10.78.${host}.1`;

function world(): Tables {
  const t = emptyTables();
  const add = (index: number, member: number, ifindex: number, more: number): void => {
    t.nics.set(index, newNic({ ifindex, bridge: 100, group: 0, member, flags: NIC_FLAG.protected | NIC_FLAG.ready | NIC_FLAG.guarded | more, vlan: 0, mac: macParse(mac(index)) }));
    t.macs.set(macParse(mac(index)), [{ bridge: 100, vlan: 0, nic: index }]);
    if (more === 0) t.ports.set(ifindex, index);
    else t.peers.set(index, ipv4Parse(road(index === 1 ? 1 : 3)));
  };
  add(1, 1, 20, NIC_FLAG.remote | NIC_FLAG.first);
  add(2, 2, 12, 0);
  add(3, 3, 13, 0);
  add(4, 4, 20, NIC_FLAG.remote | NIC_FLAG.first);
  add(5, 4, 20, NIC_FLAG.remote);
  const colour = (BASE + OPEN) >>> 0;
  t.groups.set(0, { ...newGroup(colour, 50, [1, 2, 3, 4, 5]), generation: GENERATION, base: BASE, uplink: 20, tunnel: 30, vni: VNI, here: ipv4Parse(road(2)) });
  t.vnis.set(VNI, 0);
  for (const ifindex of [12, 13, 20]) t.devices.set(ifindex, 100);
  return t;
}
const place = (ifindex: number, more: Partial<Place> = {}): Place => ({ ifindex, ingressIfindex: ifindex, mark: 0, ...more });
const here = ipv4Parse(road(2));
const away = (host: number): object => ({ to: 30, tunnel: { vni: VNI, from: here, to: ipv4Parse(road(host)), gbp: gbpOf(GENERATION, OPEN) } });
const say = (to: string, from: string): Numbered => framed(to, from);

describe('the twin', () => {
  test('what is sent away has the VNI, both addresses, the colour, and a flag where the colour is all zeros', () => {
    const t = world();
    const sent = classify(t, say(mac(1), mac(2)).frame, place(12));
    expect(sent).toMatchObject({ verdict: 'intra', answer: 'redirect', stats: ['remote'], redirect: away(1) });
    expect(sent.redirect?.tunnel?.gbp).toBe(WIRE_GBP | (GENERATION << 12));
  });

  test('a broadcast makes one copy a host beside those here; the original is held', () => {
    const { verdict, clones, redirect } = classify(world(), say(ALL, mac(2)).frame, place(12));
    expect({ verdict, redirect: redirect?.to }).toEqual({ verdict: 'split', redirect: 50 });
    expect(clones).toMatchObject([away(1), { to: 13 }, away(3)]);
    expect(clones).toHaveLength(3);
  });

  test('closed, without a device, or without the host\'s address nothing is sent away', () => {
    for (const close of [(t: Tables) => Object.assign(t.groups.get(0) ?? {}, { generation: 0x10 }), (t: Tables) => Object.assign(t.groups.get(0) ?? {}, { tunnel: 0 }), (t: Tables) => t.peers.clear()]) {
      const t = world();
      close(t);
      expect(classify(t, say(mac(1), mac(2)).frame, place(12))).toMatchObject({ verdict: 'drop', answer: 'drop', stats: [] });
      expect(classify(t, say(ALL, mac(2)).frame, place(12)).clones.map(({ to }) => to)).toEqual([13]);
    }
  });

  test.each(vxlanRows({ mac, road, vni: VNI, generation: GENERATION, open: OPEN }))('arrives: $what', ({ from, vni, gbp, to, src, tags, lost }) => {
    const tunnel = { vni, from: ipv4Parse(from), to: here, ...(gbp === undefined ? {} : { gbp }) };
    const decision = land(world(), framed(to, src, tags).frame, place(30, { tunnel }));
    expect(decision.stats.filter((name) => name !== 'splitCopies')).toEqual(lost === undefined ? [] : [lost]);
    if (lost !== undefined) expect(decision).toMatchObject({ verdict: 'drop', answer: 'drop', redirect: undefined, clones: [] });
    else expect(to === ALL ? decision.clones.map((copy) => copy.to) : [decision.redirect?.to]).toEqual(to === ALL ? [12, 13] : [12]);
  });

  test('early waits, late is recorded, by whatever road it came', () => {
    const come = (epoch: number): ReturnType<typeof land> =>
      land(world(), framed(mac(2), mac(1)).frame, place(30, { tunnel: { vni: VNI, from: ipv4Parse(road(1)), to: here, gbp: gbpOf(GENERATION, epoch) } }));
    expect(come(OPEN + 1)).toMatchObject({ verdict: 'early', redirect: { to: 50 } });
    expect(come(OPEN - 3)).toMatchObject({ verdict: 'late', redirect: { to: 12 }, clones: [{ to: 50 }] });
  });

  test('without outer headers, and at another device, nothing is believed', () => {
    const right = { vni: VNI, from: ipv4Parse(road(1)), to: here, gbp: gbpOf(GENERATION, OPEN) };
    expect(land(world(), framed(mac(2), mac(1)).frame, place(30)).stats).toEqual(['unknown']);
    expect(land(world(), framed(mac(2), mac(1)).frame, place(31, { tunnel: right })).stats).toEqual(['unknown']);
  });

  test('the device lets out what a classifier sent, the guards let in what came by it', () => {
    const t = world();
    const intra = 3 << 28;
    const { frame } = framed(mac(1), mac(2));
    expect(depart(t, { ifindex: 30, ingressIfindex: 12, mark: intra })).toMatchObject({ answer: 'next', mark: 0 });
    for (const wrong of [{ ifindex: 30, ingressIfindex: 12, mark: 0 }, { ifindex: 30, ingressIfindex: 0, mark: intra }, { ifindex: 31, ingressIfindex: 12, mark: intra }]) {
      expect(depart(t, wrong)).toMatchObject({ answer: 'drop', stats: ['forged'] });
    }
    expect(guard(t, frame, { ifindex: 12, ingressIfindex: 30, mark: intra }).answer).toBe('next');
    expect(guard(t, frame, { ifindex: 12, ingressIfindex: 31, mark: intra })).toMatchObject({ answer: 'drop', stats: ['confined'] });
  });
});

describe('the plan', () => {
  const PORTS: Port[] = [
    { ifindex: 1, name: 'br0', master: 0, kind: 'bridge', up: true }, { ifindex: 10, name: 'tap', master: 1, kind: 'tun', up: true },
    { ifindex: 20, name: 'uplink', master: 1, kind: 'veth', up: true }, { ifindex: 30, name: 'slx', master: 0, kind: 'vxlan', up: true },
  ];
  const nic = (index: number, port: string, remote: boolean): WantedGroup['nics'][number] =>
    ({ nic: index, port, mac: mac(index), vlan: 0, lastBridge: 0, lastIfindex: 0, remote, peer: remote ? 7 : 0 });
  const groups = (tunnel: number): WantedGroup[] => [0, 1].map((id) =>
    ({ holdIfindex: 100 + id, ringIfindex: 200 + id, laneIfindex: 0, exitIfindex: 0, poolHoldIfindex: 0, poolIfindex: 0, nics: id === 0 ? [nic(1, 'tap', false), nic(2, 'uplink', true)] : [nic(3, 'uplink', true)], wire: { id, vni: 70 + id, tunnel } }));

  test('two groups share one device; its programs stand before a VNI is known, and go after it is forgotten', () => {
    const wanted = want(groups(30), PORTS, new Map()).picture;
    expect(wanted.hooks.filter(({ ifindex }) => ifindex === 30).map(({ side, program }) => `${side} ${program}`)).toEqual(['egress depart', 'ingress land']);
    expect([...wanted.tables.vnis]).toEqual([['70', 0], ['71', 1]]);
    expect([...wanted.tables.peers]).toEqual([['2', 7], ['3', 7]]);
    expect(wanted.tables.wires.size).toBe(0);
    const adding = plan(emptyPicture(), wanted);
    const removing = plan(wanted, emptyPicture());
    const at = (steps: typeof adding, what: 'hook' | 'unhook' | 'put' | 'remove', name: string): number =>
      steps.findIndex((step) => step.do === what && ('hook' in step ? step.hook.program : 'table' in step ? step.table : '') === name);
    for (const program of ['land', 'depart', 'arrive']) expect(at(adding, 'hook', program)).toBeLessThan(at(adding, 'put', 'vnis'));
    expect(at(adding, 'put', 'peers')).toBeLessThan(at(adding, 'hook', 'land'));
    expect(at(removing, 'remove', 'vnis')).toBeLessThan(at(removing, 'unhook', 'land'));
  });

  test('without the device there are no programs on it, and everything else is in place', () => {
    const wanted = want(groups(0), PORTS, new Map()).picture;
    expect(wanted.hooks.filter(({ program }) => program === 'land' || program === 'depart')).toEqual([]);
    expect(wanted.tables.vnis.size).toBe(2);
  });

  test('one nic a host and VLAN is first', () => {
    const entry = (index: number, peer: number, vlan: number, remote = true) => ({ nic: index, memberIndex: index, member: `m${index}`, port: 'uplink', mac: mac(index), vlan, remote, peer });
    expect([...firstsOf([entry(5, 7, 0), entry(2, 7, 0), entry(3, 7, 9), entry(4, 8, 0), entry(1, 0, 0, false), entry(6, 0, 0)])].sort()).toEqual([2, 3, 4]);
  });

  test('a VNI is one group\'s, whatever VLANs others have', () => {
    const ask = (vni: number, theirs: { vlan: number; vxlan?: { vni: number } }) => wireRefusal({ vlan: 0, vxlan: { vni } }, 'uplink', [{ group: 'web', wire: theirs }], PORTS, () => false);
    expect(ask(70, { vlan: 0, vxlan: { vni: 70 } })).toMatchObject({ code: 'port_claimed', message: 'VNI 70 belongs to group web already' });
    expect(ask(70, { vlan: 0, vxlan: { vni: 71 } })).toBeUndefined();
    expect(ask(70, { vlan: 70 })).toBeUndefined();
  });
});

describe('the group file', () => {
  const spec = (wire: Wire): GroupSpec => ({ ...specFor(['h1', 'h2', 'h3']), wire });
  const hosts = { h1: '192.0.2.1', h2: '198.51.100.2', h3: '10.0.0.3' };

  test('{ vxlan, hosts } is read, shown as it was given, and sound', () => {
    const { group, members } = groupFileOf(spec({ vxlan: VNI, hosts }));
    const read = parseGroup({ group, members, wire: { vxlan: VNI, hosts } });
    expect(read.ok && read.value.wire).toEqual({ vxlan: VNI, hosts });
    expect(read.ok && groupFileOf(read.value).wire).toEqual({ vxlan: VNI, hosts });
    expect(read.ok && specFault(read.value)).toBeUndefined();
  });

  test.each<[object, RegExp]>([
    [{}, /\{ vlan \} or \{ vxlan, hosts \}/], [{ vxlan: 7 }, /\{ vlan \} or \{ vxlan, hosts \}/], [{ hosts }, /one of the two/], [{ vlan: 7, hosts }, /one of the two/],
    [{ vlan: 7, vxlan: 7, hosts }, /one of the two/], [{ vxlan: 0, hosts }, /VNI/], [{ vxlan: 2 ** 24, hosts }, /VNI/], [{ vxlan: 7, hosts: { h1: 5 } }, /wire.*hosts.*h1.*5 is not right; expected an IPv4 address/],
    [{ vxlan: 7, hosts: { 'h 1': '10.0.0.1' } }, /can't be a name here/], [{ vxlan: 7, hosts: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`h${i}`, `10.0.0.${i}`])) }, /has 65 entries; expected a map of up to 64/],
  ])('%j is refused', (wire, message) => {
    const { group, members } = groupFileOf(spec({ vlan: 5 }));
    const read = parseGroup({ group, members, wire });
    expect(read).toMatchObject({ ok: false });
    expect(JSON.stringify(read)).toMatch(message);
  });

  test.each<[Record<string, string>, string]>([
    [{ h1: hosts.h1, h2: hosts.h2 }, 'host h3 has no address in wire.hosts: add h3: <its IPv4 address>'],
    [{ ...hosts, h2: '198.51.100' }, '198.51.100 of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1'],
    [{ ...hosts, h2: '300.1.1.1' }, '300.1.1.1 of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1'],
    [{ ...hosts, h2: '0.0.0.0' }, '0.0.0.0 of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1'],
    ...['127.0.0.1', '224.0.0.1', '239.255.1.2', '240.0.0.1', '255.255.255.255'].map((h2): [Record<string, string>, string] =>
      [{ ...hosts, h2 }, `${h2} of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1`]),
    [{ ...hosts, h2: '10.0.0.03' }, '10.0.0.03 of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1'],
    [{ ...hosts, h2: 'fd00::1' }, 'fd00::1 of host h2 is no IPv4 address that other hosts reach a host at: write one as 192.0.2.1'],
    [{ ...hosts, spare: hosts.h1 }, `address ${hosts.h1} is named twice in wire.hosts: a host has one of its own`],
  ])('hosts %j are not sound', (given, message) => {
    expect(specFault(spec({ vxlan: VNI, hosts: given }))).toBe(message);
  });
  test.each(['1.0.0.1', '126.9.9.9', '128.0.0.1', '223.255.255.1', '12.7.0.1', '22.4.0.1'])('%s is as good as any', (h2) => {
    expect(specFault(spec({ vxlan: VNI, hosts: { ...hosts, h2 } }))).toBeUndefined();
  });

  test('another VNI, address, host or road is another spec', () => {
    const same = spec({ vxlan: VNI, hosts });
    expect(sameSpec(same, spec({ vxlan: VNI, hosts: { h3: hosts.h3, h2: hosts.h2, h1: hosts.h1 } }))).toBe(true);
    for (const other of [{ vxlan: 1, hosts }, { vxlan: VNI, hosts: { ...hosts, h2: '10.9.9.9' } }, { vxlan: VNI, hosts: { ...hosts, h4: '10.0.0.4' } }, { vlan: VNI }]) {
      expect(sameSpec(same, spec(other)), JSON.stringify(other)).toBe(false);
      expect(sameSpec(spec(other), same), JSON.stringify(other)).toBe(false);
    }
  });

  test('an address is its four bytes, and nothing else is one', () => {
    fc.assert(fc.property(fc.tuple(...[0, 1, 2, 3].map(() => fc.integer({ min: 0, max: 255 }))), (bytes) => {
      expect(ipv4Parse(bytes.join('.'))).toBe(Buffer.from(bytes).readUInt32BE(0));
    }));
    for (const odd of ['', '1.2.3', '1.2.3.4.5', '1.2.3.256', ' 1.2.3.4', '::1', 'a.b.c.d']) expect(ipv4Parse(odd), odd).toBe(0);
  });
});
