/**
 * Everything the bench leaves: out/bench.json and the table on the terminal; returns what is wrong, a sentence each.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brief, type ScenarioResult } from '../runner.ts';
import { demandText, figuresOf, type Figure } from '../figures.ts';
import type { Scenario } from '../scenario.ts';

export interface Outcome {
  readonly scenario: Scenario;
  readonly result: ScenarioResult;
}

/** `judged`: the scenarios whose misses are this run's. */
export function writeReport(out: string, outcomes: readonly Outcome[], judged: ReadonlySet<string>): Promise<string[]> {
  const figures = outcomes.flatMap(({ scenario, result }) => figuresOf(scenario, result));
  writeFileSync(join(out, 'bench.json'), JSON.stringify(figures, undefined, 1));
  console.log(`\n${textTable(figures.filter(({ scenario }) => judged.has(scenario)))}`);
  return Promise.resolve(faults(outcomes, figures, judged));
}

export function faults(outcomes: readonly Outcome[], figures: readonly Figure[], judged: ReadonlySet<string>): string[] {
  return [
    ...outcomes.flatMap(({ result: { scenario, failed } }) => (failed !== undefined && judged.has(scenario) ? [`${scenario} failed: ${failed}`] : [])),
    ...figures.filter(({ met, scenario }) => met === false && judged.has(scenario)).map((figure) => `${figure.name}: ${verdictOf(figure)}, floor ${demandText(figure)}`),
  ];
}

const verdictOf = ({ by, value, unit, ratio }: Figure): string => (by === 'value' || ratio === null ? `${brief(value)} ${unit}` : brief(ratio));

function textTable(figures: readonly Figure[]): string {
  const head = ['figure', 'value', 'beside it', 'ratio', 'floor', ''];
  const rows = figures.map((figure) => [
    figure.name, `${brief(figure.value)} ${figure.unit}`,
    figure.baseline === null ? '-' : `${figure.against} ${brief(figure.baseline)}`,
    figure.ratio === null ? '-' : brief(figure.ratio), demandText(figure),
    figure.met === null ? '' : figure.met ? (figure.targetMet === false ? 'ok, below goal' : 'ok') : 'MISSED',
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)));
  return [head, ...rows].map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd()).join('\n');
}
