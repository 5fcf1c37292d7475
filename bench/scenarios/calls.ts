/**
 * What an engine feels of its calls, as bytes on the control socket (no HTTP client's cost): cut
 * and commit, and from the commit call to the first and the last frame of the epoch on the wire.
 *
 *   frames held ── cut ── commit call ─────────► first frame out ───────► last frame out
 *                         │◄──── first ─────────►│
 *                         │◄──── last ──────────────────────────────────►│
 *
 * Each is taken twice. Paced: 4 ms pass before every call, as VMs that run meanwhile make them pass,
 * and whoever is called has fallen asleep. Back to back: an engine that polls until the frames are
 * held, then cuts and commits at once, so that the daemon and its caches are awake.
 *
 * Times on the wire are the kernel's stamps at the outsider's device. /healthz by the same client
 * with the same pauses stands beside the calls: what the machine and Node's HTTP server take for
 * nothing.
 */
import type { GroupAnswer } from '../bed/api.ts';
import type { Bed } from '../bed/bed.ts';
import { sleep } from '../bed/commands.ts';
import type { Engine } from '../bed/engine.ts';
import type { FramePort } from '../bed/frame-port.ts';
import { nowUs } from '../bed/libc.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import { median, quantile } from '../bed/stats.ts';
import { WireClient, type Timed } from '../bed/wire.ts';
import type { Lap, Reading, Scenario, Stage } from '../scenario.ts';
import { Worlds } from '../worlds.ts';

const TOPOLOGY = 'a member and an outsider on one Linux bridge; the caller on the same host';
const WARM_UP_CALLS = 1000;
/** Of a lap: together with the lap before it below the daemon's bound of requests in a second. */
const EPOCHS_MAX = 4000;
/** A committed frame that is not outside after this long is lost: a stalled machine delays, it does not lose. */
const RELEASE_MS_MAX = 30_000;
/** A frame's block is retired within its 1 ms timer: commit comes later, as in life. */
const SETTLE_MS = 4;
const PROBE_FLOW = 7;
const MIB = 1 << 20;

/** A protected bed, its engine's state and a connection to its socket. */
export interface Caller {
  readonly bed: Bed;
  readonly engine: Engine;
  readonly eye: PacketPort;
  /** The first member's end. */
  readonly end: FramePort;
  readonly client: WireClient;
}

/** One epoch by hand: `between` runs after the cut. */
export async function epoch({ client, engine }: Caller, between?: () => Promise<void>): Promise<{ cut: Timed; commit: Timed }> {
  const command = async (verb: string): Promise<Timed> => {
    const call = await client.call('POST', `/v1/groups/${engine.group}/${verb}`, { generation: engine.generation, epoch: engine.open });
    if (call.status !== 200) throw new Error(`${verb}: ${call.body}`);
    return call;
  };
  const cut = await command('cut');
  await between?.();
  const commit = await command('commit');
  engine.open += 1;
  return { cut, commit };
}

export async function openCaller(worlds: Worlds): Promise<Caller> {
  const { bed, engines: [engine] } = await worlds.place({ protect: 'group' });
  if (engine === undefined) throw new Error('the bed has no engine');
  const caller = { bed, engine, eye: bed.outside(), end: bed.end(0), client: await WireClient.open(bed.daemon().socket) };
  for (let i = 0; i < WARM_UP_CALLS; i++) await epoch(caller);
  return caller;
}

/** A scenario over one protected bed and a caller. */
function calling(row: Omit<Scenario, 'section' | 'topology' | 'open'>, job: (caller: Caller, lap: Lap) => Promise<Reading>): Scenario {
  return {
    ...row, section: 'epoch calls', topology: TOPOLOGY,
    open: async (context): Promise<Stage> => {
      const worlds = new Worlds({ bed: { members: ['veth', 'veth'] }, group: { hold: { bytes: '256MiB' } } });
      try {
        const caller = await openCaller(worlds);
        const close = (): Promise<void> => {
          caller.client.close();
          return worlds.close();
        };
        const lap = async (which: Lap): Promise<Reading> => {
          const reading = await job(caller, which);
          context.raw(which, 'times-ms.json', JSON.stringify(reading.series));
          return reading;
        };
        return { lap, close };
      } catch (error) {
        await worlds.close();
        throw error;
      }
    },
  };
}

