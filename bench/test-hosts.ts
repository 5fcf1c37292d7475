/**
 * The chaos series on three hosts (`make test-hosts`); `make test` has a short slice.
 *
 *   controls   the judges' negative controls: each must be seen (hosts/controls.ts)
 *   chaos      RUNS runs, every fault of hosts/faults.ts in turn, every third time with a second one
 *
 *   split      every way to split the group, tried once each (hosts/split.ts)
 *
 *   test-hosts.js [SEED] [controls] [split] [FROM-TO] [fault=NAME] [attempt=WORD] [election=MS]
 *
 * The seed is printed; a run depends on the seed and its number alone, as far as a machine's timing allows
 * it. FROM-TO picks runs, from 1. Writes out/test-hosts.json, where the runs of one seed come together
 * over several calls, and prints a line each. Exit 1 at anything that must never be. Going on later than
 * GOES_ON_TARGET_MS is printed and counted, and is no failure here: a machine may be slow.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { abandonOnSignal } from './bed/abandon.ts';
import { repositoryRoot } from './bed/daemon.ts';
import { quantile } from './bed/stats.ts';
import { Arena, type Outcome, type Plan } from './hosts/chaos.ts';
import { CONTROLS, control, controlFault } from './hosts/controls.ts';
import { BESIDE_DEADLY, BESIDE_PASSING, DEADLY, PASSING, type Deadly, type Passing } from './hosts/faults.ts';
import { ATTEMPTS, attempt } from './hosts/split.ts';
import { mustBeRoot, tableText, tenth, writeOut } from './vm/report.ts';

const RUNS = 112;
const GOES_ON_TARGET_MS = 2000;
const FILE = 'test-hosts.json';
const SPLIT_FILE = 'test-hosts-split.json';
const NAMES = [...Object.keys(PASSING), ...Object.keys(DEADLY)] as (Passing | Deadly)[];

interface Row extends Partial<Outcome> {
  readonly run: number;
  readonly title: string;
  readonly faults: readonly string[];
}

/** 32 bits of linear congruence, mixed once: neighbours differ from the first number on. */
function randomOf(seed: number): () => number {
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) >>> 0;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  next();
  return next;
}

function planOf(seed: number, run: number, given: string | undefined): Plan {
  const random = randomOf(seed * 1009 + run);
  const fault = NAMES.find((name) => name === given) ?? NAMES[run % NAMES.length] ?? 'ledger cut';
  const beside: readonly Passing[] = fault in DEADLY ? BESIDE_DEADLY : BESIDE_PASSING;
  const second = random() < 1 / 3 ? beside[Math.floor(random() * beside.length)] : undefined;
  return second === undefined || second === fault ? { fault, random } : { fault, second, random };
}

function faultsOf({ leaked, orphans, old, refused }: Outcome): string[] {
  return [
    ...(leaked > 0 ? [`${leaked} leaked`] : []), ...(orphans > 0 ? [`${orphans} orphans`] : []),
    ...(old > 0 ? [`${old} of an old generation`] : []), ...(refused > 0 ? [`${refused} releases refused by the kernel's bound`] : []),
  ];
}

function lineOf(outcome: Outcome): string {
  const { epochs, leaked, orphans, old, again, ghosts, backMs, takeoverMs, firstOutsideMs, isLeaderless } = outcome;
  const took = takeoverMs === undefined || firstOutsideMs === undefined ? '' : `, taken over in ${takeoverMs.toFixed(0)} ms, outside after ${firstOutsideMs.toFixed(0)} ms${isLeaderless === true ? ' (no leader)' : ''}, ${ghosts} ghosts`;
  return `goes on after ${backMs.toFixed(0)} ms${backMs > GOES_ON_TARGET_MS ? ' LATE' : ''}${took}; ${epochs} epochs, leaked ${leaked}, orphans ${orphans}, old ${old}${again > 0 ? `, ${again} in transit delivered again` : ''}`;
}

async function chaos(seed: number, runs: readonly number[], given: string | undefined, electionMs: number | undefined): Promise<Row[]> {
  const rows: Row[] = [];
  let arena: Arena | undefined;
  try {
    for (const run of runs) {
      const plan = planOf(seed, run, given);
      const title = `${plan.fault}${plan.second === undefined ? '' : ` + ${plan.second}`}`;
      const head = `run ${String(run).padStart(3)}  ${title.padEnd(42)}`;
      try {
        arena ??= await Arena.create(electionMs);
        const outcome = await arena.run(plan);
        const faults = faultsOf(outcome);
        rows.push({ run, title, faults, ...outcome });
        console.log(`${head} h${outcome.host + 1}  ${lineOf(outcome)}${faults.map((fault) => `  FAULT ${fault}`).join('')}${faults.length > 0 ? `\n${outcome.words.join('\n')}` : ''}`);
      } catch (error) {
        const said = error instanceof Error ? error.message : String(error);
        rows.push({ run, title, faults: [said] });
        console.log(`${head}     FAULT ${said}`);
        await arena?.close();
        arena = undefined;
      }
    }
  } finally {
    await arena?.close();
  }
  return rows;
}

async function controls(): Promise<string[]> {
  const faults: string[] = [];
  const arena = await Arena.create();
  try {
    for (const which of CONTROLS) {
      const seen = await control(arena, which);
      const fault = controlFault(which, seen);
      if (fault !== undefined) faults.push(`control ${which}: ${fault}`);
      console.log(`control ${which.padEnd(7)} leaked ${seen.leaked}, orphans ${seen.orphans}, old ${seen.old}, ${seen.ghosts} ghosts${fault === undefined ? '' : '  FAULT'}`);
    }
  } finally {
    await arena.close();
  }
  return faults;
}

