/**
 * What the gate costs TCP between two members, told apart from the machine's own moods: one
 * bed, streams that run on, and protection that comes and goes under them.
 *
 *   ── on ──┬── off ──┬── on ──┬── off ──►     bytes to the receiver's port counted within each window
 *           └ skip    └ skip   └ skip          what the change itself costs is left out
 *
 * Each window is compared with the mean of its two neighbours; the figure is the median of that. A
 * lap of another scenario compares runs that stand seconds and a new connection apart: on a shared
 * machine that scatters by half, this by a tenth.
 */
import { readFileSync } from 'node:fs';
import { Bed, type Place } from '../bed/bed.ts';
import { namespacePath, sleep } from '../bed/commands.ts';
import { Engine } from '../bed/engine.ts';
import { iperf } from '../bed/iperf.ts';
import { inNamespace } from '../bed/libc.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Context, Lap, Quantity, Reading, Scenario } from '../scenario.ts';

const WINDOW_MS = 700;
const SKIP_MS = 300;
const WINDOWS = 40;
const WINDOWS_OF_MANY = 24;
/** Slow start. */
const BEGIN_MS = 1500;
/** A change of protection takes some 50 ms. */
const CHANGE_MS_MAX = 250;
const HOLD_BYTES = '16MiB';
const SENT_BYTES = 8;

/** Bytes a port of a bridge has sent. */
export function sentBytes(namespace: string, port: string): number {
  const table = inNamespace(namespacePath(namespace), () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  const columns = new RegExp(`^\\s*${port}:\\s*(.*)$`, 'm').exec(table)?.[1]?.split(/\s+/);
  return Number(columns?.[SENT_BYTES] ?? Number.NaN);
}

/** What streams run over, and how protection comes and goes under it. */
export interface Turnable {
  readonly id: string;
  readonly from: Place;
  readonly to: Place;
  /** Bytes that the receiver's port has sent. */
  readonly sent: (to: Place) => number;
  readonly protect: () => Promise<unknown>;
  readonly unprotect: () => Promise<unknown>;
  /** A change of protection takes no longer, on the mean: the stream must outlive them all. */
  readonly changeMsMax: number;
  readonly streams: number;
  readonly windows: number;
}

interface Window {
  readonly gated: boolean;
  readonly gbps: number;
}

async function window(sent: () => number, gated: boolean): Promise<Window> {
  await sleep(SKIP_MS);
  const [bytes, beganMs] = [sent(), performance.now()];
  await sleep(WINDOW_MS);
  return { gated, gbps: ((sent() - bytes) * 8) / (performance.now() - beganMs) / 1e6 };
}

/** Each window's share of its neighbours', gated against not. */
export function shares(windows: readonly Window[]): number[] {
  return windows.slice(1, -1).map(({ gated, gbps }, i) => {
    const beside = ((windows[i]?.gbps ?? Number.NaN) + (windows[i + 2]?.gbps ?? Number.NaN)) / 2;
    return gated ? gbps / beside : beside / gbps;
  });
}

async function turns(over: Turnable, reverse: boolean): Promise<Window[]> {
  const { from, to, protect, unprotect, changeMsMax, streams, windows } = over;
  const receiver = reverse ? from : to;
  const seconds = (BEGIN_MS + windows * (SKIP_MS + WINDOW_MS + changeMsMax)) / 1e3;
  let isOver = false;
  const stream = iperf(over, { from, to, seconds, reverse, streams }).finally(() => (isOver = true));
  const seen: Window[] = [];
  const measured = (async () => {
    await sleep(BEGIN_MS);
    for (let i = 0; i < windows; i++) {
      const gated = i % 2 === 1;
      if (gated) await protect();
      const one = await window(() => over.sent(receiver), gated);
      if (isOver) throw new Error(`the stream ended before window ${i + 1} of ${windows}: protection came and went too slowly`);
      seen.push(one);
      if (gated) await unprotect();
    }
  })();
  await Promise.all([stream, measured]);
  return seen;
}

/** Both directions: `share`, `shareReverse`. */
export async function turned(context: Context, lap: Lap, over: Turnable): Promise<Reading> {
  const values: Record<string, number> = {};
  for (const reverse of [false, true]) {
    const seen = await turns(over, reverse);
    const ratios = shares(seen);
    context.raw(lap, `windows${reverse ? '-reverse' : ''}.json`, JSON.stringify(seen));
    context.say(`${reverse ? 'reverse: ' : ''}quartiles ${quantile(ratios, 0.25).toFixed(3)} to ${quantile(ratios, 0.75).toFixed(3)} over ${ratios.length} windows`);
    values[reverse ? 'shareReverse' : 'share'] = median(ratios);
  }
  return { values };
}

/** The quantities of `turned`. */
export const shareOf = (name: string): Quantity[] => (['', ', reverse'] as const).map((way) =>
  ({ key: `share${way === '' ? '' : 'Reverse'}`, name: `${name}${way}`, unit: 'of the bridge', demands: [{ variant: 'group', by: 'value', floor: 0.97, target: 1 }] }));
export const argumentsOf = (streams: number, windows: number): string =>
  `iperf3 -P ${streams}, a run each direction, protection on and off by turns under it: ${windows} windows of ${WINDOW_MS} ms, each beside its two neighbours`;

const byTurnsWith = (streams: number, windows: number): Scenario => {
  const what = `intra-group TCP by turns under ${streams === 1 ? 'one stream' : `${streams} streams`}`;
  return {
    name: what, section: 'intra-group', variants: [{ name: 'group' }], baseline: false, warmUpLap: false, lapsMax: 1, shown: true,
    topology: 'two members (veth into namespaces) on one Linux bridge',
    arguments: argumentsOf(streams, windows), quantities: shareOf(what),
    open: async (context) => {
      const bed = await Bed.create({ members: ['veth', 'veth'] });
      return {
        lap: async (lap): Promise<Reading> => {
          if (lap.number === 1) await bed.daemon().start('live');
          const engine = new Engine(bed.daemon().api, 'g');
          return turned(context, lap, {
            id: bed.id, from: bed.member(0), to: bed.member(1), changeMsMax: CHANGE_MS_MAX, streams, windows,
            sent: ({ port }) => sentBytes(bed.host, port),
            protect: () => engine.protect(bed.groupFile('g', { hold: { bytes: HOLD_BYTES } })),
            unprotect: () => engine.unprotect('discard'),
          });
        },
        close: () => bed.close(),
      };
    },
  };
};

export const byTurns: readonly Scenario[] = [byTurnsWith(1, WINDOWS), byTurnsWith(4, WINDOWS_OF_MANY)];
