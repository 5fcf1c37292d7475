/**
 * What the gate costs traffic between two members, told apart from the machine's own moods: two beds at
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
import { iperf, type IperfRun } from '../bed/iperf.ts';
import { inNamespace } from '../bed/libc.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Context, Lap, Quantity, Reading, Scenario, Variant } from '../scenario.ts';

/** `beginMs`: slow start, not counted. */
export interface Pace {
  readonly beginMs: number;
  readonly windowMs: number;
  readonly windows: number;
}
const PACE: Pace = { beginMs: 1000, windowMs: 500, windows: 8 };
/** The two streams don't begin in the same moment, nor are windows read on time. */
const SLACK_MS = 2000;
const HOLD_BYTES = '16MiB';
const SENT_BYTES = 8;
/** Of the bridge. */
export const FLOOR = 0.97;
const CONTROL = 'neither gated';
export const VARIANTS: readonly Variant[] = [{ name: CONTROL }, { name: 'group' }];

/** Bytes a port of a bridge has sent. */
export function sentBytes(namespace: string, port: string): number {
  const table = inNamespace(namespacePath(namespace), () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  const columns = new RegExp(`^\\s*${port}:\\s*(.*)$`, 'm').exec(table)?.[1]?.split(/\s+/);
  return Number(columns?.[SENT_BYTES] ?? Number.NaN);
}

/** TCP streams, or datagrams as fast as they go. */
export type Load = Pick<IperfRun, 'streams' | 'udpMbps' | 'udpBytes'>;
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
  /** What goes over both. */
  readonly load: Load;
  readonly protect: () => Promise<unknown>;
  readonly unprotect: () => Promise<unknown>;
}

/** Gated over plain of each window, from bytes counted at its ends. */
export const shares = (counts: readonly (readonly [gated: number, plain: number])[]): number[] =>
  counts.slice(1).map(([gated, plain], i) => (gated - (counts[i]?.[0] ?? Number.NaN)) / (plain - (counts[i]?.[1] ?? Number.NaN)));

/** Bytes over both at the windows' ends, one more than windows. */
export async function streamed({ gated, plain, load }: Pick<Pair, 'gated' | 'plain' | 'load'>, reverse: boolean, { beginMs, windowMs, windows }: Pace = PACE): Promise<[number, number][]> {
  const seconds = Math.ceil((beginMs + windows * windowMs + SLACK_MS) / 1e3);
  const counts: [number, number][] = [];
  let over = 0;
  const runs = [gated, plain].map((road) => iperf(road, { from: road.from, to: road.to, seconds, reverse, ...load }).finally(() => (over += 1)));
  const measured = (async () => {
    await sleep(beginMs);
    for (let i = 0; i <= windows; i++) {
      counts.push([gated.sent(reverse ? gated.from : gated.to), plain.sent(reverse ? plain.from : plain.to)]);
      if (over > 0) throw new Error(`a stream ended before window ${i + 1} of ${windows}`);
      if (i < windows) await sleep(windowMs);
    }
  })();
  const ended = await Promise.allSettled([...runs, measured]); // none goes on under the next run
  for (const one of ended) if (one.status === 'rejected') throw one.reason;
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

/** The quantities of `beside`. Without a floor they are shown only. */
export const shareOf = (name: string, floor?: number): Quantity[] => (['', ', reverse'] as const).map((way) =>
  ({ key: `share${way === '' ? '' : 'Reverse'}`, name: `${name}${way}`, unit: 'of the bridge', demands: [{ variant: 'group', by: 'value', ...(floor === undefined ? {} : { floor, target: 1 }) }] }));
export const argumentsOf = ({ udpBytes, streams }: Load): string =>
  `iperf3 ${udpBytes === undefined ? `-P ${streams ?? 1}` : `-u -b 0 -l ${udpBytes}`} over both at once, senders on one core, receivers on another, a run each direction: ${PACE.windows} windows of ${PACE.windowMs} ms`;
export const NOTE = `'${CONTROL}' is the method's own error: the same traffic, and protection on neither.`;

/** From the first member to the second. */
export const roadOf = (bed: Bed): Road => ({ id: bed.id, from: bed.member(0), to: bed.member(1), sent: ({ port }) => sentBytes(bed.host, port) });

async function twoBeds(): Promise<[Bed, Bed]> {
  const bed = await Bed.create({ members: ['veth', 'veth'] });
  try {
    return [bed, await Bed.create({ members: ['veth', 'veth'] })];
  } catch (error) {
    await bed.close();
    throw error;
  }
}

const besideWith = (what: string, load: Load): Scenario => {
  const name = `intra-group ${what} beside the plain bridge`;
  return {
    name, section: 'intra-group', variants: VARIANTS, baseline: false, warmUpLap: false, lapsMax: 2, shown: true,
    topology: 'two members (veth into namespaces) on one Linux bridge, and the same once more without a gate',
    arguments: argumentsOf(load), quantities: shareOf(name, FLOOR), note: NOTE,
    open: async (context) => {
      const [bed, other] = await twoBeds();
      let engine: Engine | undefined;
      return {
        lap: async (lap): Promise<Reading> => {
          if (engine === undefined) {
            await bed.daemon().start('live');
            engine = new Engine(bed.daemon().api, 'g');
          }
          const one = engine;
          return beside(context, lap, {
            gated: roadOf(bed), plain: roadOf(other), load,
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

export const besides: readonly Scenario[] = [
  besideWith('TCP, 1 stream,', { streams: 1 }),
  besideWith('TCP, 4 streams,', { streams: 4 }),
  ...[64, 1400].map((udpBytes) => besideWith(`UDP, ${udpBytes} B,`, { udpMbps: 0, udpBytes })),
];
