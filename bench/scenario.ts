/**
 * What a measurement is: a row of the bench's table. A scenario measures some quantities under some
 * variants (plain bridge, group, per-VM, a peer …) and says what they must reach; the runner
 * (runner.ts) alternates the variants and keeps medians and spread; the report draws them.
 *
 *   open ─► warm-up lap: each variant once, thrown away
 *        ─► lap 1: v0 v1 v2    lap 2: v2 v1 v0    lap 3: v0 v1 v2 …      one Reading each
 *        ─► close                                  always, whatever failed
 *
 * The first variant is the baseline. A scenario holds data only; everything it makes is made by
 * `open` and gone after `close`. What can't be measured on this machine throws Unavailable: the
 * report lists it with its reason, it is never a figure.
 *
 * To add one: a module in bench/scenarios/ that exports `readonly Scenario[]`, and its name in
 * bench/table.ts.
 */

export const SECTIONS = ['headline', 'intra-group', 'external', 'epoch calls', 'growth', 'hosts', 'peers'] as const;
export type Section = (typeof SECTIONS)[number];

export interface Variant {
  /** Short and unique in its scenario: 'plain', 'group', 'per-VM', 'pcap', '25 ms', '64 groups'. */
  readonly name: string;
  /** Place on the x axis: variants that have one are drawn as a line, the others as bars. */
  readonly x?: number;
  /** Which line of the chart; 'Sluice' unless told. */
  readonly series?: string;
}

/** What a variant must reach in one quantity. */
export interface Demand {
  readonly variant: string;
  /** Judged is value/baseline, baseline/value (a speed-up), or the value by itself. */
  readonly by: 'ratio' | 'speed-up' | 'value';
  /** Baseline of this demand; the scenario's first variant unless told. */
  readonly against?: string;
  /** Missed by more than the room for noise, the bench fails. Least; most for lower-is-better, unless a speed-up. None: shown only. */
  readonly floor?: number;
  /** What it should reach; shown, never a failure. */
  readonly target?: number;
}

export interface Quantity {
  /** Key of a Reading's values. */
  readonly key: string;
  /** Of the figure, whole: 'intra-group TCP, 1 stream'. Unique over the table. */
  readonly name: string;
  readonly unit: string;
  readonly lowerIsBetter?: boolean;
  readonly demands?: readonly Demand[];
}

export interface Scenario {
  /** Unique; `--only` matches it. */
  readonly name: string;
  readonly section: Section;
  /** One line each for the report: what stands where, and what is run with which arguments. */
  readonly topology: string;
  readonly arguments: string;
  readonly variants: readonly Variant[];
  readonly quantities: readonly Quantity[];
  /** What a reader must know to read the figures right; shown beside them. */
  readonly note?: string;
  /** Also in `make bench-quick`. */
  readonly quick?: boolean;
  /** Measured only where `--only` says its name: it takes too long, or asks for too much, for every run. */
  readonly byName?: boolean;
  /** README shows it unfolded, although the quick run leaves it out. */
  readonly shown?: boolean;
  /** Variants that `make bench-quick` takes; all unless told. */
  readonly quickVariants?: readonly string[];
  /** Least laps of a full run, where the machine's noise is larger than what is judged. */
  readonly lapsMin?: number;
  /** Most laps, where one is dear; the runner's number unless told. */
  readonly lapsMax?: number;
  /** Label of the x axis, where variants have an x. */
  readonly xLabel?: string;
  /** False where a lap leaves its own warm-up out (iperf3 -O). */
  readonly warmUpLap?: boolean;
  /** False where the first variant is no baseline of the others: they stand side by side. */
  readonly baseline?: boolean;
  open(context: Context): Promise<Stage>;
}

/** Everything a scenario gets from outside. */
export interface Context {
  readonly say: (line: string) => void;
  /** Keeps what a tool said, whole: out/raw/<scenario>/<variant>-<lap>-<name>. */
  readonly raw: (lap: Lap, name: string, text: string) => void;
}

export interface Lap {
  readonly variant: string;
  /** 0 is the warm-up. */
  readonly number: number;
  /** How long a timed tool is to run. Counted work stays as it is. */
  readonly seconds: number;
}

/** One lap's outcome: a value for every quantity of the scenario that the variant has. */
export interface Reading {
  readonly values: Readonly<Record<string, number>>;
  /** Single observations (hold times, call times), kept for histograms. At most SERIES_MAX are kept. */
  readonly series?: Readonly<Record<string, readonly number[]>>;
}
export const SERIES_MAX = 5000;

export interface Stage {
  /** @throws Unavailable where this variant can't be had here: it is left out and listed. */
  lap(lap: Lap): Promise<Reading>;
  close(): Promise<void>;
}

/** This machine can't run it: no such package, no such kernel module. Listed with its reason. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable';
}
