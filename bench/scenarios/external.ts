/**
 * Traffic to the outside: held until its epoch's commit. What the hold path carries when nothing
 * waits long (committed at once), and what an epoch length leaves of it.
 *
 * Held TCP is bound by the sender's window over its round trip, whatever the gate does: a byte is
 * acknowledged a hold time after it was sent. So every epoch length is judged by its share of
 *
 *   bound = min(plain bridge, window / round trip)
 *
 * both as the sender's own TCP saw them (iperf3's intervals): window = min(congestion window, peer's
 * window, send buffer), round trip = smoothed.
 */
import { iperf } from '../bed/iperf.ts';
import { floodRate } from '../bed/flood.ts';
import { sleep } from '../bed/commands.ts';
import { nowUs } from '../bed/libc.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import type { FramePort } from '../bed/frame-port.ts';
import { echo } from '../bed/echo.ts';
import { median, quantile } from '../bed/stats.ts';
import type { Bed } from '../bed/bed.ts';
import type { Context, Demand, Lap, Reading, Scenario, Variant } from '../scenario.ts';
import { AT_ONCE, Worlds, epochs, type World } from '../worlds.ts';

const TOPOLOGY = 'a member and an outsider on one Linux bridge (veth into namespaces)';
const EPOCHS_MS = [1, 5, 10, 25, 50, 100];
const BY_EPOCH: readonly Variant[] = [{ name: 'plain' }, ...EPOCHS_MS.map((ms) => ({ name: `${ms} ms epochs`, x: ms }))];
const HOLD = { hold: { bytes: '256MiB' } };

/** Committed at once too, but cut as often as an engine with VMs does at most. */
const CALM_MS = 5;
const CALM = `cut every ${CALM_MS} ms`;

const worldOf = (variant: string): World => {
  if (variant === 'plain') return { protect: 'none' };
  const ms = /^([0-9]+) ms/.exec(variant)?.[1];
  const calm = variant === CALM ? { ...AT_ONCE, intervalMs: CALM_MS } : AT_ONCE;
  return { protect: 'group', plane: variant === 'pcap' ? 'pcap' : 'ebpf', cadence: ms === undefined ? calm : epochs(Number(ms)) };
};

type Job = (bed: Bed, lap: Lap, context: Context) => Promise<Reading>;
/** `newJob` is called once a run: laps of one run may remember each other. */
function outward(row: Omit<Scenario, 'section' | 'topology' | 'open'>, newJob: () => Job, windowMb?: number): Scenario {
  return {
    ...row, section: 'external', topology: TOPOLOGY,
    open: (context) => {
      const worlds = new Worlds({ bed: { members: ['veth', 'veth'] }, group: HOLD, ...(windowMb === undefined ? {} : { windowMb }) });
      const job = newJob();
      return Promise.resolve({
        lap: (lap) => worlds.run(worldOf(lap.variant), (bed) => job(bed, lap, context)),
        close: () => worlds.close(),
      });
    },
  };
}

interface Sample {
  readonly rtt?: number;
  readonly snd_cwnd?: number;
  readonly snd_wnd?: number;
  /** Of the warm-up. */
  readonly omitted?: boolean;
}

/** The sender's window over its round trip, Gbit/s: mean over the report's intervals, warm-up left out; and the round trip, ms, their median. */
export function tcpBound(raw: string, sendBufferBytes: number): { boundGbps: number; roundTripMs: number } {
  const { intervals } = JSON.parse(raw) as { intervals: readonly { readonly streams: readonly Sample[] }[] };
  const samples = intervals.flatMap(({ streams }) => streams.slice(0, 1)).filter(({ rtt = 0, omitted }) => rtt > 0 && omitted !== true);
  const gbps = samples.map(({ rtt = 0, snd_cwnd = 0, snd_wnd }) => (Math.min(snd_cwnd, (snd_wnd ?? 0) || Infinity, sendBufferBytes) * 8) / rtt / 1e3);
  return { boundGbps: gbps.reduce((sum, one) => sum + one, 0) / gbps.length, roundTripMs: median(samples.map(({ rtt = 0 }) => rtt)) / 1e3 };
}

