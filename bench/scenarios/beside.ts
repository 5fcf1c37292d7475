/**
 * What the gate costs TCP between two members, told apart from the machine's own moods: two beds at
 * once on the same cores, streams over both, one of them through the gate.
 *
 *   core 0   sender over the gate │ sender over the plain bridge      the scheduler gives each half
 *   core 1   receiver             │ receiver
 *   bytes to each receiver's port, window by window ─► gated / plain
 *
 * The senders' core is what bounds both (a sender's frames are classified, bridged and received in its own
 * time), so the ratio is that of their costs, whatever speed the machine happens to have: it changes threefold within
 * seconds here, which runs that stand one after the other take for the gate's. A control, neither gated,
 * shows what the method itself sees where there is nothing to see. It is sensitive: 2 us of
 * waiting put into `classify` read 0.87, as they should at that rate.
 *
 * It says nothing of a stream that has the machine for itself, where another core could take part of the work.
 */
import { readFileSync } from 'node:fs';
import { Bed, type Place } from '../bed/bed.ts';
import { namespacePath, sleep } from '../bed/commands.ts';
import { Engine } from '../bed/engine.ts';
import { iperf } from '../bed/iperf.ts';
import { inNamespace } from '../bed/libc.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Context, Lap, Quantity, Reading, Scenario, Variant } from '../scenario.ts';

const WINDOW_MS = 500;
const WINDOWS = 20;
/** Slow start. */
const BEGIN_MS = 2000;
/** The two streams don't begin in the same moment, nor are windows read on time. */
const SLACK_MS = 2000;
const HOLD_BYTES = '16MiB';
const SENT_BYTES = 8;
const CONTROL = 'neither gated';
export const VARIANTS: readonly Variant[] = [{ name: CONTROL }, { name: 'group' }];

/** Bytes a port of a bridge has sent. */
export function sentBytes(namespace: string, port: string): number {
  const table = inNamespace(namespacePath(namespace), () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  const columns = new RegExp(`^\\s*${port}:\\s*(.*)$`, 'm').exec(table)?.[1]?.split(/\s+/);
  return Number(columns?.[SENT_BYTES] ?? Number.NaN);
}

/** One bed's two members. */
export interface Road {
  readonly id: string;
  readonly from: Place;
  readonly to: Place;
  /** Bytes that the port of one of them has sent. */
  readonly sent: (to: Place) => number;
}
export interface Pair {
  readonly gated: Road;
  readonly plain: Road;
  readonly streams: number;
  readonly protect: () => Promise<unknown>;
  readonly unprotect: () => Promise<unknown>;
}

/** Gated over plain of each window, from bytes counted at its ends. */
export const shares = (counts: readonly (readonly [gated: number, plain: number])[]): number[] =>
  counts.slice(1).map(([gated, plain], i) => (gated - (counts[i]?.[0] ?? Number.NaN)) / (plain - (counts[i]?.[1] ?? Number.NaN)));

async function streamed({ gated, plain, streams }: Pair, reverse: boolean): Promise<[number, number][]> {
  const seconds = Math.ceil((BEGIN_MS + WINDOWS * WINDOW_MS + SLACK_MS) / 1e3);
  const counts: [number, number][] = [];
  let over = 0;
  const runs = [gated, plain].map((road) => iperf(road, { from: road.from, to: road.to, seconds, reverse, streams }).finally(() => (over += 1)));
  const measured = (async () => {
    await sleep(BEGIN_MS);
    for (let i = 0; i <= WINDOWS; i++) {
      counts.push([gated.sent(reverse ? gated.from : gated.to), plain.sent(reverse ? plain.from : plain.to)]);
      if (over > 0) throw new Error(`a stream ended before window ${i + 1} of ${WINDOWS}`);
      if (i < WINDOWS) await sleep(WINDOW_MS);
    }
  })();
  await Promise.all([...runs, measured]);
  return counts;
}

/** Both directions: `share`, `shareReverse`. */
export async function beside(context: Context, lap: Lap, pair: Pair): Promise<Reading> {
  const values: Record<string, number> = {};
  const isGated = lap.variant !== CONTROL;
  if (isGated) await pair.protect();
  try {
    for (const reverse of [false, true]) {
      const counts = await streamed(pair, reverse);
      const ratios = shares(counts);
      context.raw(lap, `windows${reverse ? '-reverse' : ''}.json`, JSON.stringify(counts));
      context.say(`${reverse ? 'reverse: ' : ''}quartiles ${quantile(ratios, 0.25).toFixed(3)} to ${quantile(ratios, 0.75).toFixed(3)} over ${ratios.length} windows`);
      values[reverse ? 'shareReverse' : 'share'] = median(ratios);
    }
  } finally {
    if (isGated) await pair.unprotect();
  }
  return { values };
}

/** The quantities of `beside`. */
export const shareOf = (name: string): Quantity[] => (['', ', reverse'] as const).map((way) =>
  ({ key: `share${way === '' ? '' : 'Reverse'}`, name: `${name}${way}`, unit: 'of the bridge', demands: [{ variant: 'group', by: 'value', floor: 0.97, target: 1 }] }));
export const argumentsOf = (streams: number): string =>
  `iperf3 -P ${streams} over both at once, senders on one core, receivers on another, a run each direction: ${WINDOWS} windows of ${WINDOW_MS} ms`;
export const NOTE = `'${CONTROL}' is the method's own error: the same streams, and protection on neither.`;

const besideWith = (streams: number): Scenario => {
  const what = `intra-group TCP beside the plain bridge, ${streams === 1 ? 'one stream' : `${streams} streams`}`;
  return {
    name: what, section: 'intra-group', variants: VARIANTS, baseline: false, warmUpLap: false, lapsMax: 3, shown: true,
    topology: 'two members (veth into namespaces) on one Linux bridge, and the same once more without a gate',
    arguments: argumentsOf(streams), quantities: shareOf(what), note: NOTE,
    open: async (context) => {
      const beds: Bed[] = [];
      try {
        for (let i = 0; i < 2; i++) beds.push(await Bed.create({ members: ['veth', 'veth'] }));
      } catch (error) {
        await beds[0]?.close();
        throw error;
      }
      const [bed, other] = beds as [Bed, Bed];
      let engine: Engine | undefined;
      const road = (of: Bed): Road => ({ id: of.id, from: of.member(0), to: of.member(1), sent: ({ port }) => sentBytes(of.host, port) });
      return {
        lap: async (lap): Promise<Reading> => {
          if (engine === undefined) {
            await bed.daemon().start('live');
            engine = new Engine(bed.daemon().api, 'g');
          }
          const one = engine;
          return beside(context, lap, {
            gated: road(bed), plain: road(other), streams,
            protect: () => one.protect(bed.groupFile('g', { hold: { bytes: HOLD_BYTES } })),
            unprotect: () => one.unprotect('discard'),
          });
        },
        close: async () => {
          await other.close();
          await bed.close();
        },
      };
    },
  };
};

export const besides: readonly Scenario[] = [besideWith(1), besideWith(4)];
