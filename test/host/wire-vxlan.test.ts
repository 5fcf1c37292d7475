import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ipBatch, runIn, sleep, until } from '../../bench/bed/commands.ts';
import { HostsBed } from '../../bench/bed/hosts.ts';
import type { PacketPort } from '../../bench/bed/packet-port.ts';
import type { SpecView } from '../../classifier/kernel.ts';
import { ALL, Ear, NOBODY, envelope, framed, gbpOf, tag, vxlanRows } from '../support/wire-frames.ts';
import type { Numbered } from '../support/wire-frames.ts';
import { WireHost } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * One group by VXLAN on three hosts that a router joins, real programs, devices and hold planes:
 *
 *   m1 @h1     m2, m3 @h2     m4 @h3, and a tap for m1 there     m6 @h2: nobody's     outsider
 *
 * What is looked at: members' taps, the router's side of each host's road, uplinks, the outsider's end.
 */
const VNI = 70_000;
const WAIT_MS = 20_000;

describe.skipIf(UNPRIVILEGED !== undefined)('a group across hosts by VXLAN', () => {
  let bed: HostsBed;
  const hosts: WireHost[] = [];
  const ears = new Map<string, Ear>();
  let outside: PacketPort;
  const crossings: PacketPort[] = [];

  const mac = (i: number): string => bed.member(i).mac;
  const must = <T>(found: T | undefined): T => {
    if (found === undefined) throw new Error('the bed has none such');
    return found;
  };
  const host = (i: number): WireHost => must(hosts[i]);
  const ear = (name: string): Ear => must(ears.get(name));
  /** m1 on h1, or after the takeover on h3. */
  const spec = (home: 'h1' | 'h3'): SpecView => ({
    group: 'g', foreignSource: 'hold', intraPath: 'redirect',
    members: [
      { name: 'm1', host: home, nics: [{ port: home === 'h1' ? 'port1' : 'port5', mac: mac(0), vlan: 0 }, { port: home === 'h1' ? 'port7' : 'port9', mac: mac(6), vlan: 7 }] },
      { name: 'm2', host: 'h2', nics: [{ port: 'port2', mac: mac(1), vlan: 0 }, { port: 'port8', mac: mac(7), vlan: 7 }] },
      { name: 'm3', host: 'h2', nics: [{ port: 'port3', mac: mac(2), vlan: 0 }] },
      { name: 'm4', host: 'h3', nics: [{ port: 'port4', mac: mac(3), vlan: 0 }] },
    ],
  });
  const say = (i: number, to: string, tags: readonly number[] = [], bytes = 100): Numbered => {
    const said = framed(to, mac(i), tags, bytes);
    expect(bed.tap(i).send(said.frame)).toBe(true);
    return said;
  };
  const arrives = (at: string, { id }: Numbered): Promise<void> => until(`frame ${id} is at ${at}`, () => ear(at).count(id) > 0, WAIT_MS);
  /** The outsider's broadcast takes the outside's path, m1's and m2's words the roads: when they are through, so is what was before. */
  const settle = async (roads: readonly (readonly [number, number])[] = [[0, 1], [1, 3]]): Promise<void> => {
    const all = framed(ALL, NOBODY);
    outside.send(all.frame);
    for (const at of ['m2', 'm3', 'm4', 'm6']) await arrives(at, all);
    for (const [from, to] of roads) await arrives(`m${to + 1}`, say(from, mac(to)));
    await sleep(20);
  };
  const cutAll = (): number[] => hosts.map((each) => each.cut());
  const tunnel = (i: number) => host(i).stats('slx');
  const shown = async (i: number): Promise<string> => runIn(bed.host(i), 'ip', ['-d', 'link', 'show', 'slx']);

  beforeAll(async () => {
    const on = (at: number) => ({ kind: 'tap' as const, host: at });
    bed = await HostsBed.create({ hosts: 3, routed: true, members: [on(0), on(1), on(1), on(2), on(2), on(1), on(0), on(1), on(2)] });
    for (const [i, namespace] of bed.hosts.entries()) {
      // The second host's colours go over the end of 32 bits, the third one's over that of the policy id's twelve.
      hosts.push(new WireHost({ self: `h${i + 1}`, namespace, vlan: 0, vxlan: { vni: VNI, hosts: bed.roads() }, base: [1000, 2 ** 32 - 6, 4093][i] ?? 0 }));
      crossings.push(bed.crossing(i));
    }
    for (const each of hosts) await each.protect(spec('h1'));
    outside = bed.outside();
    for (const [i] of bed.members.entries()) ears.set(`m${i + 1}`, new Ear(bed.tap(i)));
    for (const [i, crossing] of crossings.entries()) {
      ears.set(`road${i + 1}`, new Ear(crossing));
      ears.set(`switch${i + 1}`, new Ear(bed.port(i)));
    }
    ears.set('out', new Ear(outside));
    await until('bridges forward and roads lead somewhere', () => {
      const all = framed(ALL, NOBODY);
      outside.send(all.frame);
      const through = [say(0, mac(1)), say(0, mac(3)), say(1, mac(3)), say(1, mac(0)), say(3, mac(0)), say(3, mac(1))];
      const ends = ['m2', 'm4', 'm4', 'm1', 'm1', 'm2'];
      for (const name of ears.keys()) ear(name).hear();
      return ['m1', 'm2', 'm3', 'm4', 'm6'].every((at) => ear(at).count(all.id) > 0) && through.every(({ id }, i) => ear(ends[i] ?? '').count(id) > 0);
    }, WAIT_MS);
  }, 60_000);
  afterAll(async () => {
    for (const each of hosts) await each.close();
    await bed.close();
  }, 30_000);

  test('everything is in place, the device is as it must be', async () => {
    expect(hosts.map(({ gate }) => gate.ready())).toEqual([[], [], []]);
    for (const i of hosts.keys()) expect(await shown(i)).toMatch(/qdisc noqueue[^]*vxlan external[^]*nolearning[^]*gbp/);
  });

  test('a frame to a member elsewhere arrives as it was sent, with the group\'s VNI and its colour, and takes the road alone', async () => {
    const open = host(0).open;
    const said = say(0, mac(1));
    await arrives('m2', said);
    expect(ear('m2').frame(said.id)?.equals(said.frame)).toBe(true);
    const crossed = ear('road1').find(said.id);
    expect(crossed?.outer).toEqual({ from: bed.road(0), to: bed.road(1), vni: VNI, gbp: gbpOf(1, open) });
    expect(crossed?.frame.equals(said.frame)).toBe(true);
    await settle();
    for (const at of ['out', 'switch1', 'switch2', 'm3', 'm4', 'm6']) expect(ear(at).count(said.id), at).toBe(0);
  });

  test('a broadcast goes once to each host and to every member at once, and outside only with its commit', async () => {
    const said = say(0, ALL);
    for (const at of ['m2', 'm3', 'm4']) await arrives(at, said);
    await settle();
    for (const at of ['out', 'm5', 'm6']) expect(ear(at).count(said.id), `${at} before the commit`).toBe(0);
    expect(ear('road2').count(said.id) + ear('road3').count(said.id), 'no host passes it on').toBe(0);
    expect(ear('road1').hear().seen.filter(({ id }) => id === said.id).map(({ outer }) => outer?.to).sort()).toEqual([bed.road(1), bed.road(2)]);
    const [sealed = 0] = cutAll();
    await settle();
    expect(ear('out').count(said.id), 'cut, not committed').toBe(0);
    for (const each of hosts) each.commit(sealed);
    await arrives('out', said);
    await arrives('m6', said);
    await settle();
    for (const at of ['m2', 'm3', 'm4']) expect(ear(at).count(said.id), at).toBe(1);
  });

  test('I2, I3: early waits for its receiver\'s cut, late is delivered and recorded', async () => {
    const before = tunnel(1).verdicts;
    host(0).cut();
    const [early, all] = [say(0, mac(1)), say(0, ALL)];
    await until('both are decided on h2', () => tunnel(1).verdicts.early.frames > before.early.frames && tunnel(1).verdicts.split.frames > before.split.frames, WAIT_MS);
    await settle([]); // m4 is behind, too: what is for it waits
    expect([ear('m2').count(early.id), ear('m2').count(all.id), ear('m3').count(all.id)]).toEqual([0, 0, 0]);
    host(1).cut();
    for (const said of [early, all]) await arrives('m2', said);
    await arrives('m3', all);
    expect(ear('m2').seen.map(({ id }) => id).filter((id) => id === early.id || id === all.id), 'in order').toEqual([early.id, all.id]);
    host(2).cut();
    await arrives('m4', all);
    const late = tunnel(1).verdicts.late.frames;
    host(1).cut();
    await arrives('m2', say(0, mac(1)));
    expect(tunnel(1).verdicts.late.frames - late).toBe(1);
    for (const i of [0, 2]) host(i).cut();
  });

  test('a member\'s own VLAN and its largest frames go with it', async () => {
    for (const to of [mac(7), ALL]) {
      const said = say(6, to, tag(0x8100, 7), 1502); // 1500 bytes behind its type
      await arrives('m8', said);
      expect(ear('m8').frame(said.id)?.equals(said.frame)).toBe(true);
      await settle();
      for (const at of ['m2', 'm3', 'm4', 'out']) expect(ear(at).count(said.id), at).toBe(0);
      expect(ear('road1').count(said.id), 'no host without a nic in that VLAN').toBe(1);
    }
  });

  test('of all that can be said to the port, only what is right in every respect is believed', async () => {
    const dst = /link\/ether ([0-9a-f:]{17})/.exec(await runIn(bed.host(1), 'ip', ['link', 'show', 'road']))?.[1] ?? '';
    const scene = { mac: (i: number) => mac(i - 1), road: (i: number) => bed.road(i - 1), vni: VNI, generation: 1, open: host(1).open };
    for (const { what, from, vni, gbp, to, src, tags, lost } of vxlanRows(scene)) {
      const said = framed(to, src, tags);
      const before = tunnel(1);
      must(crossings[1]).send(envelope({ from, to: bed.road(1), vni, gbp }, dst, said.frame));
      // It is counted as come before it is decided: a verdict is the later of the two.
      const decided = ({ verdicts }: typeof before): number => Object.values(verdicts).reduce((sum, { frames }) => sum + frames, 0);
      await until(`${what}: decided`, () => decided(tunnel(1)) > decided(before) && (lost === undefined || tunnel(1).counts[lost] > before.counts[lost]), WAIT_MS);
      const { counts } = tunnel(1);
      const rose = (['unknown', 'stale', 'foreign', 'elsewhere', 'skewed'] as const).filter((name) => counts[name] > before.counts[name]);
      expect(rose, what).toEqual(lost === undefined ? [] : [lost]);
      if (lost === undefined) await arrives('m2', said);
      else expect(['m1', 'm2', 'm3', 'm4', 'm6', 'out'].filter((at) => ear(at).count(said.id) > 0), what).toEqual([]);
    }
  });

  test('what a classifier did not send does not leave by the device, and what claims a member outside is foreign', async () => {
    const before = host(0).stats('slx').counts.forged;
    const own = new Ear(bed.wire(0));
    const port = bed.device(0, 'slx');
    port.send(framed(mac(1), mac(0)).frame);
    await until('it is dropped', () => host(0).stats('slx').counts.forged > before, WAIT_MS);
    const claimed = framed(mac(1), mac(0));
    const foreign = host(1).stats('uplink').counts.foreign;
    outside.send(claimed.frame);
    await until('it is foreign', () => host(1).stats('uplink').counts.foreign > foreign, WAIT_MS);
    await until('the switch has flooded it', () => own.count(claimed.id) === 1, WAIT_MS);
    expect(ear('m2').count(claimed.id)).toBe(0);
  });

  test('a device that is deleted, or is given a queue, is made again and the group goes on', async () => {
    await ipBatch(bed.host(0), ['link del slx']);
    await host(0).gate.reconcile();
    expect(host(0).gate.ready()).toEqual([]);
    await settle();
    await runIn(bed.host(0), 'tc', ['qdisc', 'add', 'dev', 'slx', 'root', 'pfifo', 'limit', '100']);
    expect(await shown(0)).toContain('pfifo');
    await host(0).gate.reconcile();
    expect(await shown(0)).toContain('noqueue');
    expect(host(0).gate.ready()).toEqual([]);
    await settle();
  });

  test('where another VXLAN device has the port it is said, and when that is gone the group goes on', async () => {
    await ipBatch(bed.host(0), ['link del slx', 'link add vxlan10 type vxlan id 10 dstport 4789', 'link set vxlan10 up']);
    await host(0).gate.reconcile();
    expect(host(0).gate.ready()).toEqual(['the VXLAN device is not in place: UDP port 4789 of this host is taken, by another VXLAN device or a socket']);
    await ipBatch(bed.host(0), ['link del vxlan10']);
    await host(0).gate.reconcile();
    expect(host(0).gate.ready()).toEqual([]);
    await settle();
  });

  test('I7: m1 goes on at h3; what its old life says, and its new life from the old host, ends on arrival', async () => {
    const secret = say(0, bed.outsider.mac); // held on h1, never committed
    const sealed = cutAll();
    const from = Math.min(...sealed) - 1;
    for (const i of [1, 2]) await host(i).takeover(from, 2, spec('h3'));
    const now = framed(mac(1), mac(0));
    bed.tap(4).send(now.frame);
    await arrives('m2', now);
    expect(ear('road3').find(now.id)?.outer).toEqual({ from: bed.road(2), to: bed.road(1), vni: VNI, gbp: gbpOf(2, from + 1) });
    await arrives('m5', say(1, mac(0)));
    const before = tunnel(1).counts.stale;
    const old = [say(0, mac(1)), say(0, ALL)];
    await until('the old life is stale', () => tunnel(1).counts.stale >= before + 2, WAIT_MS);
    const dst = /link\/ether ([0-9a-f:]{17})/.exec(await runIn(bed.host(1), 'ip', ['link', 'show', 'road']))?.[1] ?? '';
    const foreign = tunnel(1).counts.foreign;
    const ghost = framed(mac(1), mac(0));
    must(crossings[1]).send(envelope({ from: bed.road(0), to: bed.road(1), vni: VNI, gbp: gbpOf(2, host(1).open) }, dst, ghost.frame));
    await until('the new colour from the old host is foreign', () => tunnel(1).counts.foreign > foreign, WAIT_MS);
    await settle([[1, 3]]);
    for (const { id } of [...old, ghost]) expect(['m2', 'm3', 'm4'].filter((at) => ear(at).count(id) > 0)).toEqual([]);
    expect(ear('out').count(secret.id), 'what was never committed').toBe(0);
  });

  test('counters add up; without its last group the device is gone', async () => {
    for (const each of hosts) {
      for (const { device, in: came, verdicts, counts } of each.gate.stats()) {
        expect(Object.values(verdicts).reduce((sum, { frames }) => sum + frames, 0), device).toBe(came.frames);
        expect(counts.leakBlocked + counts.unvetted + counts.refused + counts.confined, device).toBe(0);
      }
    }
    for (let each = hosts.pop(); each !== undefined; each = hosts.pop()) {
      await each.close();
      await expect(shown(hosts.length)).rejects.toThrow();
    }
  });
});
