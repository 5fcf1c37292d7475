/**
 * The demonstration: what Sluice does, on real traffic, in under 90 seconds.
 *
 *   two beds        plain bridge │ bridge with sluiced, two members, an outsider (namespaces)
 *   all along       the ticker engine cuts and commits; numbered probes inside and out; the outside
 *                   oracle compares what the outsider captures with the commits' times
 *   stages          TCP inside beside the plain bridge · UDP inside · TCP and UDP to the outside ·
 *                   echo from outside · SIGKILL of the daemon under traffic, and its restart
 *
 * Prints a table; writes out/demo.json. Exit 1 where anything leaked. Leaves nothing behind.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Listr } from 'listr2';
import { Refused, SluiceClient } from '../checkpoint-hooks/client.ts';
import { Ticker, type TickerSummary } from '../checkpoint-hooks/engines/ticker.ts';
import { abandonOnSignal } from './bed/abandon.ts';
import { Bed } from './bed/bed.ts';
import { repositoryRoot } from './bed/daemon.ts';
import { echo } from './bed/echo.ts';
import { iperf } from './bed/iperf.ts';
import { nowUs } from './bed/libc.ts';
import { Metrics } from './bed/metrics.ts';
import { Rig } from './bed/rig.ts';
import { roadOf, shares, streamed, type Pace } from './scenarios/beside.ts';
import { median, quantile } from './bed/stats.ts';

const INTERVAL_MS = 10;
const COMMIT_DELAY_MS = 5;
const RUNS = 3;
/** How often the outside is looked at while no probes are sent. */
const EYES_MS = 5;
const PACE: Pace = { beginMs: 1000, windowMs: 250, windows: 8 };
const DEAD_MS = 500;

/** The ticker engine, with the oracle told of each command's begin and answer. */
class Ticking {
  readonly #abort = new AbortController();
  readonly #run: Promise<TickerSummary>;
  failure: Error | undefined;

  constructor(rig: Rig) {
    const client = new SluiceClient({ socket: rig.daemon.socket });
    const ticker = new Ticker(toldClient(client, rig), {
      group: rig.engine.group, intervalMs: INTERVAL_MS, commitDelayMs: COMMIT_DELAY_MS, onOutput: false,
      epochs: undefined, dropEvery: 0, follow: false, unreachableMaxMs: 20_000,
    });
    this.#run = ticker.run(this.#abort.signal);
    this.#run.catch((error: unknown) => {
      this.failure = error instanceof Error ? error : new Error(String(error));
    });
  }

  stop(): Promise<TickerSummary> {
    this.#abort.abort();
    return this.#run;
  }
}

function toldClient(client: SluiceClient, rig: Rig): ConstructorParameters<typeof Ticker>[0] {
  const { oracle } = rig;
  return {
    group: async (group) => {
      const view = await client.group(group);
      oracle.opened(view.open);
      return view;
    },
    cut: (group, body) => answered(oracle.begin('cut', body.epoch, nowUs()), () => client.cut(group, body)),
    commit: (group, body) => answered(oracle.begin('commit', body.epoch, nowUs()), () => client.commit(group, body)),
    ack: (group, body) => client.ack(group, body),
    events: (options) => client.events(options),
  };
}

/** Tells the oracle the answer; silence (a dead daemon) is told by not telling. */
async function answered<T>(tell: (accepted: boolean) => void, call: () => Promise<T>): Promise<T> {
  try {
    const reply = await call();
    tell(true);
    return reply;
  } catch (error) {
    if (error instanceof Refused) tell(false);
    throw error;
  }
}

interface Counters {
  readonly held: number;
  readonly released: number;
  readonly refused: number;
}

async function counters(rig: Rig): Promise<Counters> {
  const metrics = await Metrics.read(rig.daemon.api);
  return {
    held: metrics.sum('sluice_arrived_frames_total'),
    released: metrics.sum('sluice_released_frames_total'),
    refused: metrics.sum('sluice_release_refused_frames_total'),
  };
}

/** What the stages fill in, one after the other. */
interface Demo {
  plain: Bed;
  rig: Rig;
  ticking: Ticking;
  inside: { readonly intraGbps: number; readonly bridgeGbps: number; readonly ratio: number };
  readonly holdMs: number[];
  readonly echoPlainMs: number[];
  readonly echoMs: number[];
  udpInsideLostPercent: number;
  tcpOutsideGbps: number;
  udpOutsideLostPercent: number;
  beforeKill: Counters;
  killedLeaked: number;
  killedSeen: number;
  deadSeen: number;
}

