/**
 * From laps to figures: medians, spread, ratios, and whether a demand is met. Pure.
 *
 * A figure is one quantity of one variant beside its baseline. Each demand of the table makes a
 * figure of its own; a variant without a demand is a figure without a floor. `ratio` is always what
 * is judged by a ratio or a speed-up, and value / baseline otherwise: the median over the laps of
 * what each lap's own neighbours were, since a shared machine changes its speed threefold within a
 * minute and a lap's variants stand side by side. So it is not the quotient of the two medians shown.
 *
 * A floor is missed for the exit code only beyond the room for noise: laps of a shared machine
 * scatter, and a quick bench has one.
 */
import type { Demand, Quantity, Scenario, Section } from './scenario.ts';
import type { ScenarioResult } from './runner.ts';
import { median, quantile } from './bed/stats.ts';

/** Room for noise before a miss is a failure: medians of several laps; one short lap of the quick bench. */
export const ROOM = 0.85;
export const QUICK_ROOM = 0.5;

/** A row of the table with what came of it. */
export interface Outcome {
  readonly scenario: Scenario;
  readonly result: ScenarioResult;
}

export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly baseline: number | null;
  readonly ratio: number | null;
  readonly floor: number | null;
  readonly target: number | null;
  readonly by: Demand['by'] | null;
  readonly lowerIsBetter: boolean;
  /** Reaches its floor, the room for noise allowed; `floorMet` without it. */
  readonly met: boolean | null;
  readonly floorMet: boolean | null;
  readonly targetMet: boolean | null;
  readonly section: Section;
  readonly scenario: string;
  readonly quantity: string;
  readonly variant: string;
  readonly against: string | null;
  /** Lower and upper quartile over the laps. */
  readonly spread: readonly [number, number];
  readonly samples: readonly number[];
  readonly baselineSamples: readonly number[];
}

export function figuresOf(scenario: Scenario, result: ScenarioResult, room = ROOM): Figure[] {
  return scenario.quantities.flatMap((quantity) => scenario.variants.flatMap(({ name }) => ofVariant(scenario, result, quantity, name, room)));
}

function ofVariant(scenario: Scenario, result: ScenarioResult, quantity: Quantity, variant: string, room: number): Figure[] {
  const samples = result.variants[variant]?.values[quantity.key];
  if (samples === undefined || samples.length === 0) return [];
  const demands = (quantity.demands ?? []).filter((demand) => demand.variant === variant);
  const first = scenario.baseline === false ? undefined : scenario.variants[0]?.name;
  if (demands.length === 0 && variant === first) return [];
  return (demands.length === 0 ? [undefined] : demands).map((demand) => {
    const against = demand?.against ?? (variant === first ? undefined : first);
    const baselineSamples = against === undefined ? [] : (result.variants[against]?.values[quantity.key] ?? []);
    return figure({ scenario, quantity, variant, against: baselineSamples.length === 0 ? undefined : against, demand, samples, baselineSamples, room });
  });
}

interface Parts {
  readonly scenario: Scenario;
  readonly quantity: Quantity;
  readonly variant: string;
  readonly against: string | undefined;
  readonly demand: Demand | undefined;
  readonly samples: readonly number[];
  readonly baselineSamples: readonly number[];
  readonly room: number;
}

function figure({ scenario, quantity, variant, against, demand, samples, baselineSamples, room }: Parts): Figure {
  const value = median(samples);
  const baseline = against === undefined ? null : median(baselineSamples);
  const ratio = baseline === null ? null : paired(samples, baselineSamples, demand?.by === 'speed-up');
  const judged = demand?.by === 'value' ? value : ratio;
  const least = quantity.lowerIsBetter !== true || demand?.by === 'speed-up';
  const reaches = (bound: number | undefined, slack: number): boolean | null =>
    bound === undefined ? null : judged !== null && (least ? judged >= bound * slack : judged <= bound / slack);
  return {
    name: nameOf(scenario, quantity, variant, demand), unit: quantity.unit, value, baseline, ratio,
    floor: demand?.floor ?? null, target: demand?.target ?? null, by: demand?.by ?? null,
    lowerIsBetter: quantity.lowerIsBetter === true, met: reaches(demand?.floor, room), floorMet: reaches(demand?.floor, 1), targetMet: reaches(demand?.target, 1),
    section: scenario.section, scenario: scenario.name, quantity: quantity.key, variant, against: against ?? null,
    spread: [quantile(samples, 0.25), quantile(samples, 0.75)], samples, baselineSamples,
  };
}

/** Median of the laps' own quotients; of the medians, where the laps are not the same. */
function paired(samples: readonly number[], baselineSamples: readonly number[], inverse: boolean): number {
  const quotient = (value: number, baseline: number): number => (inverse ? baseline / value : value / baseline);
  if (samples.length !== baselineSamples.length) return quotient(median(samples), median(baselineSamples));
  return median(samples.map((value, lap) => quotient(value, baselineSamples[lap] ?? Number.NaN)));
}

/** 'group' is Sluice as it is meant to be used: its figures need no suffix. */
function nameOf(scenario: Scenario, quantity: Quantity, variant: string, demand: Demand | undefined): string {
  const suffix = variant === 'group' || scenario.variants.length === 1 ? '' : `, ${variant}`;
  const against = demand?.against === undefined ? '' : `, against ${demand.against}`;
  return `${quantity.name}${suffix}${against}`;
}

/** What a person is told of a figure's demand. */
export function demandText({ by, floor, target, lowerIsBetter, unit }: Figure): string {
  if (floor === null) return '';
  const sign = lowerIsBetter && by !== 'speed-up' ? '<=' : '>=';
  const of = by === 'value' && unit !== '' ? ` ${unit}` : '';
  return `${sign} ${floor}${of}${target === null ? '' : ` (goal ${target})`}`;
}
