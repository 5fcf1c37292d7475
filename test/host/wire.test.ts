import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { sleep, until } from '../../bench/bed/commands.ts';
import { HostsBed } from '../../bench/bed/hosts.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import type { PacketPort } from '../../bench/bed/packet-port.ts';
import type { SpecView } from '../../classifier/kernel.ts';
import { ALL, Ear, NOBODY, framed, tag } from '../support/wire-frames.ts';
import { WireHost } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * One group on three hosts, real programs and hold planes, real frames through a switch:
 *
 *   m1 @h1     m2, m3 @h2     m4 @h3 (m1's standby)     m5, m6 @h1, h2: nobody's     outsider
 *
 * What is looked at: members' taps, the wire at each host's uplink, and the outsider's end.
 */
const VLAN = 100;
const GENERATION_SHIFT = 12;
const WAIT_MS = 10_000;

describe.skipIf(UNPRIVILEGED !== undefined)('a group across hosts', () => {
  let bed: HostsBed;
  const hosts: WireHost[] = [];
  const ears = new Map<string, Ear>();
  let outside: PacketPort;

  const mac = (i: number): string => bed.member(i).mac;
  const host = (i: number): WireHost => {
    const found = hosts[i];
    if (found === undefined) throw new Error(`no host ${i}`);
    return found;
  };
  const ear = (name: string): Ear => {
    const found = ears.get(name);
    if (found === undefined) throw new Error(`nobody listens at ${name}`);
    return found;
  };
  /** Where the first member lives: on h1, after the takeover on h3 at its standby's tap. */
  const spec = (home: 'h1' | 'h3'): SpecView => ({
    group: 'g', foreignSource: 'hold', intraPath: 'redirect',
    members: [
      { name: 'm1', host: home, nics: [{ port: home === 'h1' ? 'port1' : 'port4', mac: mac(0), vlan: 0 }, { port: home === 'h1' ? 'port7' : 'port8', mac: mac(6), vlan: 7 }] },
      { name: 'm2', host: 'h2', nics: [{ port: 'port2', mac: mac(1), vlan: 0 }, { port: 'port9', mac: mac(8), vlan: 7 }] },
      { name: 'm3', host: 'h2', nics: [{ port: 'port3', mac: mac(2), vlan: 0 }] },
    ],
  });
  const wired = (generation: number, epoch: number, vlan = VLAN): number[] => [...tag(0x88a8, vlan), ...tag(0x8100, (generation << GENERATION_SHIFT) | (epoch & 0xfff))];
  const say = (i: number, to: string, tags: readonly number[] = [], bytes = 100): number => {
    const { id, frame } = framed(to, mac(i), tags, bytes);
    expect(bed.tap(i).send(frame)).toBe(true);
    return id;
  };
  const arrives = (at: string, id: number): Promise<void> => until(`frame ${id} is at ${at}`, () => ear(at).count(id) > 0, WAIT_MS);
  /** The outsider's broadcast takes every path; when it is at every end, what was sent before it is, too. */
  const settle = async (): Promise<void> => {
    const { id, frame } = framed(ALL, NOBODY);
    outside.send(frame);
    for (const at of ['m2', 'm3', 'm4', 'm5', 'm6']) await arrives(at, id);
    await sleep(5);
  };
  const held = (i: number): number => host(i).stats(i === 0 ? 'port1' : 'port2').verdicts.held.frames;
  const drops = (i: number): { stale: number; unknown: number; foreign: number; elsewhere: number; skewed: number } => host(i).stats('uplink').counts;

  beforeAll(async () => {
    const on = (at: number) => ({ kind: 'tap' as const, host: at });
    bed = await HostsBed.create({ hosts: 3, members: [on(0), on(1), on(1), on(2), on(0), on(1), on(0), on(2), on(1)] });
    for (const [i, namespace] of bed.hosts.entries()) {
      // The second host's colours go over the end of 32 bits, the third one's over that of the wire's twelve.
      hosts.push(new WireHost({ self: `h${i + 1}`, namespace, vlan: VLAN, base: [1000, 2 ** 32 - 6, 4093][i] ?? 0 }));
    }
    for (const each of hosts) await each.protect(spec('h1'));
    outside = bed.outside();
    for (const [i] of bed.members.entries()) ears.set(`m${i + 1}`, new Ear(bed.tap(i)));
    for (const i of [0, 1, 2]) ears.set(`wire${i + 1}`, new Ear(bed.port(i)));
    ears.set('out', new Ear(outside));
    await until('the bridges forward', () => {
      const { id, frame } = framed(ALL, NOBODY);
      outside.send(frame);
      return ['m1', 'm2', 'm3', 'm4', 'm5', 'm6'].every((at) => ear(at).count(id) > 0);
    });
  }, 60_000);
  afterAll(async () => {
    for (const each of hosts) await each.close();
    await bed.close();
  }, 30_000);

  test('everything is in place', () => {
    expect(hosts.map(({ gate }) => gate.ready())).toEqual([[], [], []]);
  });

  test('a frame to a member elsewhere arrives as it was sent, and only its two tags are new on the wire', async () => {
    const { id, frame } = framed(mac(1), mac(0));
    bed.tap(0).send(frame);
    await arrives('m2', id);
    expect(ear('m2').frame(id)?.equals(frame)).toBe(true);
    const onWire = ear('wire1').frame(id);
    expect(onWire?.subarray(12, 20).toString('hex')).toBe(Buffer.from(wired(1, 1)).toString('hex'));
    expect(onWire === undefined ? '' : Buffer.concat([onWire.subarray(0, 12), onWire.subarray(20)]).equals(frame)).toBe(true);
    await settle();
    for (const at of ['out', 'm3', 'm5', 'm6']) expect(ear(at).count(id), at).toBe(0);
    expect(host(0).stats('port1').counts.remote).toBeGreaterThan(0);
  });

  test('a broadcast is at every member at once, and outside only with its commit; no member gets it twice', async () => {
    const id = say(0, ALL);
    await arrives('m2', id);
    await arrives('m3', id);
    await settle();
    for (const at of ['out', 'm4', 'm5', 'm6']) expect(ear(at).count(id), `${at} before the commit`).toBe(0);
    const sealed = host(0).cut();
    for (const i of [1, 2]) host(i).cut();
    await settle();
    expect(ear('out').count(id), 'cut, not committed').toBe(0);
    host(0).commit(sealed);
    await arrives('out', id);
    await arrives('m5', id);
    await arrives('m6', id);
    await settle();
    for (const at of ['m2', 'm3']) expect(ear(at).count(id), at).toBe(1);
    for (const i of [1, 2]) host(i).commit(sealed);
  });

  test('I2: what a member sent after its cut waits until the receiver is cut too', async () => {
    const before = say(0, mac(1));
    await arrives('m2', before);
    host(0).cut();
    const early = say(0, mac(1));
    const all = say(0, ALL);
    await settle();
    expect([ear('m2').count(early), ear('m2').count(all), ear('m3').count(all)]).toEqual([0, 0, 0]);
    host(1).cut();
    for (const id of [early, all]) await arrives('m2', id);
    await arrives('m3', all);
    host(2).cut();
    expect(ear('m2').seen.map(({ id }) => id).filter((id) => id === early || id === all), 'in order').toEqual([early, all]);
  });

  test('I3: what was sent before its sender\'s cut is delivered late to one already cut', async () => {
    const late = (): number => host(1).stats('uplink').verdicts.late.frames;
    const before = late();
    host(1).cut();
    const id = say(0, mac(1));
    await arrives('m2', id);
    expect(late() - before).toBe(1);
    host(0).cut();
    host(2).cut();
  });

  test('I1: with traffic, cuts and commits, nothing is outside before its epoch\'s commit', async () => {
    const sent = new Map<number, { host: number; epoch: number }>();
    const committedUs = [new Map<number, number>(), new Map<number, number>(), new Map<number, number>()];
    for (let round = 0; round < 60; round += 1) {
      for (let k = 0; k < 8; k += 1) {
        sent.set(say(0, bed.outsider.mac), { host: 0, epoch: host(0).open });
        sent.set(say(1, k === 0 ? ALL : bed.outsider.mac), { host: 1, epoch: host(1).open });
        say(0, mac(1 + (k % 2)));
        say(1, mac(0));
      }
      const sealed = hosts.map((each) => each.cut());
      ear('out').hear();
      await sleep(1);
      if (round % 3 !== 2) continue; // some epochs are committed together
      for (const i of [0, 1, 2]) {
        for (let e = sealed[i] ?? 0; e > 0 && committedUs[i]?.has(e) === false; e -= 1) committedUs[i]?.set(e, nowUs());
        host(i).commit(sealed[i] ?? 0);
      }
    }
    const ours = [...sent.keys()];
    await until('everything committed is outside', () => ours.every((id) => ear('out').count(id) > 0), WAIT_MS);
    const leaks = ear('out').seen.filter(({ id, atUs }) => {
      const from = sent.get(id);
      return from !== undefined && atUs < (committedUs[from.host]?.get(from.epoch) ?? Number.POSITIVE_INFINITY);
    });
    expect(leaks.map(({ id }) => id)).toEqual([]);
    expect(ear('out').seen.filter(({ frame }) => frame.readUInt16BE(12) === 0x88a8), 'tagged frames outside').toEqual([]);
  });

  test('three tags: a member\'s own VLAN goes over the wire with it', async () => {
    const { id, frame } = framed(mac(8), mac(6), tag(0x8100, 0x2007));
    bed.tap(6).send(frame);
    await arrives('m9', id);
    expect(ear('m9').frame(id)?.equals(frame)).toBe(true);
    expect(ear('wire1').frame(id)?.subarray(12, 24).toString('hex')).toBe(Buffer.from([...wired(1, host(0).open), ...tag(0x8100, 0x2007)]).toString('hex'));
    const all = framed(ALL, mac(6), tag(0x8100, 7));
    bed.tap(6).send(all.frame);
    await arrives('m9', all.id);
    expect(ear('m9').frame(all.id)?.equals(all.frame)).toBe(true);
    const full = framed(mac(8), mac(6), tag(0x8100, 7), 1502); // 1500 bytes behind its type
    bed.tap(6).send(full.frame);
    await arrives('m9', full.id);
    await settle();
    expect([ear('m2').count(all.id), ear('m3').count(all.id)]).toEqual([0, 0]);
  });

  test('frames that come twice, late or out of order are delivered as on one host, never early', async () => {
    const wire = bed.port(1);
    const open = host(1).open;
    const send = (epoch: number, generation = 1): number => {
      const { id, frame } = framed(mac(1), mac(0), wired(generation, epoch));
      for (let i = 0; i < 2; i += 1) wire.send(frame);
      return id;
    };
    const [now, old, dead, ahead] = [send(open), send(open - 1), send(open - 40), send(open + 1025)];
    for (const id of [now, old]) await until(`${id} came twice`, () => ear('m2').count(id) === 2, WAIT_MS);
    const [early, behind] = [send(open + 1), send(open)];
    await settle();
    expect([early, behind, dead, ahead].map((id) => ear('m2').count(id)), 'early waits, what is behind it too; too far off is dropped').toEqual([0, 0, 0, 0]);
    for (const each of hosts) each.cut();
    await until('the early ones came, then those behind them', () => [early, behind].every((id) => ear('m2').count(id) === 2), WAIT_MS);
    expect(ear('m2').seen.map(({ id }) => id).filter((id) => id === early || id === behind)).toEqual([early, early, behind, behind]);
    expect([dead, ahead].map((id) => ear('m2').count(id))).toEqual([0, 0]);
    expect(drops(1).skewed).toBe(4);
  });

  test('nothing without both tags, of another group, of another source, from another port is taken for the group\'s', async () => {
    const wire = bed.port(1);
    const open = host(1).open;
    const before = drops(1);
    const put = (frame: { id: number; frame: Buffer }): number => {
      wire.send(frame.frame);
      return frame.id;
    };
    const never = [
      put(framed(mac(1), mac(0))), // its tags stripped
      put(framed(mac(1), mac(2))), // claims to be one who lives here
      put(framed(mac(1), mac(0), tag(0x88a8, VLAN))), // the colour stripped
      put(framed(mac(1), mac(0), wired(1, open, 101))),
      put(framed(mac(1), NOBODY, wired(1, open))),
      put(framed(mac(1), mac(2), wired(1, open))),
      put(framed(mac(1), mac(0), wired(2, open))),
      put(framed(mac(1), mac(0), wired(15, open))),
      put(framed(mac(5), mac(0), wired(1, open))), // to nobody of the group
    ];
    await settle();
    for (const at of ['m2', 'm3', 'm6']) expect(never.filter((id) => ear(at).count(id) > 0), at).toEqual([]);
    const after = drops(1);
    const rose = Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - before[name as keyof typeof before]]));
    expect(rose).toMatchObject({ foreign: 4, unknown: 2, stale: 2, elsewhere: 1, skewed: 0 });
    const passes = put(framed(mac(5), mac(0))); // to a neighbour of the members it is what anybody sends
    await arrives('m6', passes);
  });

  test('the group\'s tags from a port that is not the uplink go nowhere, from a member\'s not even with a commit', async () => {
    // Also behind the tag of a switch port's native VLAN, which the switch takes off: what is left would be the group's.
    const forms = [wired(1, host(0).open), [...tag(0x8100, 5), ...wired(1, host(0).open)]];
    const strays = forms.map((tags) => framed(mac(1), mac(0), tags));
    const forged = forms.map((tags) => framed(mac(1), mac(0), tags));
    const before = host(0).stats('uplink').counts.forged;
    for (const { frame } of strays) bed.tap(4).send(frame); // a neighbour's port
    for (const { frame } of forged) bed.tap(0).send(frame); // a member's own
    await settle();
    const sealed = host(0).cut();
    host(0).commit(sealed);
    for (const i of [1, 2]) host(i).cut();
    const after = say(0, bed.outsider.mac);
    host(0).commit(host(0).cut());
    for (const i of [1, 2]) host(i).cut();
    await arrives('out', after);
    for (const at of ['wire1', 'm2', 'm3']) for (const { id } of [...forged, ...strays]) expect(ear(at).count(id), at).toBe(0);
    expect(host(0).stats('uplink').counts.forged - before).toBeGreaterThanOrEqual(4);
  });

  test('the outsider neither hears nor speaks the group\'s VLAN; where the switch lets it, what does not fit is dropped', async () => {
    const heard = say(0, ALL);
    const spoken = framed(mac(1), mac(0), wired(1, host(1).open));
    outside.send(spoken.frame);
    await arrives('m2', heard);
    await settle();
    expect([ear('out').count(heard), ear('m2').count(spoken.id)]).toEqual([0, 0]);
    await bed.trunk(true);
    try {
      const wrong = [framed(mac(1), NOBODY, wired(1, host(1).open)), framed(mac(1), mac(0), wired(3, host(1).open))];
      for (const { frame } of wrong) outside.send(frame);
      await settle();
      expect(wrong.map(({ id }) => ear('m2').count(id))).toEqual([0, 0]);
    } finally {
      await bed.trunk(false);
    }
  });

  test('I7: a host is cut off, the group goes on elsewhere, and what the old generation says ends on arrival', async () => {
    const wire1 = bed.port(0); // what comes out at h1's uplink's other end
    const secret = say(0, bed.outsider.mac); // held on h1, never committed
    const sealed = hosts.map((each) => each.cut());
    await bed.cable(0, false);
    const from = Math.min(...sealed) - 1; // the sealed one is lost with its host
    for (const i of [1, 2]) await host(i).takeover(from, 2, spec('h3'));
    const now = say(3, bed.outsider.mac); // the standby's tap has another MAC than m1: foreign, held
    expect(held(1)).toBeGreaterThanOrEqual(0);
    const asM1 = framed(mac(1), mac(0));
    bed.tap(3).send(asM1.frame);
    await arrives('m2', asM1.id);
    expect(ear('wire3').frame(asM1.id)?.subarray(12, 20).toString('hex')).toBe(Buffer.from(wired(2, from + 1)).toString('hex'));
    const back = say(1, mac(0));
    await arrives('m4', back);

    await bed.cable(0, true);
    const before = drops(1).stale;
    await until('h1 is heard again', () => {
      say(0, mac(1));
      return drops(1).stale > before;
    }, WAIT_MS);
    const last = say(0, ALL);
    await sleep(50);
    await settle();
    expect([ear('m2').count(last), ear('m3').count(last), ear('m4').count(last)]).toEqual([0, 0, 0]);
    expect(ear('out').count(secret), 'what was never committed').toBe(0);
    expect(ear('out').count(now)).toBe(0);
    host(1).commit(host(1).cut());
    host(2).commit(host(2).cut());
    await arrives('out', now);
    wire1.close();
  });

  test('counters add up: in is the verdicts, and what the uplink dropped has a reason each', () => {
    for (const each of hosts) {
      for (const { device, in: came, verdicts, counts } of each.gate.stats()) {
        expect(Object.values(verdicts).reduce((sum, { frames }) => sum + frames, 0), device).toBe(came.frames);
        if (device !== 'uplink') continue;
        expect(counts.stale + counts.unknown + counts.foreign + counts.elsewhere + counts.skewed, 'reasons').toBeGreaterThanOrEqual(verdicts.drop.frames);
        expect(counts.leakBlocked + counts.unvetted + counts.refused + counts.confined).toBe(0);
      }
    }
  });
});