const intervalMsOf = (variant: string): number => worldOf(variant).cadence?.intervalMs ?? 0;
/** A window opens by round trips, which are as long as an epoch: some 40 of them. */
const warmUpSecondsOf = (variant: string): number => 1 + Math.ceil(intervalMsOf(variant) / 25);
/** What the receiver counts lacks the window that is held when the run ends: a round trip's worth. */
const secondsOf = (variant: string, seconds: number): number => seconds + intervalMsOf(variant) / 100;

const heldTcp = (windowMb: number, quick = false): Scenario => {
  const name = `held TCP, ${windowMb} MB window`;
  const share: readonly Demand[] = EPOCHS_MS.map((ms) => ({ variant: `${ms} ms epochs`, by: 'value', floor: 0.5, target: 0.9 }));
  return outward({
    name, quick, quickVariants: ['plain', '5 ms epochs'], variants: BY_EPOCH, xLabel: 'epoch length, ms', warmUpLap: false, lapsMax: 2,
    arguments: `iperf3 -C cubic, slow start left out (-O 1 to 5), tcp_wmem and tcp_rmem up to ${windowMb} MB, commit 5 ms after each cut`,
    quantities: [
      { key: 'gbps', name, unit: 'Gbit/s' },
      { key: 'ofBound', name: `${name}: share of min(bridge, window / round trip)`, unit: '', demands: share },
      { key: 'bound', name: `${name}: min(bridge, window / round trip)`, unit: 'Gbit/s' },
      { key: 'roundTrip', name: `${name}: round trip`, unit: 'ms', lowerIsBetter: true },
    ],
  }, () => {
    let plainGbps = Infinity;
    return async (bed, lap, context) => {
      const result = await iperf(bed, { from: bed.member(0), to: bed.outsider, seconds: secondsOf(lap.variant, lap.seconds), warmUpSeconds: warmUpSecondsOf(lap.variant), intervalSeconds: 0.2 });
      context.raw(lap, 'iperf3.json', result.raw);
      const { boundGbps, roundTripMs } = tcpBound(result.raw, windowMb * 2 ** 20);
      if (lap.variant === 'plain') {
        plainGbps = result.gbps;
        return { values: { gbps: result.gbps, roundTrip: roundTripMs } };
      }
      const bound = Math.min(plainGbps, boundGbps);
      return { values: { gbps: result.gbps, bound, ofBound: result.gbps / bound, roundTrip: roundTripMs } };
    };
  }, windowMb);
};

const DRAIN_MS = 100;

/** From the sending of each frame to the kernel's stamp outside. */
function holdTimes(): Job {
  const ends = new Map<Bed, { end: FramePort; eye: FramePort }>();
  return async (bed, lap, context) => {
    const { end, eye } = ends.get(bed) ?? { end: bed.end(0), eye: bed.outside() };
    ends.set(bed, { end, eye });
    const frame = probeFlow(bed.member(0).address, bed.outsider.address, 8);
    const sentUs: number[] = [];
    const holdMs: number[] = [];
    const read = (): void => {
      eye.drain((bytes, atUs) => {
        const sent = sentUs[parseProbe(bytes)?.seq ?? -1];
        if (sent !== undefined) holdMs.push((atUs - sent) / 1e3);
      });
    };
    for (const endUs = nowUs() + lap.seconds * 1e6; nowUs() < endUs; await sleep(1)) {
      sentUs.push(nowUs());
      if (!end.send(frame(sentUs.length - 1))) throw new Error('a frame was not taken by the kernel');
      read();
    }
    await sleep(DRAIN_MS);
    read();
    if (holdMs.length < sentUs.length) throw new Error(`${sentUs.length - holdMs.length} of ${sentUs.length} frames did not come out`);
    context.raw(lap, 'hold-ms.json', JSON.stringify(holdMs));
    return { values: { p50: median(holdMs), p99: quantile(holdMs, 0.99) }, series: { 'hold time, ms': holdMs } };
  };
}

