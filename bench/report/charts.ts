/**
 * The charts of the report, as SVG text, drawn without a browser (vega-lite compiles, vega draws).
 *
 * Text and lines are `currentColor` and the ground is transparent, so a chart follows the page's
 * light or dark scheme; the series' colours are mid-tones that stand on both.
 */
import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { median, quantile } from '../bed/stats.ts';
import type { Figure, Outcome } from '../figures.ts';
import type { Quantity } from '../scenario.ts';

export interface Chart {
  readonly title: string;
  /** What to see in it, one sentence. */
  readonly caption: string;
  readonly svg: string;
}

const COLOURS: Readonly<Record<string, string>> = {
  plain: '#8a8f98', group: '#2f80d0', Sluice: '#2f80d0', sluice: '#2f80d0', 'per-VM': '#e07b39', pcap: '#8c6bb1',
};
const OTHERS = ['#3a9d6a', '#c8536b', '#b8952a', '#4aa3a8'];
const LINES = ['#2f80d0', '#e07b39', '#3a9d6a', '#8c6bb1'];
const WIDTH = 760;

const CONFIG = {
  background: 'transparent', font: 'system-ui, sans-serif',
  axis: { labelColor: 'currentColor', titleColor: 'currentColor', domainColor: 'currentColor', tickColor: 'currentColor', gridColor: 'currentColor', gridOpacity: 0.15, labelFontSize: 12, titleFontSize: 12, labelLimit: 380, titleFontWeight: 'normal' as const },
  legend: { labelColor: 'currentColor', titleColor: 'currentColor', labelFontSize: 12, orient: 'top' as const, title: null, symbolOpacity: 1 },
  header: { labelColor: 'currentColor', titleColor: 'currentColor' },
  view: { stroke: null }, text: { color: 'currentColor', fontSize: 11 }, rule: { color: 'currentColor' },
};

