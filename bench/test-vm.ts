/**
 * The long series on real VMs (`make test-vm`), some ten minutes; `make test` has a short one.
 *
 *   controls     failovers done wrong on purpose: each must stop the client; the same done right must not
 *   failovers    RUNS in a row, every moment, groups of two and three, with the outside oracle
 *   intra        traffic inside the group, measured in the guests, plain and under protection
 *   between      the same under the QEMU engine, in the stretches between its checkpoints
 *   reprotect    bytes moved and the group's stop: first protection, one of three changed, one's image lost
 *
 *   noreplay     the failovers again, and what outsiders had sent since the checkpoint is not given to the new sides (D28)
 *   again        the failovers again with commits that lag (a far backup), so that some of what is safe is
 *                still held at the death; what the takeover lets out of the dead life is counted
 *   noagain      the same, and it is dropped before the client
 *   neither      noagain and noreplay at once
 *   bare         failovers without oracle and relay, whose work is in no figure then; three moments
 *
 *   test-vm.js [SEED] [PART…] [FROM-TO]    the seed is printed; a part is one of the names above,
 *                                          the last five only where they are named; FROM-TO picks runs of the failovers, from 1
 *
 * Writes out/test-vm.json and prints a line each. Exit 1 where one failover had a fault or one
 * control did not show what it must; misses of targets are printed, and are no failure here.
 */
import { abandonOnSignal } from './bed/abandon.ts';
import { VmBed } from './vm/bed.ts';
import { CONTROLS, control, controlFault } from './vm/controls.ts';
import { MOMENTS, failover, faults, type Failover, type Moment } from './vm/failover.ts';
import { betweenCheckpoints, intraTraffic, type Intra } from './vm/intra.ts';
import { WAYS, reprotections } from './vm/reprotect.ts';
import type { SieveKind } from './vm/sieve.ts';
import { mustBeRoot, spread, spreadText, tenth, writeOut } from './vm/report.ts';

const RUNS = 20;
const ROUNDS = 5;
const PARTS = ['controls', 'failovers', 'intra', 'between', 'reprotect', 'noreplay', 'again', 'noagain', 'neither', 'bare'] as const;
type Part = (typeof PARTS)[number];
const ONLY_WHERE_NAMED: readonly Part[] = ['noreplay', 'again', 'noagain', 'neither', 'bare'];
const BARE_MOMENTS: readonly Moment[] = ['running', 'stopped', 'saving'];
/** Between a checkpoint that is safe and its commit. */
const LAGGING = ['--commit-delay', '50ms'];
const TARGETS_MS = { killToRunning: 50, stop: 40, gap: 250 } as const;

/** 32 bits of linear congruence: enough to choose times, and one seed repeats a series. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

/** A fault is a line; the series goes on to its end. */
async function controls(found: string[]): Promise<object[]> {
  const lines: object[] = [];
  for (const which of CONTROLS) {
    const run = await control(which);
    const fault = controlFault(run);
    if (fault !== undefined) found.push(`control ${which}: ${fault}`);
    console.log(`control ${which.padEnd(7)} ${run.answersAfter} answers afterwards${run.refused.length > 0 ? `, refused: ${run.refused.join(', ')}` : ''}${fault === undefined ? '' : `  FAULT ${fault}`}`);
    lines.push({ control: which, answersAfter: run.answersAfter, refused: run.refused });
  }
  return lines;
}

interface Row {
  readonly guests: 2 | 3;
  readonly moment: Moment;
  readonly run: Failover;
}

interface Series {
  readonly seed: number;
  readonly runs: readonly [number, number];
  readonly moments?: readonly Moment[];
  readonly engine?: readonly string[];
  readonly sieve?: SieveKind;
}

