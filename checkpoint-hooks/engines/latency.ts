/**
 * Samples of a duration with a bound: the newest SAMPLES_MAX are kept, older ones are written over
 * (a ring), the count goes on. Quantiles are therefore exact up to SAMPLES_MAX samples and those
 * of the newest ones after that.
 */
const SAMPLES_MAX = 65_536;

/** Milliseconds, but for the count. */
export interface LatencySummary {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export class Latency {
  private readonly samplesMs: Float64Array;
  private count = 0;
  private maxMs = 0;

  constructor(samplesMax: number = SAMPLES_MAX) {
    this.samplesMs = new Float64Array(samplesMax);
  }

  add(ms: number): void {
    this.samplesMs[this.count % this.samplesMs.length] = ms;
    this.count += 1;
    if (ms > this.maxMs) this.maxMs = ms;
  }

  /** Sorts a copy: for the end of a run, not for its middle. Zeros when nothing was added. */
  summary(): LatencySummary {
    const sorted = this.samplesMs.slice(0, Math.min(this.count, this.samplesMs.length)).sort();
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
    return { count: this.count, p50: at(0.5), p99: at(0.99), max: this.maxMs };
  }
}
