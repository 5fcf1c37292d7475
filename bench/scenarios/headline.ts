/**
 * What protecting a group as one is for: services and jobs whose parts talk to each other, at equal
 * epochs (25 ms, commit 5 ms after the cut), under
 *
 *   plain     no protection
 *   per-VM    each member its own group: every hop waits for its sender's commit (Remus-style)
 *   group     all members one group: hops inside pass, only the answer to the client waits
 *
 * Of a chain two times are kept: inside (the front tier's own, from the request read to the answer
 * written) and outside (the client's). The outside one has one commit in it under `group` too: that
 * is what output commit means; the gain there grows with the hops a request makes.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chain } from '../bed/chain.ts';
import { mpiRun, needsMpi } from '../bed/mpi.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Context, Demand, Lap, Reading, Scenario } from '../scenario.ts';
import type { Bed } from '../bed/bed.ts';
import { Worlds, epochs, type World } from '../worlds.ts';

const EPOCH_MS = 25;
const VARIANTS = [{ name: 'plain' }, { name: 'per-VM' }, { name: 'group' }];
const worldOf = (variant: string): World =>
  variant === 'plain' ? { protect: 'none' } : { protect: variant === 'group' ? 'group' : 'per-VM', cadence: epochs(EPOCH_MS) };

type Row = Omit<Scenario, 'section' | 'variants' | 'open'>;
type Job = (bed: Bed, lap: Lap, context: Context) => Promise<Reading>;

function headlineOf(row: Row, members: number, job: Job, needs: () => void = () => undefined): Scenario {
  return {
    ...row, section: 'headline', variants: VARIANTS,
    open: (context) => {
      needs();
      const worlds = new Worlds({ bed: { members: new Array<'veth'>(members).fill('veth') } });
      return Promise.resolve({
        lap: (lap) => worlds.run(worldOf(lap.variant), (bed) => job(bed, lap, context)),
        close: () => worlds.close(),
      });
    },
  };
}

const faster = (floor: number, target = floor): readonly Demand[] => [
  { variant: 'group', by: 'speed-up', against: 'per-VM', floor, target },
  { variant: 'group', by: 'ratio' },
];

const CHAIN_NOTE = 'Chains have two readings. Inside the group is the time from the front tier\'s reading of the request to its writing of the answer: what hops between members cost. '
  + 'At the client outside is the whole request: its answer leaves the group and waits for one commit under either scheme (half an interval and the commit\'s delay, some 18 to 25 ms), '
  + 'so the gain there is the number of held hops against one, and grows with the hops a request makes.';

const tiers = (members: number, queries: number, floors: { inside: number; outside: number }, quick = false): Scenario => {
  const name = `${members}-tier chain${queries === 1 ? '' : `, ${queries} queries a request`}`;
  return headlineOf({
    name, quick, ...(quick ? {} : { lapsMax: 2 }), note: CHAIN_NOTE,
    topology: `${members} members on one bridge, a server program each; the client is outside`,
    arguments: `one request at a time, random pauses up to 25 ms; the last-but-one tier asks the store ${queries === 1 ? 'once' : `${queries} times, one after the other`}; epochs of 25 ms, commit 5 ms after the cut`,
    quantities: [
      { key: 'inside', name: `${name}, inside the group, p50`, unit: 'ms', lowerIsBetter: true, demands: faster(floors.inside) },
      { key: 'outside', name: `${name}, at the client outside, p50`, unit: 'ms', lowerIsBetter: true, demands: faster(floors.outside) },
      { key: 'outside99', name: `${name}, at the client outside, p99`, unit: 'ms', lowerIsBetter: true },
    ],
  }, members, async (bed, lap, context) => {
    const { insideUs, outsideUs, raw } = await chain(bed, { queries, seconds: lap.seconds, pauseMs: EPOCH_MS });
    context.raw(lap, 'chain.json', raw);
    return { values: { inside: median(insideUs) / 1e3, outside: median(outsideUs) / 1e3, outside99: quantile(outsideUs, 0.99) / 1e3 } };
  });
};

/** In a directory of the job's own, that goes with it. */
async function inDirectory<T>(job: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'sl-mpi-'));
  try {
    return await job(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const NETPIPE = 'MPI latency (NetPIPE)';
const netpipe = headlineOf({
  name: NETPIPE, quick: true, warmUpLap: false,
  topology: 'two members, one rank each, Open MPI over TCP',
  arguments: 'NPopenmpi, messages of 1 to 4 bytes, half a round trip; 200 rounds a size (per-VM: 10); epochs of 25 ms, commit 5 ms after the cut',
  quantities: [{ key: 'latency', name: NETPIPE, unit: 'us', lowerIsBetter: true, demands: faster(10) }],
}, 2, (bed, lap, context) => inDirectory(async (directory) => {
  const rounds = lap.variant === 'per-VM' ? 10 : 200;
  const said = await mpiRun(bed, directory, ['NPopenmpi', '-l', '1', '-u', '4', '-p', '0', '-n', String(rounds), '-o', 'np.out'], 60);
  const table = readFileSync(join(directory, 'np.out'), 'utf8');
  context.raw(lap, 'netpipe.txt', `${said}\n${table}`);
  const seconds = table.trim().split('\n').map((line) => Number(line.trim().split(/\s+/)[2]));
  return { values: { latency: median(seconds) * 1e6 } };
}), () => needsMpi('NPopenmpi', 'netpipe-openmpi'));

const HPCC = 'MPI job (HPCC)';
/** HPCC's own example input, small: the whole suite runs, its b_eff part is what is read. */
const hpccInput = (): string =>
  readFileSync('/usr/share/doc/hpcc/examples/_hpccinf.txt', 'utf8').replace(/^1000 +Ns/m, '200 Ns').replace(/^2 +Ps/m, '1 Ps');
const hpcc = headlineOf({
  name: HPCC, warmUpLap: false, lapsMax: 1,
  topology: 'two members, one rank each, Open MPI over TCP',
  arguments: 'hpcc, whole suite, N = 200; latency and bandwidth of its b_eff part; epochs of 25 ms, commit 5 ms after the cut',
  quantities: [
    { key: 'pingPong', name: `${HPCC}: ping-pong latency, avg`, unit: 'ms', lowerIsBetter: true, demands: faster(10) },
    { key: 'ring', name: `${HPCC}: random ring latency`, unit: 'ms', lowerIsBetter: true, demands: faster(10) },
    { key: 'bandwidth', name: `${HPCC}: ping-pong bandwidth, avg`, unit: 'GB/s' },
    { key: 'seconds', name: `${HPCC}: whole job`, unit: 's', lowerIsBetter: true },
  ],
}, 2, (bed, lap, context) => inDirectory(async (directory) => {
  writeFileSync(join(directory, 'hpccinf.txt'), hpccInput());
  const beganMs = performance.now();
  await mpiRun(bed, directory, ['hpcc'], 240);
  const seconds = (performance.now() - beganMs) / 1e3;
  const report = readFileSync(join(directory, 'hpccoutf.txt'), 'utf8');
  context.raw(lap, 'hpccoutf.txt', report);
  const of = (key: string): number => Number(new RegExp(`^${key}=(.*)$`, 'm').exec(report)?.[1] ?? Number.NaN);
  return {
    values: {
      pingPong: of('AvgPingPongLatency_usec') / 1e3, ring: of('RandomlyOrderedRingLatency_usec') / 1e3,
      bandwidth: of('AvgPingPongBandwidth_GBytes'), seconds,
    },
  };
}), () => needsMpi('hpcc', 'hpcc'));

export const headline: readonly Scenario[] = [
  tiers(2, 1, { inside: 10, outside: 1 }),
  tiers(3, 1, { inside: 10, outside: 1.5 }, true),
  tiers(4, 1, { inside: 10, outside: 1.5 }),
  tiers(6, 1, { inside: 10, outside: 1.5 }),
  tiers(3, 10, { inside: 10, outside: 10 }),
  netpipe,
  hpcc,
];