async function failovers(found: string[], { seed, runs: [from, to], moments = MOMENTS, engine = [], sieve }: Series): Promise<object> {
  const random = randomOf(seed);
  const times = Array.from({ length: RUNS }, random);
  const rows: Row[] = [];
  for (let i = from - 1; i < Math.min(to, RUNS); i++) {
    const moment = moments[i % moments.length] ?? 'running';
    const guests = i % 4 === 3 ? 3 : 2;
    const title = `failover ${String(i + 1).padStart(2)} n=${guests} ${moment.padEnd(7)}`;
    try {
      const run = await failover({ guests, moment, at: times[i] ?? 0, oracle: moments === MOMENTS, engine, sieve });
      rows.push({ guests, moment, run });
      found.push(...faults(run).map((fault) => `${title}: ${fault}`));
      console.log(`${title} ${line(run)}`);
    } catch (error) {
      found.push(`${title}: ${error instanceof Error ? error.message : String(error)}`);
      console.log(`${title} FAULT ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return account(rows);
}

function line(run: Failover): string {
  const [death] = run.deaths;
  const { explained } = run;
  const [fencedMs, restoredMs, runningMs] = ['fencedMs', 'restoredMs', 'runningMs'].map((field) => tenth(Number(run.takeovers[0]?.[field])));
  return `kill to running ${tenth(death?.killToRunningMs ?? Number.NaN)} ms (from the death seen: fenced ${fencedMs}, restored ${restoredMs}, running ${runningMs}), gap ${tenth(death?.gapMs ?? Number.NaN)} ms, `
    + (run.givenAgain === undefined ? '' : `${run.givenAgain} frames of the dead let out, `)
    + `stop p50 ${spread(run.stopsMs).p50} ms, ${run.account.answers} answers`
    + (explained === undefined ? '' : `, ${explained.seen} frames outside, ${explained.kept} kept, ${explained.unexplained.length} unexplained, ${explained.spent} let out by a dead port`)
    + `${faults(run).map((fault) => `  FAULT ${fault}`).join('')}`;
}

function account(rows: readonly Row[]): object {
  const each = rows.map(({ guests, moment, run }) => ({ guests, moment, deaths: run.deaths, spent: run.explained?.spent, givenAgain: run.givenAgain, takeovers: run.takeovers }));
  const killToRunningMs = spread(rows.flatMap(({ run }) => run.deaths.map((death) => death.killToRunningMs)));
  const gapMs = spread(rows.flatMap(({ run }) => run.deaths.map((death) => death.gapMs)));
  const stopMs = { 2: stops(rows, 2), 3: stops(rows, 3) };
  console.log(`kill to running  ${spreadText(killToRunningMs)} (target p50 ${TARGETS_MS.killToRunning})`);
  console.log(`client's gap     ${spreadText(gapMs)} (target p50 ${TARGETS_MS.gap})`);
  for (const n of [2, 3] as const) console.log(`group stop n=${n}   ${spreadText(stopMs[n])} over ${stopMs[n].count} checkpoints (target p50 ${TARGETS_MS.stop})`);
  return { runs: rows.length, each, killToRunningMs, gapMs, stopMs };
}

const stops = (rows: readonly Row[], n: 2 | 3): ReturnType<typeof spread> =>
  spread(rows.filter(({ guests }) => guests === n).flatMap(({ run }) => run.stopsMs));

/** Guests that serve, a daemon that runs, nothing protected. */
async function onBed<T>(guests: 2 | 3, work: (bed: VmBed) => Promise<T>): Promise<T> {
  const bed = await VmBed.create({ guests });
  try {
    await bed.startGuests();
    await bed.bed.daemon().start('live');
    return await work(bed);
  } finally {
    await bed.close();
  }
}

const intraLine = (name: string, { plain, protected: held, ratio, pingRatio }: Intra): void =>
  console.log(`${name.padEnd(16)} ${tenth(plain.mbps)} Mbit/s plain, ${tenth(held.mbps)} protected (${ratio.toFixed(2)}); `
    + `round trip ${plain.pingUs} us plain, ${held.pingUs} protected (${pingRatio.toFixed(2)})`);

const intra = (): Promise<object> => onBed(2, async (bed) => {
  const result = await intraTraffic(bed, ROUNDS);
  intraLine('intra-group', result);
  return result;
});

const between = (): Promise<object> => onBed(2, async (bed) => {
  const result = await betweenCheckpoints(bed, ROUNDS);
  intraLine('between', result);
  return result;
});

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

const reprotect = (): Promise<object> => onBed(3, async (bed) => {
  const result = await reprotections(bed, 'middle');
  const { copy, ways } = result;
  console.log(`copy while stopped  ${mib(copy.movedBytes)} moved, group stop ${tenth(copy.stopMs)} ms`);
  for (const way of WAYS) {
    const { copiedInFull, baseBytes, deltaBytes, standbyBytes, movedBytes, stopMs } = ways[way];
    console.log(`${way.padEnd(18)}  ${mib(movedBytes)} moved (${(movedBytes / ways.full.movedBytes).toFixed(2)} of full: images ${mib(baseBytes)}, delta ${mib(deltaBytes)}, standbys ${mib(standbyBytes)}), `
      + `group stop ${tenth(stopMs)} ms (${(stopMs / copy.stopMs).toFixed(2)} of the copy's), in full: ${copiedInFull.join(', ') || 'none'}`);
  }
  return result;
});

/** 1 to RUNS where nothing was asked for. */
function runsOf(args: readonly string[]): readonly [number, number] {
  const [from, to] = args.find((arg) => /^\d+-\d+$/.test(arg))?.split('-').map(Number) ?? [];
  return [from ?? 1, to ?? RUNS];
}

async function main(args: readonly string[]): Promise<void> {
  mustBeRoot('the series');
  abandonOnSignal();
  const seed = Number(args.find((arg) => /^\d+$/.test(arg)) ?? Date.now() % 1e6);
  const asked = PARTS.filter((part) => args.includes(part));
  const parts: readonly Part[] = asked.length > 0 ? asked : PARTS.filter((part) => !ONLY_WHERE_NAMED.includes(part));
  console.log(`seed ${seed}`);
  const found: string[] = [];
  const out: Record<string, unknown> = { seed };
  if (parts.includes('controls')) out['controls'] = await controls(found);
  if (parts.includes('failovers')) out['failovers'] = await failovers(found, { seed, runs: runsOf(args) });
  if (parts.includes('noreplay')) out['noreplay'] = await failovers(found, { seed, runs: runsOf(args), engine: ['--no-replay'] });
  if (parts.includes('again')) out['again'] = await failovers(found, { seed, runs: runsOf(args), sieve: 'count', engine: LAGGING });
  if (parts.includes('noagain')) out['noagain'] = await failovers(found, { seed, runs: runsOf(args), sieve: 'drop', engine: LAGGING });
  if (parts.includes('neither')) out['neither'] = await failovers(found, { seed, runs: runsOf(args), engine: [...LAGGING, '--no-replay'], sieve: 'drop' });
  if (parts.includes('bare')) out['bare'] = await failovers(found, { seed, runs: runsOf(args), moments: BARE_MOMENTS });
  if (parts.includes('intra')) out['intra'] = await intra();
  if (parts.includes('between')) out['between'] = await between();
  if (parts.includes('reprotect')) out['reprotect'] = await reprotect();
  writeOut('test-vm.json', { ...out, faults: found });
  console.log(found.length === 0 ? 'no faults' : found.map((fault) => `FAULT ${fault}`).join('\n'));
  if (found.length > 0) process.exitCode = 1;
}

await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`test-vm: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