async function split(seed: number, given: string | undefined): Promise<string[]> {
  const arena = await Arena.create();
  try {
    const rows = [];
    for (const [i, name] of ATTEMPTS.entries()) {
      if (given !== undefined && !name.includes(given)) continue;
      const row = await attempt(arena, name, randomOf(seed * 1009 + i));
      rows.push(row);
      console.log(`${row.attempt}\n    ${row.outcome}${row.faults.map((fault) => `  FAULT ${fault}`).join('')}`);
    }
    writeOut(SPLIT_FILE, { seed, rows });
    console.log(`\n${rows.length} attempts to split the group, ${rows.filter(({ faults }) => faults.length > 0).length} with faults; out/${SPLIT_FILE}`);
    return rows.flatMap(({ attempt: name, faults }) => faults.map((fault) => `${name}: ${fault}`));
  } finally {
    await arena.close();
  }
}

/** Runs of the same seed that an earlier call wrote, this call's in their place. */
function together(seed: number, rows: readonly Row[]): Row[] {
  let before: { readonly seed: number; readonly runs: readonly Row[] } | undefined;
  try {
    before = JSON.parse(readFileSync(join(repositoryRoot(), 'out', FILE), 'utf8')) as typeof before;
  } catch {
    return [...rows]; // the first call
  }
  const kept = before?.seed === seed ? before.runs.filter(({ run }) => !rows.some((row) => row.run === run)) : [];
  return [...kept, ...rows].sort((a, b) => a.run - b.run);
}

const figures = (values: readonly (number | undefined)[]): string => {
  const there = values.filter((value) => value !== undefined);
  return there.length === 0 ? '-' : `p50 ${tenth(quantile(there, 0.5))}, p99 ${tenth(quantile(there, 0.99))} ms`;
};
const total = (values: readonly (number | undefined)[]): number => values.reduce<number>((sum, value) => sum + (value ?? 0), 0);

function account(rows: readonly Row[]): void {
  const lines = NAMES.flatMap((name): [string, string][] => {
    const mine = rows.filter(({ title }) => title.split(' + ')[0] === name);
    if (mine.length === 0) return [];
    const took = mine.some(({ takeoverMs }) => takeoverMs !== undefined) ? `; first frame outside ${figures(mine.map(({ firstOutsideMs }) => firstOutsideMs))}` : '';
    return [[name, `${mine.length} runs, ${total(mine.map(({ faults }) => faults.length))} faults; goes on ${figures(mine.map(({ backMs }) => backMs))}${took}`]];
  });
  const late = rows.filter(({ backMs }) => (backMs ?? 0) > GOES_ON_TARGET_MS);
  console.log(`\n${tableText([
    ...lines,
    ['all', `${rows.length} runs, ${total(rows.map(({ epochs }) => epochs))} epochs`],
    ['leaked · orphans · old generation', `${total(rows.map(({ leaked }) => leaked))} · ${total(rows.map(({ orphans }) => orphans))} · ${total(rows.map(({ old }) => old))}, of ${total(rows.map(({ ghosts }) => ghosts))} frames of ghosts`],
    ['goes on', `${figures(rows.map(({ backMs }) => backMs))}; ${late.length} later than ${GOES_ON_TARGET_MS} ms: ${late.map(({ run, title }) => `${run} (${title})`).join(', ') || 'none'}`],
    ['takeover: open on all hosts', figures(rows.map(({ takeoverMs }) => takeoverMs))],
    ['takeover: first frame outside', figures(rows.map(({ firstOutsideMs }) => firstOutsideMs))],
    ['… where etcd kept its leader', figures(rows.filter(({ isLeaderless }) => isLeaderless !== true).map(({ firstOutsideMs }) => firstOutsideMs))],
    ['… where the leader went with the host', figures(rows.filter(({ isLeaderless }) => isLeaderless === true).map(({ firstOutsideMs }) => firstOutsideMs))],
  ])}\n\n  out/${FILE}`);
}

const wordOf = (args: readonly string[], name: string): string | undefined => args.find((arg) => arg.startsWith(`${name}=`))?.slice(name.length + 1);

async function main(args: readonly string[]): Promise<void> {
  mustBeRoot('the series');
  abandonOnSignal();
  const seed = Number(args.find((arg) => /^\d+$/.test(arg)) ?? Date.now() % 1e6);
  const range = args.find((arg) => /^\d+-\d+$/.test(arg));
  const given = wordOf(args, 'fault');
  const [from = 1, to = RUNS] = range?.split('-').map(Number) ?? [];
  console.log(`seed ${seed}`);
  const isPart = args.includes('controls') || args.includes('split');
  const isAll = !isPart && range === undefined;
  const faults = args.includes('controls') || isAll ? await controls() : [];
  if (args.includes('split') || isAll) faults.push(...await split(seed, wordOf(args, 'attempt')));
  if (!isPart || range !== undefined) {
    const rows = await chaos(seed, Array.from({ length: to - from + 1 }, (_, i) => from + i), given, wordOf(args, 'election') === undefined ? undefined : Number(wordOf(args, 'election')));
    const runs = together(seed, rows);
    writeOut(FILE, { seed, runs });
    account(runs);
    faults.push(...rows.flatMap(({ run, faults: found }) => found.map((fault) => `run ${run}: ${fault}`)));
  }
  console.log(faults.length === 0 ? 'no faults' : faults.map((fault) => `FAULT ${fault}`).join('\n'));
  if (faults.length > 0) process.exitCode = 1;
}

await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`test-hosts: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
