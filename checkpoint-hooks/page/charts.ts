/**
 * The page's drawings: held bytes and hold times by uPlot, epochs by hand on a canvas. Colours come
 * from the style sheet and are read again at each change of the colour scheme.
 */
import type uPlotType from 'uplot';
import { BYTE_UNITS, msText } from '../format.ts';
import type { GroupFigures } from '../../proxy/api/contract.ts';
import type { EpochRow, GroupHistory } from './history.ts';
import { css } from './parts.ts';

/** Made by uPlot's own file, which the page loads before. */
declare const uPlot: typeof uPlotType;

const PLOT_HEIGHT = 210;
const LANES = 6;
/** Narrower bars have no number. */
const LABEL_PX_MIN = 26;

function axis(values: (marks: readonly number[]) => string[], size: number): uPlotType.Axis {
  const line = { stroke: css('--line'), width: 1 };
  return { stroke: css('--quiet'), grid: line, ticks: { ...line, size: 4 }, size, font: '12px system-ui, sans-serif', values: (_plot, marks) => values(marks) };
}
const secondsText = (marks: readonly number[]): string[] => marks.map((mark) => (mark === 0 ? 'now' : `${Number(mark.toFixed(2))} s`));
/** The unit an axis up to `high` is shown in, all of it: which of BYTE_UNITS. */
const unitOf = (high: number): number => Math.max(0, Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024) + 1e-9));
/** Steps of 1, 2 or 5 times a power of ten, of that unit. */
const byteMarks = (_plot: uPlotType, _axis: number, low: number, high: number): number[] => {
  const unit = 1024 ** unitOf(high);
  const rough = (high - low) / unit / 4;
  const step = ([1, 2, 5].map((n) => n * 10 ** Math.floor(Math.log10(rough))).findLast((n) => n <= rough) ?? rough) * unit;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, i) => i * step);
};

const bytesMarked = (marks: readonly number[]): string[] => {
  const unit = unitOf(Math.max(...marks));
  return marks.map((mark) => (mark === 0 ? '0' : `${Number((mark / 1024 ** unit).toFixed(2))} ${BYTE_UNITS[unit] ?? ''}`));
};

/** A plot is made anew when its width or the colour scheme changes: both are rare. */
class Plot {
  readonly #into: HTMLElement;
  readonly #options: () => Omit<uPlotType.Options, 'width' | 'height'>;
  #plot: uPlotType | undefined;
  #key = '';

  constructor(into: HTMLElement, options: () => Omit<uPlotType.Options, 'width' | 'height'>) {
    this.#into = into;
    this.#options = options;
  }

  show(data: uPlotType.AlignedData, kind = ''): void {
    const width = Math.floor(this.#into.clientWidth);
    if (width === 0) return;
    const key = `${width} ${css('--accent')} ${kind}`;
    if (key === this.#key) {
      this.#plot?.setData(data);
      return;
    }
    this.#key = key;
    this.#plot?.destroy();
    this.#plot = new uPlot({ width, height: PLOT_HEIGHT, cursor: { show: false }, legend: { show: false }, ...this.#options() }, data, this.#into);
  }
}

export class HeldChart {
  readonly #plot: Plot;
  #windowMs = 0;
  #mostBytes = 0;

  constructor(into: HTMLElement) {
    this.#plot = new Plot(into, () => ({
      scales: { x: { time: false, range: () => [-this.#windowMs / 1000, 0] }, y: { range: () => [0, Math.max(1024, this.#mostBytes * 1.08)] } },
      axes: [axis(secondsText, 28), { ...axis(bytesMarked, 72), splits: byteMarks }],
      series: [{}, { stroke: css('--accent'), fill: css('--fill'), width: 1.25, points: { show: false } }],
    }));
  }

