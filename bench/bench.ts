/**
 * The bench: measures the table (table.ts), reports, and says which floors are missed.
 *
 *   node bench.js [--quick] [--only PATTERN] [--laps N] [--seconds S] [--report] [--readme]
 *
 *   --only     scenarios whose name or section contains it, by name also those that no whole run has
 *              (repeatable); others keep the results of earlier runs in out/results, so that a long
 *              bench can be taken in pieces
 *   --report   measures nothing: the report anew from out/results
 *   --readme   README's generated block is written too
 *
 * Without --only what earlier runs left in out/results and out/raw is removed first. Exit 1 where a
 * floor is missed by more than the room for noise, or a scenario failed; each is named.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { endOnSignal } from './bed/abandon.ts';
import { repositoryRoot } from './bed/daemon.ts';
import { QUICK_ROOM, ROOM, type Outcome } from './figures.ts';
import { writeReport } from './report/write.ts';
import { measure, slug, type ScenarioResult } from './runner.ts';
import type { Scenario } from './scenario.ts';
import { TABLE } from './table.ts';

export interface Plan {
  readonly scenarios: readonly Scenario[];
  readonly laps: number;
  readonly seconds: number;
  readonly measures: boolean;
  /** Everything is measured anew: earlier results go. */
  readonly afresh: boolean;
  readonly readme: boolean;
  /** For noise, before a missed floor is a failure. */
  readonly room: number;
}

export function plan(args: readonly string[]): Plan {
  const { values } = parseArgs({
    args: [...args], strict: true,
    options: {
      quick: { type: 'boolean' }, only: { type: 'string', multiple: true }, laps: { type: 'string' },
      seconds: { type: 'string' }, report: { type: 'boolean' }, readme: { type: 'boolean' },
    },
  });
  const quick = values.quick === true;
  const wanted = values.only?.map((pattern) => pattern.toLowerCase());
  const fits = (scenario: Scenario): boolean =>
    (wanted === undefined ? scenario.byName !== true : wanted.some((pattern) => (pattern === scenario.section ? scenario.byName !== true : scenario.name.toLowerCase().includes(pattern))))
    && (!quick || scenario.quick === true);
  const scenarios = TABLE.filter(fits).map((scenario) => (quick ? shortened(scenario) : scenario));
  if (scenarios.length === 0) throw new Error(`nothing of the table fits ${JSON.stringify(values.only)}`);
  return {
    scenarios, laps: positive('laps', values.laps, quick ? 1 : 3), seconds: positive('seconds', values.seconds, quick ? 1 : 1.5),
    measures: values.report !== true, afresh: wanted === undefined && values.report !== true,
    readme: values.readme === true, room: quick ? QUICK_ROOM : ROOM,
  };
}

function shortened(scenario: Scenario): Scenario {
  const { quickVariants: kept } = scenario;
  return kept === undefined ? scenario : { ...scenario, variants: scenario.variants.filter(({ name }) => kept.includes(name)) };
}

function positive(name: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!(value > 0)) throw new Error(`--${name} ${text}: a number above 0 is expected`);
  return value;
}

/** Results on disk, in the table's order. */
function results(out: string, scenarios: readonly Scenario[]): Outcome[] {
  return scenarios.flatMap((scenario) => {
    const path = join(out, 'results', `${slug(scenario.name)}.json`);
    return existsSync(path) ? [{ scenario, result: JSON.parse(readFileSync(path, 'utf8')) as ScenarioResult }] : [];
  });
}

async function main(): Promise<void> {
  const out = join(repositoryRoot(), 'out');
  const { scenarios, laps, seconds, measures, afresh, readme, room } = plan(process.argv.slice(2));
  if (measures && process.getuid?.() !== 0) throw new Error('the bench needs root: it builds namespaces and loads kernel programs');
  if (afresh) for (const name of ['results', 'raw']) rmSync(join(out, name), { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const signal = endOnSignal();
  for (const [i, scenario] of (measures ? scenarios : []).entries()) {
    console.log(`[${i + 1}/${scenarios.length}] ${scenario.name}`);
    const result = await measure(scenario, { laps, seconds, out, say: (line) => console.log(`  ${line}`), signal });
    if (signal.aborted) process.exit(130); // everything of the scenario is taken down
    if (result.skipped !== undefined) console.log(`  skipped: ${result.skipped}`);
    if (result.failed !== undefined) console.log(`  FAILED: ${result.failed}`);
    for (const [variant, reason] of Object.entries(result.missing)) console.log(`  without ${variant}: ${reason}`);
  }
  const wrong = await writeReport(out, results(out, TABLE), {
    judged: new Set(scenarios.map(({ name }) => name)), room, ...(readme ? { readme: join(repositoryRoot(), 'README.md') } : {}),
  });
  for (const sentence of wrong) console.error(`wrong: ${sentence}`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error: unknown) => {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 2;
  });
}
