/**
 * Quick speed figures: ratios to the plain Linux bridge in the same run, and two latencies.
 *
 *   round r:   plain run, gated run, plain run, gated run …        medians over ROUNDS rounds
 *
 * Two beds stand side by side, one plain, one with sluiced; runs alternate between them, so that a
 * busy neighbour or a warm CPU touches both. TCP ends are pinned to a core each, cubic; with two
 * cores the hold worker shares them, as it does in the prototype's figures that are the floors.
 *
 * Held TCP is bound by the sender's window over the round trip: tcp_wmem's 4 MB give 6.4 Gbit/s
 * at 5 ms, whatever the hold loop does. So the TCP ends of both beds get WINDOW_MB, and one figure
 * is taken with the system's own window beside it. The first second of a TCP run is left out: slow
 * start takes longer over a longer round trip.
 *
 * Latencies are of commands as bytes on the socket, warm, with pauses as an engine makes them. The
 * figure beside them is /healthz by the same client with the same pauses: what the machine and
 * Node's HTTP server take for nothing.
 *
 * Prints a table, writes out/quick.json (with every sample) and out/bench.json (API.md). Exit 1
 * where a figure misses its floor by more than the room for noise.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Bed } from './bed/bed.ts';
import { runIn, sleep } from './bed/commands.ts';
import { repositoryRoot } from './bed/daemon.ts';
import { Engine, type Cadence } from './bed/engine.ts';
import { floodRate } from './bed/flood.ts';
import { tcpGbps } from './bed/iperf.ts';
import { parseProbe, probeFlow } from './bed/probe.ts';
import { median } from './bed/stats.ts';
import { WireClient, type Timed } from './bed/wire.ts';

/** Cut and committed all the time: a frame waits for the ring's block timer and the next call. */
const AT_ONCE: Cadence = { intervalMs: 1, commitDelayMs: 0 };
/** What an engine with VMs does; the ticker's own default. */
const USUAL: Cadence = { intervalMs: 25, commitDelayMs: 5 };
const WINDOW_MB = 32;
const WARM_UP_CALLS = 2000;
/** A frame's block is retired within its 1 ms timer: commit comes later, as in life. */
const PAUSE_MS = 4;
/** A committed frame that is not outside after this long is lost: a stalled machine delays, it does not lose. */
const RELEASE_MS_MAX = 2000;
const FIVE_MS: Cadence = { intervalMs: 5, commitDelayMs: 0 };
const LATENCY_SAMPLES = 200;
/** Room for noise before a miss is a failure. */
const ROOM = 0.85;

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  /** In the same run: the plain bridge; for a latency, /healthz. */
  readonly baseline: number | null;
  readonly ratio: number | null;
  /** Least ratio; for a latency (`lowerIsBetter`) the most it may be, in its unit. */
  readonly floor: number;
  readonly lowerIsBetter: boolean;
  readonly samples: readonly number[];
  readonly baselineSamples: readonly number[];
}

export const meets = (figure: Figure, room = 1): boolean =>
  figure.lowerIsBetter ? figure.value <= figure.floor / room : (figure.ratio ?? 0) >= figure.floor * room;

export interface QuickOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly say: (line: string) => void;
}

interface Pair {
  readonly plain: Bed;
  readonly gated: Bed;
  readonly engine: Engine;
  readonly socket: string;
}

interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly floor: number;
  /** undefined = protected, and no command comes during the run. */
  readonly cadence: Cadence | undefined;
  readonly windowMb: number;
  run(bed: Bed, seconds: number): Promise<number>;
}

const outward = (bed: Bed, seconds: number): Promise<number> =>
  tcpGbps(bed, { from: bed.member(0), to: bed.outsider, seconds, warmUpSeconds: 1 });
const inward = (bed: Bed, seconds: number): Promise<number> =>
  tcpGbps(bed, { from: bed.member(0), to: bed.member(1), seconds, warmUpSeconds: 1 });

