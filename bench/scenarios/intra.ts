/**
 * Traffic between members of one group, beside the same bed without Sluice: what never leaves the
 * kernel must cost nothing. No command comes during these runs, but in the one that says so: with
 * two cores an engine's own CPU share would be the figure.
 */
import type { Bed } from '../bed/bed.ts';
import { floodRate } from '../bed/flood.ts';
import { iperf, type IperfRun } from '../bed/iperf.ts';
import { pingPong } from '../bed/sockperf.ts';
import type { Context, Lap, Reading, Scenario } from '../scenario.ts';
import { Worlds, epochs, type World } from '../worlds.ts';

const TOPOLOGY = 'two members (veth into namespaces) on one Linux bridge';
const VARIANTS = [{ name: 'plain' }, { name: 'group' }];
/** The portable plane beside the default one. */
const WITH_PCAP = [...VARIANTS, { name: 'pcap' }];
const worldOf = (variant: string): World => (variant === 'plain' ? { protect: 'none' } : { protect: 'group', plane: variant === 'pcap' ? 'pcap' : 'ebpf' });

type Job = (bed: Bed, lap: Lap, context: Context) => Promise<Reading>;

type Row = Omit<Scenario, 'section' | 'topology' | 'variants' | 'open'> & Partial<Pick<Scenario, 'variants'>>;

function between(row: Row, job: Job, world: (variant: string) => World = worldOf): Scenario {
  return {
    variants: VARIANTS, quickVariants: VARIANTS.map(({ name }) => name), ...row, section: 'intra-group', topology: TOPOLOGY,
    open: (context) => {
      const worlds = new Worlds({ bed: { members: ['veth', 'veth'] } });
      return Promise.resolve({
        lap: (lap) => worlds.run(world(lap.variant), (bed) => job(bed, lap, context)),
        close: () => worlds.close(),
      });
    },
  };
}

/** Both directions of a connection that the first member opened. */
const bothWays = (options: Partial<IperfRun>): Job => async (bed, lap, context) => {
  const values: Record<string, number> = {};
  for (const direction of ['forward', 'reverse'] as const) {
    const result = await iperf(bed, {
      from: bed.member(0), to: bed.member(1), seconds: lap.seconds, reverse: direction === 'reverse', ...options,
    });
    context.raw(lap, `iperf3-${direction}.json`, result.raw);
    values[direction] = result.gbps;
  }
  return { values };
};

const demand = (floor: number, target: number) => [{ variant: 'group', by: 'ratio' as const, floor, target }];

/** Rates, beside each other. What the gate costs is judged beside it (beside.ts): runs that stand seconds apart scatter from 0.4 to 2 here. */
const tcp = (streams: number, quick: boolean): Scenario => {
  const name = `intra-group TCP, ${streams} ${streams === 1 ? 'stream' : 'streams'}`;
  return between({
    name, quick, warmUpLap: false, ...(streams === 1 ? { variants: WITH_PCAP } : {}),
    arguments: `iperf3 -C cubic -P ${streams} -O 1, both directions (-R), ends pinned to a core each`,
    quantities: [
      { key: 'forward', name, unit: 'Gbit/s' },
      { key: 'reverse', name: `${name}, reverse`, unit: 'Gbit/s' },
    ],
  }, bothWays({ streams, warmUpSeconds: 1 }));
};

const roundTrip = (protocol: 'tcp' | 'udp'): Scenario => {
  const name = `intra-group ${protocol.toUpperCase()} round trip`;
  return between({
    name, quick: protocol === 'tcp', warmUpLap: false, variants: WITH_PCAP,
    arguments: `sockperf ping-pong ${protocol === 'tcp' ? '--tcp ' : ''}-m 64 --full-rtt`,
    quantities: [
      { key: 'p50', name: `${name}, p50`, unit: 'us', lowerIsBetter: true, demands: demand(1.1, 1.02) },
      { key: 'p99', name: `${name}, p99`, unit: 'us', lowerIsBetter: true },
      { key: 'p999', name: `${name}, p99.9`, unit: 'us', lowerIsBetter: true },
    ],
  }, async (bed, lap, context) => {
    const { p50Us, p99Us, p999Us, raw } = await pingPong({ from: bed.member(0), to: bed.member(1), protocol, seconds: lap.seconds });
    context.raw(lap, 'sockperf.txt', raw);
    return { values: { p50: p50Us, p99: p99Us, p999: p999Us } };
  });
};

const SMALL = 'intra-group 60-byte frames';
const BUSY = 'intra-group TCP, 25 ms engine on the same cores';

export const intra: readonly Scenario[] = [
  tcp(1, true),
  tcp(4, false),
  between({
    name: SMALL, quick: true, variants: WITH_PCAP,
    arguments: 'a flood from a packet socket (sendmmsg of 64, one core); frames that arrive at the other member',
    quantities: [{ key: 'kframes', name: SMALL, unit: 'kframes/s', demands: demand(0.9, 1) }],
  }, async (bed, lap, context) => {
    const rate = await floodRate(bed.member(0), bed.member(1), lap.seconds, 0);
    context.raw(lap, 'flood.json', JSON.stringify(rate));
    return { values: { kframes: rate.received / 1e3 } };
  }),
  roundTrip('tcp'),
  roundTrip('udp'),
  between({
    name: BUSY, quick: true, warmUpLap: false,
    arguments: 'iperf3 -C cubic -O 1, while the group is cut and committed every 25 ms by an engine on the same two cores',
    quantities: [{ key: 'gbps', name: BUSY, unit: 'Gbit/s', demands: demand(0.6, 1) }],
  }, async (bed, lap, context) => {
    const result = await iperf(bed, { from: bed.member(0), to: bed.member(1), seconds: lap.seconds, warmUpSeconds: 1 });
    context.raw(lap, 'iperf3.json', result.raw);
    return { values: { gbps: result.gbps } };
  }, (variant) => (variant === 'plain' ? { protect: 'none' } : { protect: 'group', cadence: epochs(25) })),
];