const BESIDE_PLAIN = ['plain', 'group'];
const AT_ONCE_VARIANTS: readonly Variant[] = [{ name: 'plain' }, { name: 'group' }, { name: CALM }, { name: 'pcap' }];
const atOnce = (floor: number, target: number): readonly Demand[] => ['group', CALM].map((variant) => ({ variant, by: 'ratio', floor, target }));

export const external: readonly Scenario[] = [
  outward({
    name: 'held TCP, committed at once', variants: AT_ONCE_VARIANTS, quick: true, lapsMin: 5, quickVariants: BESIDE_PLAIN, warmUpLap: false,
    arguments: 'iperf3 -C cubic -O 1, 32 MB windows, the group cut and committed every ms, and every 5',
    quantities: [{
      key: 'gbps', name: 'held TCP, committed at once', unit: 'Gbit/s',
      demands: atOnce(0.5, 0.75),
    }],
  }, () => async (bed, lap, context) => {
    const result = await iperf(bed, { from: bed.member(0), to: bed.outsider, seconds: lap.seconds, warmUpSeconds: 1 });
    context.raw(lap, 'iperf3.json', result.raw);
    return { values: { gbps: result.gbps } };
  }, 32),
  outward({
    name: 'held 60-byte frames', variants: AT_ONCE_VARIANTS, quick: true, lapsMin: 5, quickVariants: BESIDE_PLAIN,
    arguments: 'a flood from a packet socket (sendmmsg of 64, one core), the group cut and committed every ms, and every 5; frames that arrive outside',
    quantities: [{
      key: 'kframes', name: 'held 60-byte frames', unit: 'kframes/s',
      demands: atOnce(0.65, 0.85),
    }],
  }, () => async (bed, lap, context) => {
    const rate = await floodRate(bed.member(0), bed.outsider, lap.seconds, 0);
    context.raw(lap, 'flood.json', JSON.stringify(rate));
    return { values: { kframes: rate.received / 1e3 } };
  }),
  heldTcp(32, true),
  heldTcp(4),
  outward({
    name: 'hold time', lapsMax: 2, variants: [{ name: 'plain' }, { name: '25 ms epochs' }],
    arguments: 'a frame of 60 bytes about every ms; epochs of 25 ms, commit 5 ms after the cut: hold times spread evenly over 5 to 30 ms are ideal',
    quantities: [
      { key: 'p50', name: 'hold time, p50', unit: 'ms', lowerIsBetter: true },
      { key: 'p99', name: 'hold time, p99', unit: 'ms', lowerIsBetter: true },
    ],
  }, holdTimes),
  outward({
    name: 'echo by epoch length', lapsMax: 2, variants: BY_EPOCH, xLabel: 'epoch length, ms',
    arguments: 'ICMP echo from outside to a member, one at a time, pauses random over one epoch; commit 5 ms after each cut',
    quantities: [
      { key: 'p50', name: 'echo from outside, p50', unit: 'ms', lowerIsBetter: true },
      { key: 'p99', name: 'echo from outside, p99', unit: 'ms', lowerIsBetter: true },
    ],
  }, () => async (bed, lap, context) => {
    const epochMs = worldOf(lap.variant).cadence?.intervalMs ?? 1;
    const { roundTripMs, lost } = await echo(bed, bed.member(0), {
      count: Math.max(10, Math.ceil((lap.seconds * 1e3) / (epochMs * 1.2 + 8))), spacingMs: 1, spreadMs: epochMs, timeoutMs: 2000,
    });
    if (lost > 0) throw new Error(`${lost} echo requests had no reply`);
    context.raw(lap, 'round-trips-ms.json', JSON.stringify(roundTripMs));
    return { values: { p50: median(roundTripMs), p99: quantile(roundTripMs, 0.99) }, series: { 'round trip, ms': roundTripMs } };
  }),
];
