/**
 * The live figures: one sampler for all who watch, running only while somebody does.
 *
 *     every sampleMs      held bytes of each group ─► samples (bounded)
 *     every MESSAGE_MS    one picture + the samples since the last ─► each client (sse.ts)
 *
 * Held bytes are a sawtooth with teeth as short as an epoch: a picture a quarter of a second apart
 * would show noise. So they are sampled here, from memory the hold loop shares, a few microseconds
 * each. With many groups the samples are further apart; their own times are told. Bounds:
 * SAMPLES_MAX a group and message; what a stalled event loop missed is missing, not made up.
 */
import type { GroupState } from '../core/types.ts';
import { HOLD_BUCKETS_MS, WIRE_BUCKETS_MS } from '../ports.ts';
import { groupView } from './answer.ts';
import { may } from './caller.ts';
import type { Caller } from './caller.ts';
import type { Figures, GroupFigures } from './contract.ts';
import type { ApiDeps } from './deps.ts';

const MESSAGE_MS = 250;
const SAMPLE_MS_MIN = 5;
const SAMPLES_MAX = 64;

interface Samples {
  atMs: number[];
  heldBytes: number[];
}
type Listener = (figures: Figures) => void;

const wallMs = (): number => Math.round((performance.timeOrigin + performance.now()) * 10) / 10;

export function figuresOf(deps: ApiDeps, samples?: ReadonlyMap<string, Samples>): Figures {
  const missing = [...deps.health.missing()];
  return {
    atMs: wallMs(),
    host: deps.host,
    version: deps.version,
    ready: missing.length === 0,
    missing,
    guards: guardsOf(deps),
    ...(deps.across === undefined ? {} : { across: deps.across() }),
    groups: deps.control.list().map((state) => groupFigures(deps, state, samples?.get(state.spec.group))),
  };
}

function guardsOf(deps: ApiDeps): Figures['guards'] {
  const sum = { leakBlocked: 0, releaseRefused: 0, unvetted: 0, confined: 0 };
  for (const port of deps.metrics.ports()) {
    sum.leakBlocked += port.leakBlocked;
    sum.releaseRefused += port.refused;
    sum.unvetted += port.unvetted;
    sum.confined += port.confined;
  }
  return sum;
}

function groupFigures({ control }: ApiDeps, state: GroupState, samples: Samples | undefined): GroupFigures {
  const { group } = state.spec;
  const counters = control.counters(group);
  return {
    ...groupView(state, counters, control.hosts(group)),
    hold: {
      bytesMax: state.spec.hold.bytes,
      highWater: state.spec.hold.highWater,
      occupancy: counters?.occupancy ?? 0,
      arrivedFrames: counters?.arrived ?? 0,
      arrivedBytes: counters?.arrivedBytes ?? 0,
      releasedFrames: counters?.releasedFrames ?? 0,
      releasedBytes: counters?.releasedBytes ?? 0,
      earlyFrames: counters?.earlyFrames ?? 0,
      lateRecorded: counters?.lateRecorded ?? 0,
      redelivered: counters?.redelivered ?? 0,
    },
    holdTime: spread(HOLD_BUCKETS_MS, counters?.holdHistogram, counters?.holdSumMs),
    toWire: spread(WIRE_BUCKETS_MS, counters?.wireHistogram, counters?.wireSumMs),
    samples: samples ?? { atMs: [], heldBytes: [] },
  };
}

const spread = (bounds: readonly number[], counts: readonly number[] | undefined, sumMs = 0): GroupFigures['holdTime'] => ({
  boundsMs: [...bounds],
  counts: counts === undefined ? bounds.concat(0).map(() => 0) : [...counts],
  sumMs,
});

/** The part of a picture that this caller may see: of one group, or of all that are theirs. */
export function seenBy(caller: Caller, figures: Figures, group: string | undefined): Figures {
  const groups = figures.groups.filter((one) => (group === undefined || one.group === group) && may(caller, 'observe', one.group));
  if (may(caller, 'observe', undefined)) return { ...figures, groups };
  const { atMs, host, version, ready, guards } = figures; // not `across`: other groups' hosts
  return { atMs, host, version, ready, missing: [], guards, groups };
}

export class FigureSampler {
  readonly #deps: ApiDeps;
  readonly #listeners = new Set<Listener>();
  #samples = new Map<string, Samples>();
  #timers: NodeJS.Timeout[] = [];
  #nextMs = 0;

  constructor(deps: ApiDeps) {
    this.#deps = deps;
  }

  /** The first picture comes at once. Returns the call that ends the watching. */
  watch(listener: Listener): () => void {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#begin();
    listener(figuresOf(this.#deps));
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#end();
    };
  }

  #begin(): void {
    this.#timers = [setInterval(() => this.#sample(), SAMPLE_MS_MIN), setInterval(() => this.#tell(), MESSAGE_MS)];
    for (const timer of this.#timers) timer.unref();
  }

  #end(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#samples.clear();
  }

  /** With more than five groups one round a millisecond for each, so that the cost stays the same. */
  #sample(): void {
    const atMs = wallMs();
    if (atMs < this.#nextMs) return;
    const groups = this.#deps.control.list();
    this.#nextMs = groups.length <= SAMPLE_MS_MIN ? 0 : atMs + groups.length;
    for (const { spec: { group } } of groups) {
      const held = this.#deps.control.counters(group)?.heldBytes;
      if (held === undefined) continue;
      const samples = this.#samples.get(group) ?? { atMs: [], heldBytes: [] };
      this.#samples.set(group, samples);
      if (samples.atMs.length >= SAMPLES_MAX) continue;
      samples.atMs.push(atMs);
      samples.heldBytes.push(held);
    }
  }

  #tell(): void {
    const figures = figuresOf(this.#deps, this.#samples);
    this.#samples = new Map();
    for (const listener of this.#listeners) listener(figures);
  }
}
