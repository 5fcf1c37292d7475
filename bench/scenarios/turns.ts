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
import { Bed } from '../bed/bed.ts';
import { namespacePath, sleep } from '../bed/commands.ts';
import { Engine } from '../bed/engine.ts';
import { iperf } from '../bed/iperf.ts';
import { inNamespace } from '../bed/libc.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Reading, Scenario } from '../scenario.ts';

const WINDOW_MS = 700;
const SKIP_MS = 300;
const WINDOWS = 40;
const WINDOWS_OF_MANY = 24;
/** Slow start. */
const BEGIN_MS = 1500;
/** A change of protection takes some 50 ms; the stream must outlive them all. */
const CHANGE_MS_MAX = 250;
const HOLD_BYTES = '16MiB';
const SENT_BYTES = 8;

/** Bytes a port of the bed's bridge has sent. */
function sentBytes(bed: Bed, port: string): number {
  const table = inNamespace(namespacePath(bed.host), () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  const columns = new RegExp(`^\\s*${port}:\\s*(.*)$`, 'm').exec(table)?.[1]?.split(/\s+/);
  return Number(columns?.[SENT_BYTES] ?? Number.NaN);
}

interface Window {
  readonly gated: boolean;
  readonly gbps: number;
}

async function window(bed: Bed, port: string, gated: boolean): Promise<Window> {
  await sleep(SKIP_MS);
  const [bytes, beganMs] = [sentBytes(bed, port), performance.now()];
  await sleep(WINDOW_MS);
  return { gated, gbps: ((sentBytes(bed, port) - bytes) * 8) / (performance.now() - beganMs) / 1e6 };
}

/** Each window's share of its neighbours', gated against not. */
export function shares(windows: readonly Window[]): number[] {
  return windows.slice(1, -1).map(({ gated, gbps }, i) => {
    const beside = ((windows[i]?.gbps ?? Number.NaN) + (windows[i + 2]?.gbps ?? Number.NaN)) / 2;
    return gated ? gbps / beside : beside / gbps;
  });
}

async function turns(bed: Bed, reverse: boolean, streams: number, windows: number): Promise<Window[]> {
  const engine = new Engine(bed.daemon().api, 'g');
  const to = bed.member(reverse ? 0 : 1);
  const seconds = (BEGIN_MS + windows * (SKIP_MS + WINDOW_MS + CHANGE_MS_MAX)) / 1e3;
  let isOver = false;
  const stream = iperf(bed, { from: bed.member(0), to: bed.member(1), seconds, reverse, streams }).finally(() => (isOver = true));
  const seen: Window[] = [];
  const measured = (async () => {
    await sleep(BEGIN_MS);
    for (let i = 0; i < windows; i++) {
      const gated = i % 2 === 1;
      if (gated) await engine.protect(bed.groupFile('g', { hold: { bytes: HOLD_BYTES } }));
      const one = await window(bed, to.port, gated);
      if (isOver) throw new Error(`the stream ended before window ${i + 1} of ${windows}: protection came and went too slowly`);
      seen.push(one);
      if (gated) await engine.unprotect('discard');
    }
  })();
  await Promise.all([stream, measured]);
  return seen;
}

const byTurnsWith = (streams: number, windows: number): Scenario => {
  const what = `intra-group TCP by turns under ${streams === 1 ? 'one stream' : `${streams} streams`}`;
  return {
    name: what, section: 'intra-group', variants: [{ name: 'group' }], baseline: false, warmUpLap: false, lapsMax: 1,
    topology: 'two members (veth into namespaces) on one Linux bridge',
    arguments: `iperf3 -P ${streams}, a run each direction, protection on and off by turns under it: ${windows} windows of ${WINDOW_MS} ms, each beside its two neighbours`,
    quantities: (['', ', reverse'] as const).map((way) =>
      ({ key: `share${way === '' ? '' : 'Reverse'}`, name: `${what}${way}`, unit: 'of the bridge', demands: [{ variant: 'group', by: 'value', floor: 0.97, target: 1 }] })),
    open: async (context) => {
      const bed = await Bed.create({ members: ['veth', 'veth'] });
      return {
        lap: async (lap): Promise<Reading> => {
          if (lap.number === 1) await bed.daemon().start('live');
          const values: Record<string, number> = {};
          for (const reverse of [false, true]) {
            const seen = await turns(bed, reverse, streams, windows);
            const ratios = shares(seen);
            context.raw(lap, `windows${reverse ? '-reverse' : ''}.json`, JSON.stringify(seen));
            context.say(`${reverse ? 'reverse: ' : ''}quartiles ${quantile(ratios, 0.25).toFixed(3)} to ${quantile(ratios, 0.75).toFixed(3)} over ${ratios.length} windows`);
            values[reverse ? 'shareReverse' : 'share'] = median(ratios);
          }
          return { values };
        },
        close: () => bed.close(),
      };
    },
  };
};

export const byTurns: readonly Scenario[] = [byTurnsWith(1, WINDOWS), byTurnsWith(4, WINDOWS_OF_MANY)];