  show(history: GroupHistory, nowMs: number, windowMs: number): void {
    this.#windowMs = windowMs;
    const from = history.atMs.findIndex((atMs) => atMs >= nowMs - windowMs);
    const begin = from < 0 ? history.atMs.length : Math.max(0, from - 1);
    const heldBytes = history.heldBytes.slice(begin);
    this.#mostBytes = heldBytes.reduce((most, one) => Math.max(most, one), 0); // of the sample beyond the edge too: the line leads there
    this.#plot.show([history.atMs.slice(begin).map((atMs) => (atMs - nowMs) / 1000), heldBytes], String(windowMs));
  }
}

const boundText = (ms = 0): string => (ms >= 1000 ? `${ms / 1000} s` : msText(ms).replace(/\.0+ /, ' '));

export class HoldTimeChart {
  readonly #into: HTMLElement;
  readonly #plot: Plot;
  #bounds: readonly number[] = [];

  constructor(into: HTMLElement) {
    this.#into = into;
    const { bars } = uPlot.paths;
    this.#plot = new Plot(into, () => ({
      scales: { x: { time: false, range: () => [-0.6, this.#bounds.length + 0.6] }, y: { range: (_plot, _low, high) => [0, Math.max(0.1, high * 1.1)] } },
      axes: [
        { ...axis((marks) => marks.map((i) => boundText(this.#bounds[i])), 30), splits: () => this.#marks() },
        axis((marks) => marks.map((share) => `${Number((share * 100).toFixed(1))} %`), 48),
      ],
      series: [{}, { ...(bars === undefined ? {} : { paths: bars({ size: [0.85, 60] }) }), fill: css('--accent'), stroke: css('--accent'), width: 0, points: { show: false } }],
    }));
  }

  /** Each third or fifth bound: more would touch. */
  #marks(): number[] {
    const step = this.#into.clientWidth < 420 ? 5 : 3;
    return this.#bounds.flatMap((_, i) => (i % step === 0 ? [i] : []));
  }

  show({ boundsMs, counts }: GroupFigures['holdTime']): void {
    this.#bounds = boundsMs;
    const total = counts.reduce((sum, one) => sum + one, 0);
    this.#plot.show([counts.map((_, i) => i), counts.map((one) => (total === 0 ? 0 : one / total))]);
  }
}

/** Epochs as bars in lanes, so that those in flight at the same time lie below each other. */
export function drawEpochs(canvas: HTMLCanvasElement, rows: readonly EpochRow[], nowMs: number, windowMs: number): void {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const pen = canvas.getContext('2d');
  if (pen === null) return;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const x = (atMs: number): number => width * (1 - (nowMs - atMs) / windowMs);
  const lane = height / LANES;
  const colours = { open: css('--open'), waiting: css('--waiting'), releasing: css('--releasing'), lost: css('--lost'), text: css('--text') };
  pen.font = '11px system-ui, sans-serif';
  pen.textBaseline = 'middle';
  for (const [i, row] of rows.entries()) {
    const end = Math.min(row.lostMs ?? row.releasedMs ?? nowMs, nowMs);
    if (end < nowMs - windowMs || row.openedMs > nowMs) continue;
    const top = (row.n % LANES) * lane + 3;
    const bar = (from: number, to: number, colour: string): void => {
      pen.fillStyle = colour;
      pen.fillRect(x(from), top, Math.max(1, x(to) - x(from)), lane - 6);
    };
    bar(row.openedMs, Math.min(row.cutMs ?? end, end), colours.open);
    if (row.cutMs !== undefined) bar(Math.min(row.cutMs, end), Math.min(row.committedMs ?? end, end), colours.waiting);
    if (row.committedMs !== undefined) bar(Math.min(row.committedMs, end), end, colours.releasing);
    if (row.lostMs !== undefined) bar(row.lostMs, row.lostMs + windowMs / 200, colours.lost);
    const left = Math.max(0, x(row.openedMs));
    const next = rows[i + LANES]; // in the same lane: it may begin before this one ends
    const right = Math.min(x(end), next === undefined ? width : x(next.openedMs));
    if (right - left < LABEL_PX_MIN) continue;
    pen.fillStyle = colours.text;
    pen.fillText(String(row.epoch), left + 4, top + lane / 2 - 3, right - left - 6);
  }
}