async function tcpInside(demo: Demo, say: (text: string) => void): Promise<void> {
  say('both at once, so that the machine is the same for both');
  const { bed, traffic } = demo.rig;
  traffic.stop(); // sent into one bed only, they would take of its streams' time what the other's keep
  const eyes = setInterval(() => traffic.drain(), EYES_MS);
  const runs: [number, number][][] = []; // a pair of streams sometimes stays uneven until it ends
  try {
    for (let run = 0; run < RUNS; run++) runs.push(await streamed({ gated: roadOf(bed), plain: roadOf(demo.plain), load: {} }, false, PACE));
  } finally {
    clearInterval(eyes);
    traffic.run();
  }
  const bytes = (which: 0 | 1): number => median(runs.map((counts) => (counts.at(-1)?.[which] ?? NaN) - (counts[0]?.[which] ?? NaN)));
  const gbps = (which: 0 | 1): number => (bytes(which) * 8) / (PACE.windows * PACE.windowMs) / 1e6;
  demo.inside = { intraGbps: gbps(0), bridgeGbps: gbps(1), ratio: median(runs.flatMap(shares)) };
  say(`plain bridge ${demo.inside.bridgeGbps.toFixed(1)} Gbit/s, with Sluice ${demo.inside.intraGbps.toFixed(1)} in the same seconds`);
}

async function udpAndOutside(demo: Demo, say: (text: string) => void): Promise<void> {
  const { bed } = demo.rig;
  const [from, to] = [bed.member(0), bed.member(1)];
  demo.udpInsideLostPercent = (await iperf(bed, { from, to, seconds: 1, udpMbps: 200 })).lostPercent;
  say(`UDP inside: ${demo.udpInsideLostPercent.toFixed(2)} % lost`);
  demo.udpOutsideLostPercent = (await iperf(bed, { from, to: bed.outsider, seconds: 2, udpMbps: 50 })).lostPercent;
  say(`UDP to the outside: ${demo.udpOutsideLostPercent.toFixed(2)} % lost`);
  demo.tcpOutsideGbps = (await iperf(bed, { from, to: bed.outsider, seconds: 2 })).gbps;
  say(`TCP to the outside: ${demo.tcpOutsideGbps.toFixed(2)} Gbit/s`);
}

async function echoes(demo: Demo, say: (text: string) => void): Promise<void> {
  const options = { count: 40, spacingMs: 3, timeoutMs: 1000 };
  for (const [bed, list] of [[demo.plain, demo.echoPlainMs], [demo.rig.bed, demo.echoMs]] as const) {
    const { roundTripMs, lost } = await echo(bed, bed.member(1), options);
    if (lost > 0) throw new Error(`${lost} of ${options.count} echo requests had no reply`);
    list.push(...roundTripMs);
  }
  say(`round trip ${median(demo.echoPlainMs).toFixed(2)} ms on the plain bridge, ${median(demo.echoMs).toFixed(2)} ms with Sluice`);
}

/** SIGKILL under traffic: what was held is lost, nothing leaks; a restart goes on from the journal. */
async function killDaemon(demo: Demo, say: (text: string) => void): Promise<void> {
  const { rig } = demo;
  demo.beforeKill = await counters(rig);
  rig.traffic.onUnderWay = undefined; // hold times are those of undisturbed operation
  const before = rig.leaked();
  await rig.daemon.kill();
  await rig.pause(20);
  rig.traffic.drain();
  const dead = rig.oracle.count().seen;
  await rig.pause(DEAD_MS);
  rig.traffic.drain();
  demo.deadSeen = rig.oracle.count().seen - dead;
  say(`dead for ${DEAD_MS} ms: ${demo.deadSeen} frames came out`);
  await rig.daemon.start();
  const back = rig.oracle.count().seen;
  await rig.pause(400);
  rig.traffic.drain();
  demo.killedSeen = rig.oracle.count().seen - back;
  demo.killedLeaked = rig.leaked() - before;
  if (demo.killedSeen === 0) throw new Error(`nothing comes out after the restart\n${rig.daemon.log()}`);
}

interface Outcome {
  readonly json: Record<string, unknown> & { readonly leaked: number; readonly daemonKilledLeaked: number };
  readonly rows: readonly (readonly [string, string])[];
}

