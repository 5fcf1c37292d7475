/** Figures of failovers as text and as JSON: shared by the demonstration and the series. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../bed/daemon.ts';
import { quantile } from '../bed/stats.ts';

export interface Spread {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly max: number;
}

export const tenth = (value: number): number => Math.round(value * 10) / 10;

export const spread = (values: readonly number[]): Spread => ({
  count: values.length, p50: tenth(quantile(values, 0.5)), p90: tenth(quantile(values, 0.9)), max: tenth(Math.max(...values)),
});

export const spreadText = ({ p50, p90, max }: Spread): string => `p50 ${p50} ms, p90 ${p90} ms, max ${max} ms`;

export function tableText(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n');
}

export function writeOut(file: string, value: object): void {
  const out = join(repositoryRoot(), 'out');
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, file), `${JSON.stringify(value)}\n`);
}

/** The reason of a program that ends with what it has to say and not with a stack. */
export function mustBeRoot(what: string): void {
  if (process.getuid?.() !== 0) throw new Error(`${what} needs root: it builds namespaces and taps and loads kernel programs; sudo make`);
}
