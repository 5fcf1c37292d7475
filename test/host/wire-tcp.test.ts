import { describe, expect, test } from 'vitest';
import { HostsBed } from '../../bench/bed/hosts.ts';
import { iperf } from '../../bench/bed/iperf.ts';
import type { SpecView } from '../../classifier/kernel.ts';
import { WireHost } from '../support/wire-host.ts';
import { UNPRIVILEGED } from './privilege.ts';

/**
 * TCP between two members on two hosts, beside the same two over the plain bridges, in turns: it
 * works with tags on, super-frames stay whole, and both figures are said. How good the ratio is is no
 * test's to judge on a machine that others share.
 *
 * SLUICE_LAPS, SLUICE_SECONDS: more of both, for a measurement.
 */
const LAPS = Number(process.env['SLUICE_LAPS'] ?? 1);
const SECONDS = Number(process.env['SLUICE_SECONDS'] ?? 1);
/** Beyond a hundred million bits a second no stack sends frame by frame by accident. */
const GBPS_MIN = 0.1;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

describe.skipIf(UNPRIVILEGED !== undefined)('TCP between hosts', () => {
  test.each([[1500, 'vlan'], [9000, 'vlan'], [1500, 'vxlan']] as const)('MTU %i, by %s', { timeout: 60_000 + LAPS * SECONDS * 4000 }, async (mtu, road) => {
    const bed = await HostsBed.create({ hosts: 2, mtu, routed: road === 'vxlan', members: [{ kind: 'veth', host: 0 }, { kind: 'veth', host: 1 }] });
    const hosts: WireHost[] = [];
    const spec: SpecView = {
      group: 'g', foreignSource: 'hold', intraPath: 'redirect',
      members: bed.members.map(({ name, host, port, mac }) => ({ name, host: `h${host + 1}`, nics: [{ port, mac, vlan: 0 }] })),
    };
    const figures = { plain: [] as number[], protected: [] as number[] };
    const lap = async (): Promise<number> => (await iperf(bed, { from: bed.member(0), to: bed.member(1), seconds: SECONDS })).gbps;
    const protect = async (): Promise<void> => {
      for (const [i, namespace] of bed.hosts.entries()) {
        const by = road === 'vlan' ? { vlan: 100 } : { vlan: 0, vxlan: { vni: 100, hosts: bed.roads() } };
        const host = new WireHost({ self: `h${i + 1}`, namespace, ...by, base: 100 });
        hosts.push(host);
        await host.protect(spec);
      }
    };
    const release = async (): Promise<void> => {
      for (let host = hosts.pop(); host !== undefined; host = hosts.pop()) await host.close();
    };
    try {
      for (let i = 0; i < LAPS; i += 1) {
        figures.plain.push(await lap());
        await protect();
        figures.protected.push(await lap());
        const at = road === 'vlan' ? 'uplink' : 'slx';
        const { frames, bytes } = hosts[1]?.stats(at).verdicts.intra ?? { frames: 0, bytes: 0 };
        expect(bytes / frames, 'bytes of a frame that came by the wire: super-frames').toBeGreaterThan(mtu * 1.5);
        expect(hosts.map((host) => host.stats(at).counts.remote + host.stats(at).verdicts.drop.frames)).toEqual([0, 0]);
        await release();
      }
    } finally {
      await release();
      await bed.close();
    }
    const [plain, tagged] = [median(figures.plain), median(figures.protected)];
    console.log(`MTU ${mtu}, by ${road}: plain bridges ${plain.toFixed(2)} Gbit/s, as a group across hosts ${tagged.toFixed(2)}: ${(tagged / plain).toFixed(3)}`);
    expect(Math.min(...figures.protected)).toBeGreaterThan(GBPS_MIN);
  });
});
