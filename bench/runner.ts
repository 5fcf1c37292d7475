/**
 * Runs one scenario to its result: variants alternate, so that a busy neighbour or a warm CPU
 * touches all of them, and every odd lap runs backwards, so that a drift within a lap cancels.
 *
 *   out/raw/<scenario>/<variant>-<lap>-<name>     what each tool said, whole
 *   out/results/<scenario>.json                   every lap's values: what the report is made of
 *
 * A scenario that fails is a result too (`failed`, with its sentence): the others still run, and
 * the bench's exit code says it. One that can't run here is `skipped` with its reason, and so is a
 * single variant.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SERIES_MAX, Unavailable, type Context, type Lap, type Scenario, type Stage } from './scenario.ts';

export interface VariantResult {
  /** Per quantity one value a lap. */
  readonly values: Record<string, number[]>;
  readonly series: Record<string, number[]>;
}

export interface ScenarioResult {
  readonly scenario: string;
  readonly laps: number;
  readonly seconds: number;
  readonly beganAt: string;
  readonly tookSeconds: number;
  readonly skipped?: string;
  readonly failed?: string;
  readonly variants: Record<string, VariantResult>;
  /** Variants left out, with the reason. */
  readonly missing: Record<string, string>;
}

export interface RunOptions {
  readonly laps: number;
  readonly seconds: number;
  /** Directory of raw outputs and results. */
  readonly out: string;
  readonly say: (line: string) => void;
  /** Aborted: what stands is taken down and the run ends in `failed`. */
  readonly signal?: AbortSignal;
}

const WARM_UP_SECONDS = 0.5;
/** A scenario that takes longer hangs: it fails, and the next one runs. */
const SCENARIO_SECONDS_MAX = 600;
const RAW_BYTES_MAX = 1 << 20;

export const slug = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');

/** A quick run's single lap stays one. */
const lapsOf = ({ lapsMin = 1, lapsMax = Infinity }: Scenario, laps: number): number => Math.min(laps === 1 ? 1 : Math.max(laps, lapsMin), lapsMax);

export async function measure(scenario: Scenario, options: RunOptions): Promise<ScenarioResult> {
  const began = Date.now();
  const laps = lapsOf(scenario, options.laps);
  const variants: Record<string, VariantResult> = {};
  const missing: Record<string, string> = {};
  const ended = await attempt(async () => {
    const stage = await scenario.open(context(scenario, options));
    const over = new AbortController();
    try {
      await Promise.race([runLaps(scenario, stage, { ...options, laps }, variants, missing), aborted(options.signal, over.signal)]);
    } finally {
      over.abort();
      await stage.close();
    }
  });
  const result: ScenarioResult = {
    scenario: scenario.name, laps, seconds: options.seconds, beganAt: new Date(began).toISOString(),
    tookSeconds: (Date.now() - began) / 1000, ...ended, variants, missing,
  };
  const directory = join(options.out, 'results');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, `${slug(scenario.name)}.json`), JSON.stringify(result));
  return result;
}

async function attempt(job: () => Promise<void>): Promise<{ skipped?: string; failed?: string }> {
  try {
    await job();
    return {};
  } catch (error) {
    if (error instanceof Unavailable) return { skipped: error.message };
    return { failed: error instanceof Error ? error.message : String(error) };
  }
}

/** Never ends but in an error, interrupted or too late; listens until `over`. */
function aborted(signal: AbortSignal | undefined, over: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const timer = setTimeout(() => reject(new Error(`took longer than ${SCENARIO_SECONDS_MAX} s`)), SCENARIO_SECONDS_MAX * 1e3);
    over.addEventListener('abort', () => clearTimeout(timer), { once: true });
    const fail = (): void => reject(new Error('interrupted'));
    if (signal?.aborted === true) fail();
    signal?.addEventListener('abort', fail, { once: true, signal: over });
  });
}

async function runLaps(
  scenario: Scenario, stage: Stage, options: RunOptions,
  variants: Record<string, VariantResult>, missing: Record<string, string>,
): Promise<void> {
  const names = scenario.variants.map(({ name }) => name);
  const first = scenario.warmUpLap === false ? 1 : 0;
  for (let number = first; number <= options.laps; number++) {
    const order = number > 0 && number % 2 === 0 ? [...names].reverse() : names;
    for (const variant of order) {
      if (missing[variant] !== undefined) continue;
      const lap = { variant, number, seconds: number === 0 ? Math.min(WARM_UP_SECONDS, options.seconds) : options.seconds };
      const gone = await attemptLap(scenario, stage, lap, options, variants);
      if (gone !== undefined) missing[variant] = gone;
    }
  }
}

/** The reason, where this variant can't be had here. */
async function attemptLap(
  scenario: Scenario, stage: Stage, lap: Lap, options: RunOptions, variants: Record<string, VariantResult>,
): Promise<string | undefined> {
  try {
    const { values, series } = await stage.lap(lap);
    if (lap.number === 0) return undefined;
    const kept = (variants[lap.variant] ??= { values: {}, series: {} });
    for (const [key, value] of Object.entries(values)) (kept.values[key] ??= []).push(value);
    for (const [key, more] of Object.entries(series ?? {})) {
      const all = (kept.series[key] ??= []);
      all.push(...more.slice(0, Math.max(0, SERIES_MAX - all.length)));
    }
    const told = scenario.quantities.flatMap(({ key, unit }) => (values[key] === undefined ? [] : [`${key} ${brief(values[key])} ${unit}`]));
    options.say(`${scenario.name} · ${lap.variant} · lap ${lap.number}: ${told.join(', ')}`);
    return undefined;
  } catch (error) {
    if (error instanceof Unavailable) return error.message;
    throw new Error(`${lap.variant}, lap ${lap.number}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function context(scenario: Scenario, options: RunOptions): Context {
  const directory = join(options.out, 'raw', slug(scenario.name));
  rmSync(directory, { recursive: true, force: true });
  return {
    say: options.say,
    raw: (lap, name, text) => {
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, `${slug(lap.variant)}-${lap.number}-${name}`), text.slice(0, RAW_BYTES_MAX));
    },
  };
}

/** Four significant digits: more is noise. */
export function brief(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-GB') : String(Number(value.toPrecision(Math.abs(value) >= 100 ? 4 : 3)));
}