const callTimes = (paced: boolean): Scenario => {
  const how = paced ? 'paced' : 'back to back';
  const bound = (floor: number, target: number) => [{ variant: 'sluice', by: 'value' as const, floor, target }];
  return calling({
    name: `cut and commit through REST, ${how}`, quick: true,
    variants: [{ name: '/healthz' }, { name: 'sluice' }],
    arguments: `HTTP on the unix socket, one call at a time${paced ? `, ${SETTLE_MS} ms apart` : ''}`,
    quantities: (['cut', 'commit'] as const).flatMap((verb) => [
      { key: `${verb}50`, name: `${verb} through REST, ${how}, p50`, unit: 'ms', lowerIsBetter: true, demands: bound(verb === 'cut' ? 0.5 : 2.5, 0.5) },
      { key: `${verb}99`, name: `${verb} through REST, ${how}, p99`, unit: 'ms', lowerIsBetter: true },
    ]),
  }, async (caller, lap) => {
    const cuts: number[] = [];
    const commits: number[] = [];
    const endUs = nowUs() + lap.seconds * 1e6;
    const pause = (): Promise<void> => (paced ? sleep(SETTLE_MS) : Promise.resolve());
    while (nowUs() < endUs && cuts.length < EPOCHS_MAX) {
      await pause();
      if (lap.variant === '/healthz') {
        const { us, status, body } = await caller.client.call('GET', '/healthz');
        if (status !== 200) throw new Error(`/healthz: ${body}`);
        cuts.push(us / 1e3);
        commits.push(us / 1e3);
        continue;
      }
      const { cut, commit } = await epoch(caller, pause);
      cuts.push(cut.us / 1e3);
      commits.push(commit.us / 1e3);
    }
    return {
      values: { cut50: median(cuts), cut99: quantile(cuts, 0.99), commit50: median(commits), commit99: quantile(commits, 0.99) },
      series: { 'cut, ms': cuts, 'commit, ms': commits },
    };
  });
};

/** Times of an epoch's frames outside, microseconds of the wall clock. */
export interface Wire {
  readonly firstUs: number;
  readonly lastUs: number;
}

/** Reads until all of `frames` numbered frames are out. @throws where some never come. */
export async function awaitFrames(eyes: readonly PacketPort[], frames: number): Promise<Wire> {
  let seen = 0;
  let firstUs = Infinity;
  let lastUs = 0;
  const take = (bytes: Uint8Array, atUs: number): void => {
    if (parseProbe(bytes)?.flow !== PROBE_FLOW) return;
    seen += 1;
    firstUs = Math.min(firstUs, atUs);
    lastUs = Math.max(lastUs, atUs);
  };
  const deadline = performance.now() + RELEASE_MS_MAX;
  while (seen < frames) {
    for (const eye of eyes) eye.drain(take);
    if (seen < frames && performance.now() > deadline) throw new Error(`only ${seen} of ${frames} frames came out within ${RELEASE_MS_MAX} ms of their commit`);
    await sleep(1);
  }
  return { firstUs, lastUs };
}

/** Sends numbered frames of member `from` to the outsider; all must be taken by the kernel. */
export function sendFrames(bed: Bed, port: FramePort, from: number, frames: number, bytes: number): void {
  const frame = probeFlow(bed.member(from).address, bed.outsider.address, PROBE_FLOW, bytes);
  for (let seq = 0; seq < frames; seq++) if (!port.send(frame(seq))) throw new Error(`frame ${seq} was not taken by the kernel`);
}