const MEASURES: readonly Measure[] = [
  { name: 'intra-group TCP', unit: 'Gbit/s', floor: 0.97, cadence: undefined, windowMb: 4, run: inward },
  { name: 'intra-group TCP, 25 ms engine on the same cores', unit: 'Gbit/s', floor: 0.6, cadence: USUAL, windowMb: 4, run: inward },
  { name: 'held TCP, committed at once', unit: 'Gbit/s', floor: 0.5, cadence: AT_ONCE, windowMb: WINDOW_MB, run: outward },
  { name: 'held TCP, 5 ms epochs', unit: 'Gbit/s', floor: 0.3, cadence: FIVE_MS, windowMb: WINDOW_MB, run: outward },
  { name: 'held TCP, 5 ms epochs, 4 MB window', unit: 'Gbit/s', floor: 0.1, cadence: FIVE_MS, windowMb: 4, run: outward },
  {
    name: 'held 60-byte frames', unit: 'kframes/s', floor: 0.65, cadence: AT_ONCE, windowMb: 4,
    run: async (bed, seconds) => (await floodRate(bed, bed.member(0), seconds, 0)).received / 1e3,
  },
];

export async function quick(options: QuickOptions): Promise<Figure[]> {
  const plain = await Bed.create({ members: ['veth', 'veth'] });
  try {
    const gated = await Bed.create({ members: ['veth', 'veth'] });
    try {
      const daemon = gated.daemon();
      await daemon.start('live');
      const engine = new Engine(daemon.api, 'quick');
      await engine.protect(gated.groupFile('quick'));
      const pair = { plain, gated, engine, socket: daemon.socket };
      const figures: Figure[] = [];
      for (const measure of MEASURES) figures.push(await ratio(pair, measure, options));
      figures.push(...(await latencies(pair, options)));
      return figures;
    } finally {
      await gated.close();
    }
  } finally {
    await plain.close();
  }
}

async function ratio({ plain, gated, engine }: Pair, measure: Measure, options: QuickOptions): Promise<Figure> {
  const samples: number[] = [];
  const baselineSamples: number[] = [];
  await Promise.all([plain, gated].map((bed) => window(bed, measure.windowMb)));
  for (let round = 0; round < options.rounds; round++) {
    baselineSamples.push(await measure.run(plain, options.seconds));
    if (measure.cadence !== undefined) engine.run(measure.cadence);
    samples.push(await measure.run(gated, options.seconds));
    await engine.stop(true);
    if (engine.failure !== undefined) throw engine.failure;
    options.say(`${measure.name}: plain ${baselineSamples.at(-1)?.toFixed(2)}, sluice ${samples.at(-1)?.toFixed(2)} ${measure.unit}`);
  }
  const value = median(samples);
  const baseline = median(baselineSamples);
  return {
    name: measure.name, unit: measure.unit, value, baseline, ratio: value / baseline,
    floor: measure.floor, lowerIsBetter: false, samples, baselineSamples,
  };
}

/** Largest TCP window of all ends of a bed. */
async function window(bed: Bed, megabytes: number): Promise<void> {
  const most = megabytes * 1024 * 1024;
  for (const { namespace } of [bed.member(0), bed.member(1), bed.outsider]) {
    if (namespace === undefined) continue;
    await runIn(namespace, 'sysctl', ['-qw', `net.ipv4.tcp_wmem=4096 16384 ${most}`, `net.ipv4.tcp_rmem=4096 131072 ${most}`]);
  }
}

