/**
 * Everything the bench leaves in out/: bench.json, bench.html, bench.md; the table on the terminal.
 * Returns what is wrong, a sentence each. README takes bench.md between its two marks (`readme`).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { figuresOf, type Outcome } from '../figures.ts';
import { charts } from './charts.ts';
import { machine, machineText } from './machine.ts';
import { page } from './page.ts';
import { faults, gaps, markdown, textTable } from './words.ts';

const BEGIN = '<!-- bench: begin -->';
const END = '<!-- bench: end -->';

export interface ReportOptions {
  /** The scenarios whose misses are this run's. */
  readonly judged: ReadonlySet<string>;
  /** For noise, before a missed floor is a failure. */
  readonly room: number;
  /** README's path, where its block is to be written too. */
  readonly readme?: string;
}

export async function writeReport(out: string, outcomes: readonly Outcome[], { judged, room, readme }: ReportOptions): Promise<string[]> {
  const figures = outcomes.flatMap(({ scenario, result }) => figuresOf(scenario, result, room));
  const machineLine = machineText(machine());
  writeFileSync(join(out, 'bench.json'), JSON.stringify(figures, undefined, 1));
  writeFileSync(join(out, 'bench.md'), markdown(outcomes, figures, machineLine));
  writeFileSync(join(out, 'bench.html'), page({ outcomes, figures, charts: await charts(outcomes, figures), machineLine, room }));
  if (readme !== undefined) writeFileSync(readme, withBlock(readFileSync(readme, 'utf8'), markdown(outcomes, figures, machineLine)));
  console.log(`\n${textTable(figures.filter(({ scenario }) => judged.has(scenario)))}\n\n  ${join(out, 'bench.html')}`);
  for (const gap of gaps(outcomes)) console.log(`  not measured: ${gap}`);
  return faults(outcomes, figures, judged);
}

/** The text with its generated block replaced. @throws where it has no such block. */
export function withBlock(text: string, block: string): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`no block between "${BEGIN}" and "${END}"`);
  return `${text.slice(0, begin + BEGIN.length)}\n${block}${text.slice(end)}`;
}
