/**
 * The long run: mixed traffic at 100 epochs a second, watched for leaks, losses and growth.
 *
 *   node longrun.js [seconds]            600 unless told
 *
 * Traffic: numbered probes of both members inside and out (the oracle's), TCP inside and to the
 * outside and UDP to the outside through iperf3, all rates bounded so that nothing overflows. The
 * daemon's resident memory is sampled; the first fifth, or ten seconds, is warm-up, then the median of the last
 * third may not exceed that of the first third by more than GROWTH_MAX.
 *
 * The bed's own memory: the oracle forgets frames once they are seen.
 */
import { fileURLToPath } from 'node:url';
import { abandonOnSignal } from './bed/abandon.ts';
import { iperf, type IperfResult } from './bed/iperf.ts';
import { Metrics } from './bed/metrics.ts';
import type { OracleCount } from './bed/oracle.ts';
import { Rig } from './bed/rig.ts';
import { median } from './bed/stats.ts';

const GROWTH_MAX = 1.1;
const SAMPLE_MS = 500;
/** So long the daemon's code is compiled and its heap finds its size, at this rate; more of a run that has more. */
const WARM_UP_MS = 10_000;

export interface LongRun {
  readonly seconds: number;
  readonly epochs: number;
  readonly oracle: OracleCount;
  readonly captureMissed: number;
  readonly intra: { readonly sent: number; readonly seen: number; readonly reorders: number };
  readonly reordersOutside: number;
  readonly overflow: number;
  readonly residentMiB: { readonly first: number; readonly last: number; readonly growth: number };
  readonly tcpInsideGbps: number;
  readonly tcpOutsideGbps: number;
  readonly udpOutsideLostPercent: number;
}

export async function longRun(seconds: number, say: (line: string) => void): Promise<LongRun> {
  const rig = await Rig.create({ members: ['veth', 'veth'], addresses: true, perTick: 1, keepSeen: false });
  try {
    rig.start({ intervalMs: 10, commitDelayMs: 15 });
    const resident: number[] = [];
    const timer = setInterval(() => {
      resident.push(rig.daemon.residentBytes());
      if (resident.length % 20 === 0) say(`${rig.line(`${resident.length * SAMPLE_MS / 1000} s`)} rss ${mib(resident.at(-1) ?? 0).toFixed(1)} MiB`);
    }, SAMPLE_MS);
    let load: readonly IperfResult[];
    try {
      load = await background(rig, seconds);
    } finally {
      clearInterval(timer);
    }
    await rig.finish();
    return await report(rig, seconds, resident, load);
  } finally {
    await rig.close();
  }
}

function background({ bed }: Rig, seconds: number): Promise<IperfResult[]> {
  const common = { from: bed.member(0), seconds };
  return Promise.all([
    iperf(bed, { ...common, to: bed.member(1), tcpMbps: 400 }),
    iperf(bed, { ...common, to: bed.outsider, tcpMbps: 60 }),
    iperf(bed, { ...common, from: bed.member(1), to: bed.outsider, udpMbps: 20 }),
  ]);
}

async function report(rig: Rig, seconds: number, resident: readonly number[], load: readonly IperfResult[]): Promise<LongRun> {
  const metrics = await Metrics.read(rig.daemon.api);
  const intra = rig.traffic.flows('intra');
  const warm = resident.slice(Math.max(Math.floor(resident.length / 5), Math.floor(WARM_UP_MS / SAMPLE_MS)));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const first = median(warm.slice(0, third));
  const last = median(warm.slice(-third));
  return {
    seconds,
    epochs: rig.engine.cuts,
    oracle: rig.oracle.count(),
    captureMissed: rig.traffic.missed(),
    intra: { sent: sum(intra.map((f) => f.sent - f.unsent)), seen: sum(intra.map((f) => f.seen)), reorders: sum(intra.map((f) => f.reorders)) },
    reordersOutside: sum(rig.traffic.flows('external').map((f) => f.reorders)),
    overflow: metrics.sum('sluice_overflow_frames_total'),
    residentMiB: { first: mib(first), last: mib(last), growth: last / first },
    tcpInsideGbps: load[0]?.gbps ?? 0,
    tcpOutsideGbps: load[1]?.gbps ?? 0,
    udpOutsideLostPercent: load[2]?.lostPercent ?? 0,
  };
}

/** What the run must show; each failure is a sentence. */
export function faults(run: LongRun): string[] {
  const all: [boolean, string][] = [
    [run.oracle.leaked > 0, `${run.oracle.leaked} frames leaked`],
    [run.oracle.strays > 0, `${run.oracle.strays} frames for a member were seen outside`],
    [run.captureMissed > 0, `the capture missed ${run.captureMissed} frames: the oracle was blind`],
    [run.overflow === 0 && run.oracle.lost > 0, `${run.oracle.lost} frames lost without overflow`],
    [run.overflow === 0 && run.intra.seen !== run.intra.sent, `${run.intra.sent - run.intra.seen} frames inside the group lost`],
    [run.overflow > 0, `${run.overflow} frames overflowed at a bounded rate`],
    [run.intra.reorders + run.reordersOutside > 0, `${run.intra.reorders + run.reordersOutside} frames reordered`],
    [!(run.residentMiB.growth <= GROWTH_MAX), `memory grew ${run.residentMiB.growth.toFixed(2)} times`],
    [run.epochs < run.seconds * 80, `only ${run.epochs} epochs in ${run.seconds} s`],
    [run.tcpInsideGbps < 0.1 || run.tcpOutsideGbps < 0.01, 'TCP hardly flowed'],
  ];
  return all.filter(([wrong]) => wrong).map(([, sentence]) => sentence);
}

const mib = (bytes: number): number => bytes / (1 << 20);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

async function main(): Promise<void> {
  abandonOnSignal();
  const run = await longRun(Number(process.argv[2] ?? 600), (line) => console.log(line));
  console.log(JSON.stringify(run, undefined, 1));
  const wrong = faults(run);
  for (const sentence of wrong) console.error(`wrong: ${sentence}`);
  if (wrong.length === 0) console.log('long run: nothing leaked, nothing lost, memory flat');
  process.exitCode = wrong.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