/** Group cut as an engine feels it, and the begin of a commit call to its first frame outside. */
async function latencies({ gated, engine, socket }: Pair, options: QuickOptions): Promise<Figure[]> {
  const client = await WireClient.open(socket);
  const eye = gated.outside();
  try {
    const command = async (verb: string): Promise<Timed> => {
      const call = await client.call('POST', `/v1/groups/${engine.group}/${verb}`, { generation: engine.generation, epoch: engine.open });
      if (call.status !== 200) throw new Error(`${verb}: ${call.body}`);
      return call;
    };
    const epoch = async (between: () => Promise<void>): Promise<{ cut: Timed; commit: Timed }> => {
      const cut = await command('cut');
      await between();
      const commit = await command('commit');
      engine.open += 1;
      return { cut, commit };
    };
    for (let i = 0; i < WARM_UP_CALLS; i++) await epoch(() => Promise.resolve());
    const frame = probeFlow(gated.member(0).address, gated.outsider.address, 7);
    const nothing: number[] = [];
    const cuts: number[] = [];
    const wire: number[] = [];
    for (let seq = 0; seq < LATENCY_SAMPLES; seq++) {
      nothing.push((await client.call('GET', '/healthz')).us / 1e3);
      gated.end(0).send(frame(seq));
      await sleep(PAUSE_MS);
      const { cut, commit } = await epoch(async () => {
        await sleep(PAUSE_MS);
        eye.drain(() => undefined);
      });
      cuts.push(cut.us / 1e3);
      await sleep(PAUSE_MS);
      wire.push(((await firstSeen(eye, seq)) - commit.beginUs) / 1e3);
    }
    const figures = [latency('group cut through REST, p50', cuts, nothing), latency('commit call to first frame on the wire, p50', wire, nothing)];
    for (const { name, value, baseline } of figures) options.say(`${name}: ${value.toFixed(3)} ms (/healthz ${(baseline ?? 0).toFixed(3)} ms)`);
    return figures;
  } finally {
    client.close();
  }
}

/** When a probe was first seen outside, in microseconds. @throws when it did not come out within {@link RELEASE_MS_MAX}. */
async function firstSeen(eye: ReturnType<Bed['outside']>, seq: number): Promise<number> {
  const deadline = performance.now() + RELEASE_MS_MAX;
  for (;;) {
    let firstUs: number | undefined;
    eye.drain((bytes, atUs) => {
      if (parseProbe(bytes)?.seq === seq) firstUs ??= atUs;
    });
    if (firstUs !== undefined) return firstUs;
    if (performance.now() > deadline) throw new Error(`frame ${seq} did not come out within ${RELEASE_MS_MAX} ms of its commit`);
    await sleep(PAUSE_MS);
  }
}

function latency(name: string, samples: readonly number[], nothing: readonly number[]): Figure {
  const [value, baseline] = [median([...samples]), median([...nothing])];
  return { name, unit: 'ms', value, baseline, ratio: value / baseline, floor: 0.5, lowerIsBetter: true, samples, baselineSamples: nothing };
}

export function table(figures: readonly Figure[]): string {
  const head = ['figure', 'sluice', 'beside it', 'ratio', 'floor', ''];
  const rows = figures.map((figure) => [
    figure.name,
    `${figure.value.toFixed(figure.lowerIsBetter ? 3 : 2)} ${figure.unit}`,
    figure.baseline === null ? '-' : `${figure.baseline.toFixed(figure.lowerIsBetter ? 3 : 2)} ${figure.unit}`,
    figure.ratio === null ? '-' : figure.ratio.toFixed(3),
    figure.lowerIsBetter ? `<= ${figure.floor} ms` : `>= ${figure.floor}`,
    meets(figure) ? 'ok' : 'MISSED',
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)));
  return [head, ...rows].map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd()).join('\n');
}

async function main(): Promise<void> {
  const figures = await quick({ rounds: 5, seconds: 1, say: (line) => console.log(line) });
  const out = join(repositoryRoot(), 'out');
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, 'quick.json'), JSON.stringify(figures, undefined, 1));
  const plain = figures.map(({ name, unit, value, baseline, ratio: share, floor }) => ({ name, unit, value, baseline, ratio: share, floor }));
  writeFileSync(join(out, 'bench.json'), JSON.stringify(plain, undefined, 1));
  console.log(`\n${table(figures)}`);
  process.exitCode = figures.every((figure) => meets(figure, ROOM)) ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