async function draw(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile({ ...spec, config: CONFIG }).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

const colourScale = (names: readonly string[]): { domain: string[]; range: string[] } => {
  const domain = [...new Set(names)];
  let others = 0;
  return { domain, range: domain.map((name) => COLOURS[name] ?? OTHERS[others++ % OTHERS.length] ?? '#888') };
};

/** Powers of ten around these values: a logarithmic axis' own ticks are a thicket. */
function decades(values: readonly number[]): number[] {
  const from = Math.floor(Math.log10(Math.min(...values)));
  const to = Math.ceil(Math.log10(Math.max(...values)));
  return Array.from({ length: to - from + 1 }, (_, i) => Number((10 ** (from + i)).toPrecision(1)));
}

/** Height of grouped bars: a fixed room a bar and a gap a group. */
const rows = (values: readonly { what: string }[]): number => values.length * 13 + new Set(values.map(({ what }) => what)).size * 10;

/** Rates as shares of the plain bridge's, with the demanded least as a tick. */
export async function ratioBars(figures: readonly Figure[]): Promise<Chart | undefined> {
  const shares = figures.map((figure) => (figure.unit === 'of the bridge' ? { ...figure, against: 'plain', ratio: figure.value } : figure));
  const values = shares
    .filter((figure) => figure.against === 'plain' && !figure.lowerIsBetter && figure.ratio !== null && (figure.section === 'intra-group' || figure.section === 'external') && !/epochs/.test(figure.variant))
    .map((figure) => ({ what: figure.name.replace(/, pcap$/, ''), variant: figure.variant, ratio: figure.ratio, goal: figure.target }));
  if (values.length === 0) return undefined;
  const y = { field: 'what', type: 'nominal' as const, sort: null, axis: { title: null, labelLimit: 700 } };
  const svg = await draw({
    data: { values }, width: WIDTH - 340, height: rows(values),
    layer: [
      { mark: { type: 'bar', tooltip: true }, encoding: {
        y, yOffset: { field: 'variant' }, x: { field: 'ratio', type: 'quantitative', title: 'share of the plain bridge' },
        color: { field: 'variant', scale: colourScale(values.map(({ variant }) => variant)) },
      } },
      { mark: { type: 'rule', strokeDash: [4, 3] }, encoding: { x: { datum: 1 } } },
      { transform: [{ filter: 'isValid(datum.goal)' }], mark: { type: 'tick', thickness: 2, color: '#c8536b' }, encoding: { y, x: { field: 'goal', type: 'quantitative' } } },
    ],
  });
  return { title: 'Rates beside the plain bridge', svg, caption: 'Dashed: the plain bridge in the same run. Red tick: the goal. Longer is better.' };
}

/** Headline: one group of bars a figure, logarithmic, since the differences are orders of magnitude. */
export async function headlineBars(outcomes: readonly Outcome[]): Promise<Chart | undefined> {
  const values = outcomes.filter(({ scenario }) => scenario.section === 'headline').flatMap(({ scenario, result }) =>
    scenario.quantities.filter(({ key, unit }) => ['inside', 'outside', 'latency', 'pingPong', 'ring'].includes(key) && (unit === 'ms' || unit === 'us')).flatMap(({ key, name, unit }) =>
      scenario.variants.flatMap(({ name: variant }) => {
        const samples = result.variants[variant]?.values[key] ?? [];
        return samples.length === 0 ? [] : [{ what: name, variant, ms: median(samples) / (unit === 'us' ? 1e3 : 1) }];
      })));
  if (values.length === 0) return undefined;
  const from = Math.min(...values.map(({ ms }) => ms)) / 2; // a logarithmic bar needs a foot
  const svg = await draw({
    data: { values }, width: WIDTH - 340, height: rows(values),
    mark: { type: 'bar' },
    encoding: {
      y: { field: 'what', type: 'nominal', sort: null, axis: { title: null, labelLimit: 700 } }, yOffset: { field: 'variant', sort: ['plain', 'group', 'per-VM'] },
      x: { field: 'ms', type: 'quantitative', scale: { type: 'log', domainMin: from, nice: false }, axis: { values: decades(values.map(({ ms }) => ms)), format: '~g' }, title: 'milliseconds, logarithmic' },
      x2: { datum: from },
      color: { field: 'variant', scale: colourScale(['plain', 'group', 'per-VM']) },
    },
  });
  return { title: 'Chains and MPI: no protection, per-VM buffering, one group', svg, caption: 'At equal epochs of 25 ms. Shorter is better; the scale is logarithmic.' };
}

interface Point {
  readonly x: number;
  readonly series: string;
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Every quantity of one unit over the variants that have an x; a variant without one is a dashed line. */
export async function lines({ scenario, result }: Outcome, unit: string): Promise<Chart | undefined> {
  const quantities = scenario.quantities.filter((quantity) => quantity.unit === unit);
  const of = (variant: string, key: string): readonly number[] => result.variants[variant]?.values[key] ?? [];
  const points = quantities.flatMap(({ key, name }) => scenario.variants.flatMap(({ name: variant, x, series }): Point[] => {
    const samples = of(variant, key);
    return x === undefined || samples.length === 0 ? [] : [{ x, series: series ?? name, value: median(samples), low: quantile(samples, 0.25), high: quantile(samples, 0.75) }];
  }));
  if (new Set(points.map(({ x }) => x)).size < 2) return undefined; // no line through one point
  const base = quantities.flatMap(({ key }) => scenario.variants.filter(({ name, x }) => x === undefined && of(name, key).length > 0).map(({ name }) => ({ name, value: median(of(name, key)) })));
  const svg = await draw(lineSpec(points, base, { x: scenario.xLabel ?? '', y: unit === '' ? 'share' : unit }));
  const dashed = [...new Set(base.map(({ name }) => (name === 'plain' ? 'plain bridge' : name)))].join(', ');
  return { title: quantities.length === 1 ? (quantities[0]?.name ?? '') : scenario.name, svg, caption: `${scenario.arguments}. Band: the middle half of the laps${dashed === '' ? '' : `; dashed: ${dashed}`}.` };
}

function lineSpec(points: readonly Point[], base: readonly { name: string; value: number }[], titles: { x: string; y: string }): TopLevelSpec {
  const all = [...points, ...base].map(({ value }) => value);
  const wide = Math.max(...all) / Math.min(...all) > 30;
  const scale = wide ? { type: 'log' as const } : { zero: true };
  const x = {
    field: 'x', type: 'quantitative' as const, title: titles.x, scale: { type: 'log' as const, nice: false },
    axis: { values: [...new Set(points.map((point) => point.x))], grid: false },
  };
  const y = { field: 'value', type: 'quantitative' as const, title: titles.y, scale, axis: wide ? { values: decades(all), format: '~g' } : { tickCount: 5 } };
  const names = [...new Set(points.map(({ series }) => series))];
  const color = { field: 'series', scale: { domain: names, range: LINES.slice(0, names.length) }, legend: names.length > 1 ? { labelLimit: 600, columns: 1 } : null };
  return {
    width: WIDTH - 80, height: 200, data: { values: [...points] },
    layer: [
      { mark: { type: 'area', opacity: 0.2 }, encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' }, color } },
      { mark: { type: 'line', point: true }, encoding: { x, y, color } },
      { data: { values: [...base] }, mark: { type: 'rule', strokeDash: [4, 3] }, encoding: { y } },
    ],
  };
}

/** How single observations of one variant are spread. */
export async function histogram({ scenario, result }: Outcome, variant: string, series: string): Promise<Chart | undefined> {
  const observed = result.variants[variant]?.series[series] ?? [];
  if (observed.length < 20) return undefined;
  const most = quantile(observed, 0.995);
  const above = observed.filter((value) => value > most).length;
  const svg = await draw({
    width: WIDTH - 80, height: 180, data: { values: observed.map((value) => ({ value: Math.min(value, most) })) },
    mark: { type: 'bar', color: '#2f80d0' },
    encoding: { x: { field: 'value', bin: { maxbins: 50 }, title: series }, y: { aggregate: 'count', title: 'frames' } },
  });
  return { title: `${scenario.name}, ${variant}`, svg, caption: `${scenario.arguments}. ${observed.length} observations${above === 0 ? '' : `; the last bar gathers the highest ${above}`}.` };
}

/** Values of a peers' scenario side by side; where all are zero the table says it. */
export async function valueBars({ scenario, result }: Outcome, quantity: Quantity): Promise<Chart | undefined> {
  const values = scenario.variants.flatMap(({ name }) => {
    const samples = result.variants[name]?.values[quantity.key] ?? [];
    return samples.length === 0 ? [] : [{ variant: name, value: median(samples) }];
  });
  if (values.length < 2 || values.every(({ value }) => value === 0)) return undefined;
  const svg = await draw({
    width: WIDTH - 200, height: { step: 22 }, data: { values }, mark: { type: 'bar' },
    encoding: {
      y: { field: 'variant', type: 'nominal', sort: null, axis: { title: null, labelLimit: 700 } }, x: { field: 'value', type: 'quantitative', title: quantity.unit },
      color: { field: 'variant', scale: colourScale(values.map(({ variant }) => variant)), legend: null },
    },
  });
  return { title: quantity.name, svg, caption: `${scenario.topology}. ${scenario.arguments}.` };
}

/** Every chart a person wants, in the report's order. */
export async function charts(outcomes: readonly Outcome[], figures: readonly Figure[]): Promise<Chart[]> {
  const all: (Chart | undefined)[] = [await headlineBars(outcomes), await ratioBars(figures)];
  for (const outcome of outcomes) {
    const { scenario, result } = outcome;
    const drawn = scenario.variants.filter(({ x }) => x !== undefined).length > 1 && scenario.name !== 'memory a held byte';
    if (drawn) for (const unit of new Set(scenario.quantities.map((quantity) => quantity.unit))) all.push(await lines(outcome, unit));
    if (scenario.section === 'peers') for (const quantity of scenario.quantities) all.push(await valueBars(outcome, quantity));
    if (scenario.name === 'hold time') all.push(await histogram(outcome, '25 ms epochs', 'hold time, ms'));
    if (result.variants['1 frame'] !== undefined) all.push(await histogram(outcome, '1 frame', 'commit to first frame, ms'));
  }
  return all.filter((chart) => chart !== undefined);
}
