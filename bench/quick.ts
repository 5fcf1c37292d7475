/**
 * Quick speed figures: ratios to the plain Linux bridge in the same run, and two latencies.
 *
 *   round r:   plain run, gated run, plain run, gated run …        medians over ROUNDS rounds
 *
 * Two beds stand side by side, one plain, one with sluiced; runs alternate between them, so that a
 * busy neighbour or a warm CPU touches both. TCP ends are pinned to a core each, cubic; with two
 * cores the hold worker shares them, as it does in the prototype's figures that are the floors.
 *
 * Held TCP at 5 ms epochs is bound by the sender's window over the round trip (tcp_wmem, 4 MB):
 * a larger ratio there needs a larger window, not a faster hold loop.
 *
 * Prints a table, writes out/quick.json (with every sample) and out/bench.json (API.md). Exit 1
 * where a figure misses its floor.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Bed } from './bed/bed.ts';
import { sleep } from './bed/commands.ts';
import { repositoryRoot } from './bed/daemon.ts';
import { Engine, type Cadence } from './bed/engine.ts';
import { floodRate } from './bed/flood.ts';
import { tcpGbps } from './bed/iperf.ts';
import { nowUs } from './bed/libc.ts';
import { parseProbe, probeFlow } from './bed/probe.ts';
import { median } from './bed/stats.ts';

/** Cut and committed all the time: a frame waits for the ring's block timer and the next call. */
const AT_ONCE: Cadence = { intervalMs: 1, commitDelayMs: 0 };
/** What an engine with VMs does; the ticker's own default. */
const USUAL: Cadence = { intervalMs: 25, commitDelayMs: 5 };
const FIVE_MS: Cadence = { intervalMs: 5, commitDelayMs: 0 };
const LATENCY_SAMPLES = 200;

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  /** The plain bridge in the same run, where there is one. */
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
}

interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly floor: number;
  readonly cadence: Cadence;
  run(bed: Bed, seconds: number): Promise<number>;
}

const outward = (bed: Bed, seconds: number): Promise<number> => tcpGbps(bed, { from: bed.member(0), to: bed.outsider, seconds });

const MEASURES: readonly Measure[] = [
  {
    name: 'intra-group TCP', unit: 'Gbit/s', floor: 0.97, cadence: USUAL,
    run: (bed, seconds) => tcpGbps(bed, { from: bed.member(0), to: bed.member(1), seconds }),
  },
  { name: 'held TCP, committed at once', unit: 'Gbit/s', floor: 0.5, cadence: AT_ONCE, run: outward },
  { name: 'held TCP, 5 ms epochs', unit: 'Gbit/s', floor: 0.3, cadence: FIVE_MS, run: outward },
  {
    name: 'held 60-byte frames', unit: 'kframes/s', floor: 0.65, cadence: AT_ONCE,
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
      const pair = { plain, gated, engine };
      const figures: Figure[] = [];
      for (const measure of MEASURES) figures.push(await ratio(pair, measure, options));
      figures.push(await cutLatency(pair, options), await commitToWire(pair, options));
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
  for (let round = 0; round < options.rounds; round++) {
    baselineSamples.push(await measure.run(plain, options.seconds));
    engine.run(measure.cadence);
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

const latency = (name: string, samples: readonly number[], floor: number): Figure => ({
  name, unit: 'ms', value: median(samples), baseline: null, ratio: null, floor, lowerIsBetter: true, samples, baselineSamples: [],
});

/** Group cut as an engine feels it: call to answer over the unix socket. */
async function cutLatency({ engine }: Pair, options: QuickOptions): Promise<Figure> {
  const samples: number[] = [];
  for (let i = 0; i < LATENCY_SAMPLES; i++) {
    await engine.cut();
    samples.push((engine.cutUs.at(-1) ?? 0) / 1e3);
    if (i % 8 === 7) await engine.commit();
  }
  const figure = latency('group cut through REST, p50', samples, 0.5);
  options.say(`${figure.name}: ${figure.value.toFixed(3)} ms`);
  return figure;
}

/** Begin of the commit call to the first frame of the epoch at the outsider's device. */
async function commitToWire({ gated, engine }: Pair, options: QuickOptions): Promise<Figure> {
  const eye = gated.outside();
  const sender = gated.end(0);
  const frame = probeFlow(gated.member(0).address, gated.outsider.address, 7);
  const samples: number[] = [];
  for (let seq = 0; seq < LATENCY_SAMPLES; seq++) {
    sender.send(frame(seq));
    await engine.cut();
    await sleep(4); // the ring's block retires within its 1 ms timer: commit comes later, as in life
    eye.drain(() => undefined);
    const beginUs = nowUs();
    await engine.commit(engine.open - 1, '?wait=released');
    await sleep(2);
    let firstUs: number | undefined;
    eye.drain((bytes, atUs) => {
      if (parseProbe(bytes)?.seq === seq) firstUs ??= atUs;
    });
    if (firstUs === undefined) throw new Error(`frame ${seq} did not come out after its commit`);
    samples.push((firstUs - beginUs) / 1e3);
  }
  const figure = latency('commit call to first frame on the wire, p50', samples, 0.5);
  options.say(`${figure.name}: ${figure.value.toFixed(3)} ms`);
  return figure;
}

export function table(figures: readonly Figure[]): string {
  const head = ['figure', 'sluice', 'plain bridge', 'ratio', 'floor', ''];
  const rows = figures.map((figure) => [
    figure.name,
    `${figure.value.toFixed(figure.lowerIsBetter ? 3 : 2)} ${figure.unit}`,
    figure.baseline === null ? '-' : `${figure.baseline.toFixed(2)} ${figure.unit}`,
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
  process.exitCode = figures.every((figure) => meets(figure)) ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