async function finish(demo: Demo): Promise<Outcome> {
  const { rig } = demo;
  rig.traffic.stop();
  const ticker = await demo.ticking.stop();
  await rig.engine.stop();
  await rig.restartEngine();
  await rig.finish();
  const after = await counters(rig);
  const held = demo.beforeKill.held + after.held;
  const released = demo.beforeKill.released + after.released;
  if (rig.traffic.missed() > 0) throw new Error('the capture missed frames: the oracle was blind');
  const count = rig.oracle.count();
  const { bridgeGbps, intraGbps, ratio } = demo.inside;
  const holdMs = { p50: round(median(demo.holdMs)), p99: round(quantile(demo.holdMs, 0.99)) };
  const json = {
    bridgeGbps: round(bridgeGbps), intraGbps: round(intraGbps), intraRatio: round(ratio),
    epochs: ticker.epochs, held, released, leaked: rig.leaked() + after.refused + demo.beforeKill.refused, holdMs,
    daemonKilledLeaked: demo.killedLeaked, probes: count, daemonDeadSeen: demo.deadSeen,
    tcpOutsideGbps: round(demo.tcpOutsideGbps), udpInsideLostPercent: demo.udpInsideLostPercent,
    udpOutsideLostPercent: demo.udpOutsideLostPercent,
    echoMs: { plain: round(median(demo.echoPlainMs)), held: round(median(demo.echoMs)) },
  };
  const rows = [
    ['TCP between members, plain bridge', `${json.bridgeGbps} Gbit/s (both at once, on the same two cores)`],
    ['TCP between members, Sluice', `${json.intraGbps} Gbit/s (${json.intraRatio} of the bridge, median of ${RUNS * PACE.windows} windows)`],
    ['TCP to the outside, held', `${json.tcpOutsideGbps} Gbit/s (bound by window / hold time)`],
    ['echo from outside', `${json.echoMs.held} ms (plain bridge ${json.echoMs.plain} ms)`],
    ['epochs', `${json.epochs}, one each ${INTERVAL_MS} ms, committed ${COMMIT_DELAY_MS} ms later`],
    ['hold time of probes', `p50 ${holdMs.p50} ms, p99 ${holdMs.p99} ms`],
    ['frames held', String(held)],
    ['frames released', String(released)],
    ['probes judged by the outside oracle', `${count.seen} of ${count.sent}, ${count.lost} lost with the killed daemon`],
    ['leaked', String(json.leaked)],
    ['leaked while and after the daemon was killed', `${json.daemonKilledLeaked} (came out while it was dead: ${demo.deadSeen})`],
  ] as const;
  return { json, rows };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function runStages(demo: Demo): Promise<unknown> {
  const stage = (title: string, job: (demo: Demo, say: (text: string) => void) => Promise<void>) => ({
    title,
    task: async (_: unknown, task: { output: string; title: string }): Promise<void> => {
      await job(demo, (text) => (task.output = text));
      if (demo.ticking.failure !== undefined) throw demo.ticking.failure;
    },
  });
  return new Listr([
    stage('TCP between the members, beside the plain bridge', tcpInside),
    stage('UDP between the members, UDP and TCP to the outside', udpAndOutside),
    stage('echo from the outside: the hold time as a client feels it', echoes),
    stage('SIGKILL of the daemon under traffic, and its restart', killDaemon),
  ], { renderer: process.stdout.isTTY ? 'default' : 'simple', rendererOptions: { collapseSubtasks: false } }).run();
}

async function play(plain: Bed, rig: Rig): Promise<Outcome> {
  const demo: Demo = {
    plain, rig, ticking: new Ticking(rig), inside: { intraGbps: NaN, bridgeGbps: NaN, ratio: NaN }, holdMs: [], echoPlainMs: [], echoMs: [],
    udpInsideLostPercent: Number.NaN, tcpOutsideGbps: Number.NaN, udpOutsideLostPercent: Number.NaN,
    beforeKill: { held: 0, released: 0, refused: 0 }, killedLeaked: Number.NaN, killedSeen: 0, deadSeen: Number.NaN,
  };
  rig.traffic.onUnderWay = (us) => demo.holdMs.push(us / 1e3);
  rig.traffic.run();
  try {
    await runStages(demo);
    return await finish(demo);
  } finally {
    await demo.ticking.stop().catch(() => undefined);
  }
}

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('the demonstration needs root: it builds namespaces and loads kernel programs; sudo make demo');
  console.log('building two beds: a plain bridge, and one with sluiced and a protected group of two');
  const open: (Bed | Rig)[] = [];
  const close = async (): Promise<void> => {
    for (const each of open.splice(0)) await each.close();
  };
  abandonOnSignal();
  try {
    const plain = await Bed.create({ members: ['veth', 'veth'] });
    open.push(plain);
    const rig = await Rig.create({ members: ['veth', 'veth'], addresses: true, perTick: 1 });
    open.push(rig);
    const { json, rows } = await play(plain, rig);
    const out = join(repositoryRoot(), 'out');
    mkdirSync(out, { recursive: true });
    writeFileSync(join(out, 'demo.json'), `${JSON.stringify(json)}\n`);
    const width = Math.max(...rows.map(([name]) => name.length));
    console.log(`\n${rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n')}\n\n  out/demo.json`);
    if (json.leaked > 0 || json.daemonKilledLeaked > 0) process.exitCode = 1;
  } finally {
    await close();
  }
}

await main().catch((error: unknown) => {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