const EPOCHS: Readonly<Record<string, { frames: number; bytes: number; perLap: (seconds: number) => number }>> = {
  '1 frame': { frames: 1, bytes: 60, perLap: (seconds) => Math.ceil(seconds * 50) },
  '1,000 frames': { frames: 1000, bytes: 60, perLap: (seconds) => Math.ceil(seconds * 10) },
  '64 MiB': { frames: Math.ceil((64 * MIB) / 1400), bytes: 1400, perLap: () => 2 },
};

const HELD_MS_MAX = 30_000;

/** Asks again and again until the group says that so many frames are held. */
async function pollHeld({ client, engine }: Caller, frames: number): Promise<void> {
  for (const deadline = performance.now() + HELD_MS_MAX; ;) {
    const call = await client.call('GET', `/v1/groups/${engine.group}`);
    if (call.status !== 200) throw new Error(`status: ${call.body}`);
    const { held } = JSON.parse(call.body) as GroupAnswer;
    if (held.frames >= frames) return;
    if (performance.now() > deadline) throw new Error(`only ${held.frames} of ${frames} frames are held ${HELD_MS_MAX} ms after they were sent`);
  }
}

interface Times {
  readonly firstMs: number;
  readonly lastMs: number;
}

/** Sends an epoch's frames, seals and commits it; from the commit call to its frames outside. */
async function release(caller: Caller, { frames, bytes }: { frames: number; bytes: number }, paced: boolean): Promise<Times> {
  caller.eye.drain(() => undefined);
  sendFrames(caller.bed, caller.end, 0, frames, bytes);
  await (paced ? sleep(SETTLE_MS) : pollHeld(caller, frames));
  const { commit } = await epoch(caller, paced ? () => sleep(SETTLE_MS) : undefined);
  const { firstUs, lastUs } = await awaitFrames([caller.eye], frames);
  return { firstMs: (firstUs - commit.beginUs) / 1e3, lastMs: (lastUs - commit.beginUs) / 1e3 };
}

const toTheWire = (paced: boolean): Scenario => {
  const how = paced ? 'paced' : 'back to back';
  const waits = paced ? `${SETTLE_MS} ms before the cut and before the commit` : 'the group is asked until the frames are held, then cut and committed at once';
  return calling({
    name: `commit to the wire, ${how}`, quick: true, quickVariants: ['1 frame'], baseline: false,
    variants: Object.keys(EPOCHS).map((name) => ({ name })),
    arguments: `an epoch of 1 frame of 60 bytes, of 1,000, and of 64 MiB in frames of 1,400 bytes; ${waits}; from the commit call to the kernel's time stamp outside`,
    quantities: [
      {
        key: 'first50', name: `commit call to first frame on the wire, ${how}, p50`, unit: 'ms', lowerIsBetter: true,
        demands: [{ variant: '1 frame', by: 'value', floor: 0.5, target: 0.2 }],
      },
      {
        key: 'first99', name: `commit call to first frame on the wire, ${how}, p99`, unit: 'ms', lowerIsBetter: true,
        demands: [{ variant: '1 frame', by: 'value', floor: 10, target: 1 }],
      },
      { key: 'last50', name: `commit call to last frame on the wire, ${how}, p50`, unit: 'ms', lowerIsBetter: true },
    ],
  }, async (caller, lap) => {
    const shape = EPOCHS[lap.variant];
    if (shape === undefined) throw new Error(`no epoch ${lap.variant}`);
    const times: Times[] = [];
    for (let i = 0; i < shape.perLap(lap.seconds); i++) times.push(await release(caller, shape, paced));
    const [first, last] = [times.map(({ firstMs }) => firstMs), times.map(({ lastMs }) => lastMs)];
    return {
      values: { first50: median(first), first99: quantile(first, 0.99), last50: median(last) },
      series: { 'commit to first frame, ms': first, 'commit to last frame, ms': last },
    };
  });
};

export const calls: readonly Scenario[] = [callTimes(false), callTimes(true), toTheWire(false), toTheWire(true)];
