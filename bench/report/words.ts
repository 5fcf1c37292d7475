/** The figures in words: table for a terminal, table for README, sentences about what is wrong. */
import { demandText, type Figure, type Outcome } from '../figures.ts';
import { brief } from '../runner.ts';

const beside = ({ baseline, against, unit }: Figure): string => (baseline === null ? '-' : `${against} ${brief(baseline)} ${unit}`.trim());
export const valueText = ({ value, unit }: Figure): string => `${brief(value)} ${unit}`.trim();
export const ratioText = ({ ratio, by }: Figure): string => (ratio === null || !Number.isFinite(ratio) ? '-' : `${brief(ratio)}${by === 'speed-up' ? ' times faster' : ''}`);

export function verdictText({ met, floorMet, targetMet }: Figure): string {
  if (met === null) return '';
  if (!met) return 'MISSED';
  if (floorMet === false) return 'missed, within the room for noise';
  return targetMet === false ? 'ok, below goal' : 'ok';
}

export const HEAD = ['figure', 'value', 'beside it', 'ratio', 'floor', ''] as const;
export const cells = (figure: Figure): readonly string[] =>
  [figure.name, valueText(figure), beside(figure), ratioText(figure), demandText(figure), verdictText(figure)];

export function textTable(figures: readonly Figure[]): string {
  const rows: readonly (readonly string[])[] = [HEAD, ...figures.map(cells)];
  const widths = HEAD.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ').trimEnd()).join('\n');
}

/** What README shows: the figures with a demand, those of the quick run first and the others folded, what failed, and what must be known to read them. */
export function markdown(outcomes: readonly Outcome[], figures: readonly Figure[], machineLine: string): string {
  const first = new Set(outcomes.filter(({ scenario }) => scenario.quick === true || scenario.shown === true).map(({ scenario }) => scenario.name));
  const judged = figures.filter(({ by }) => by !== null);
  const rows = (chosen: readonly Figure[]): string[] => chosen.map((figure) => `| ${cells(figure).join(' | ')} |`);
  const head = [`| ${HEAD.join(' | ')} |`, `|${HEAD.map(() => '---').join('|')}|`];
  const others = rows(judged.filter(({ scenario }) => !first.has(scenario)));
  const folded = others.length === 0 ? [] : ['', `<details><summary>${others.length} more figures with a floor</summary>`, '', ...head, ...others, '', '</details>'];
  return [
    `Medians of alternating laps on ${machineLine}.`, '', ...head, ...rows(judged.filter(({ scenario }) => first.has(scenario))), ...failedRows(outcomes), ...folded, '',
    ...notes(outcomes).flatMap((note) => [note, '']),
  ].join('\n');
}

const failedRows = (outcomes: readonly Outcome[]): string[] =>
  outcomes.flatMap(({ result: { scenario, failed } }) => (failed === undefined ? [] : [`| ${scenario} | failed: ${failed.split('\n')[0] ?? ''} |  |  |  | FAILED |`]));

/** Each once. */
export const notes = (outcomes: readonly Outcome[]): string[] =>
  [...new Set(outcomes.flatMap(({ scenario: { note } }) => note ?? []))];

const judgedText = (figure: Figure): string => (figure.by === 'value' || figure.ratio === null ? valueText(figure) : ratioText(figure));

/** Sentences: scenarios that failed, floors that are missed. */
export function faults(outcomes: readonly Outcome[], figures: readonly Figure[], judged: ReadonlySet<string>): string[] {
  return [
    ...outcomes.flatMap(({ result: { scenario, failed } }) => (failed !== undefined && judged.has(scenario) ? [`${scenario} failed: ${failed}`] : [])),
    ...figures.filter(({ met, scenario }) => met === false && judged.has(scenario)).map((figure) => `${figure.name}: ${judgedText(figure)}, floor ${demandText(figure)}`),
  ];
}

/** What was not measured, and why. */
export const gaps = (outcomes: readonly Outcome[]): string[] => outcomes.flatMap(({ scenario: { name }, result: { skipped, missing } }) => [
  ...(skipped === undefined ? [] : [`${name}: ${skipped}`]),
  ...Object.entries(missing).map(([variant, reason]) => `${name}, ${variant}: ${reason}`),
]);
