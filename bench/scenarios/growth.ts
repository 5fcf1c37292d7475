/**
 * Does the price of a frame grow with what the host protects? Frames of 60 bytes are sent, held for
 * one epoch and released, and of each size four prices are kept:
 *
 *   in      sender's time a frame: kernel classifies and queues it in the sender's own system call
 *   out     first to last frame on the wire, a frame: the hold loop's release
 *   hold    CPU time of the hold loop's thread, a frame, over both: taking frames in, holding and
 *           sending them, with the bridge and the outsider's device, where the kernel does their
 *           work in the sender's own time
 *   daemon  CPU time of all of sluiced, a frame: with the calls, which are two an epoch and group
 *           whatever it holds
 *
 * Each lap sends about FRAMES_MIN frames, in as many epochs as that takes, so that a small epoch's
 * price is not that of the clock, after as many in WARM_UP epochs, so that none is that of a cold
 * compiler. All groups are cut and committed together at the end of an epoch.
 */
import { readFileSync } from 'node:fs';
import type { GroupAnswer } from '../bed/api.ts';
import { Bed, type BedOptions } from '../bed/bed.ts';
import { runIn, sleep, until } from '../bed/commands.ts';
import { cpuUs } from '../bed/cpu.ts';
import type { Daemon } from '../bed/daemon.ts';
import { Engine } from '../bed/engine.ts';
import type { FramePort } from '../bed/frame-port.ts';
import type { PacketPort } from '../bed/packet-port.ts';
import { nowUs } from '../bed/libc.ts';
import type { Demand, Reading, Scenario, Variant } from '../scenario.ts';
import { awaitFrames, sendFrames } from './calls.ts';

const FRAMES_MIN = 100_000;
const WARM_UP_FRAMES = 50_000;
/** An epoch of a warm-up holds no more than this. */
const WARM_UP_EPOCH_FRAMES = 64_000;
/**
 * Each group holds the same, however many there are: one that holds the frames of all would leave the other core
 * idle where sixty-four have their commands answered, and on many a machine cores that work slow each other down.
 */
const FRAMES_PER_GROUP = 1000;
const HOLD_THREAD = 'sluice-hold';
const FRAME_BYTES = 60;
const SETTLE_MS = 4;

interface Shape {
  readonly groups: number;
  readonly membersPerGroup: number;
  readonly frames: number;
  readonly holdBytes: string;
}

interface Farm {
  readonly bed: Bed;
  readonly daemon: Daemon;
  readonly engines: readonly Engine[];
  readonly ends: readonly FramePort[];
  readonly eye: PacketPort;
}

/** One bed with every member a tap this process holds, spread over the groups. */
async function openFarm({ groups, membersPerGroup, holdBytes }: Omit<Shape, 'frames'>): Promise<Farm> {
  const members: BedOptions['members'] = new Array<'tap'>(groups * membersPerGroup).fill('tap');
  const bed = await Bed.create({ members, addresses: false });
  try {
    // Nobody outside speaks here: unlearned, every released frame would flood to every port.
    await runIn(bed.host, 'bridge', ['fdb', 'replace', bed.outsider.mac, 'dev', bed.outsider.port, 'master', 'static']);
    const daemon = bed.daemon();
    await daemon.start('live');
    const engines: Engine[] = [];
    for (let g = 0; g < groups; g++) {
      const own = bed.members.slice(g * membersPerGroup, (g + 1) * membersPerGroup).map(({ name, port, mac }) => ({ name, port, mac }));
      const engine = new Engine(daemon.api, `g${g}`);
      await engine.protect(bed.groupFile(engine.group, { members: own, hold: { bytes: holdBytes } }));
      engines.push(engine);
    }
    return { bed, daemon, engines, ends: bed.members.map((_, i) => bed.end(i)), eye: bed.outside() };
  } catch (error) {
    await bed.close();
    throw error;
  }
}

/** CPU time of a daemon, and of its hold loop's thread, microseconds. */
const cpuOf = (pid: number): { all: number; hold: number } => ({ all: cpuUs(pid), hold: cpuUs(pid, HOLD_THREAD) });

/** What a sentence about missing frames must say: did the gate drop them, or did this bed? */
async function losses({ engines, eye }: Farm): Promise<string> {
  const groups = await Promise.all(engines.map((engine) => engine.sync()));
  const sum = (of: (group: GroupAnswer) => number): number => groups.reduce((total, group) => total + of(group), 0);
  return `held still ${sum(({ held }) => held.frames)}, overflowed ${sum(({ dropped }) => dropped.overflow)}, discarded ${sum(({ dropped }) => dropped.discarded)}, `
    + `refused ${sum(({ dropped }) => dropped.refused)}, epochs not yet released ${sum(({ committed, released }) => committed - released)}; missed by the outsider's socket ${eye.missed()}`;
}

/** Holds `frames` for one epoch and releases them. */
async function oneEpoch(farm: Farm, frames: number): Promise<{ inUs: number; outUs: number }> {
  const { bed, engines, ends, eye } = farm;
  const each = Math.max(1, Math.floor(frames / ends.length));
  const beginUs = nowUs();
  for (const [i, end] of ends.entries()) sendFrames(bed, end, i, each, FRAME_BYTES);
  const inUs = nowUs() - beginUs;
  await sleep(SETTLE_MS);
  for (const engine of engines) await engine.cut();
  await sleep(SETTLE_MS);
  eye.drain(() => undefined);
  const arrival = awaitFrames([eye], each * ends.length).catch(async (error: unknown) => {
    throw new Error(`${error instanceof Error ? error.message : String(error)}: ${await losses(farm)}`, { cause: error });
  });
  const [wire] = await Promise.all([arrival, Promise.all(engines.map((engine) => engine.commit()))]);
  return { inUs: inUs / (each * ends.length), outUs: (wire.lastUs - wire.firstUs) / (each * ends.length) };
}

async function price(farm: Farm, frames: number): Promise<Reading> {
  const epochs = Math.max(1, Math.round(FRAMES_MIN / frames));
  const before = cpuOf(farm.daemon.pid);
  let [inUs, outUs] = [0, 0];
  for (let i = 0; i < epochs; i++) {
    const one = await oneEpoch(farm, frames);
    inUs += one.inUs / epochs;
    outUs += one.outUs / epochs;
  }
  const after = cpuOf(farm.daemon.pid);
  const each = (us: number): number => us / (epochs * frames);
  return { values: { in: inUs, out: outUs, hold: each(after.hold - before.hold), daemon: each(after.all - before.all) } };
}

async function warmUp(farm: Farm, frames: number): Promise<void> {
  for (let sent = 0; sent < WARM_UP_FRAMES; sent += frames) await oneEpoch(farm, frames);
}

type Price = 'in' | 'out' | 'hold' | 'daemon';
/** A scenario whose variants are shapes; a shape's bed is made for its lap alone, so that none stands idle beside another. */
function growing(what: string, shapes: readonly (Shape & { readonly name: string; readonly x: number })[], xLabel: string, judged: Price): Scenario {
  const variants: readonly Variant[] = shapes.map(({ name, x }) => ({ name, x }));
  const flat: readonly Demand[] = shapes.slice(1).map(({ name }) => ({ variant: name, by: 'ratio', floor: 2, target: 1.2 }));
  const quantity = (key: Price, name: string) =>
    ({ key, name: `${name} by ${what}`, unit: 'us', lowerIsBetter: true, ...(key === judged ? { demands: flat } : {}) });
  return {
    name: `cost by ${what}`, section: 'growth', variants, xLabel, warmUpLap: false, lapsMax: 2,
    topology: 'taps of this process as members, an outsider, one Linux bridge',
    arguments: `frames of ${FRAME_BYTES} bytes held for one epoch and released, about ${FRAMES_MIN.toLocaleString('en-GB')} a lap at least`,
    quantities: [quantity('in', 'cost in a held frame'), quantity('out', 'cost out a held frame'), quantity('hold', 'hold loop CPU a held frame'), quantity('daemon', 'daemon CPU a held frame')],
    open: () => {
      let farm: Farm | undefined;
      return Promise.resolve({
        lap: async ({ variant }) => {
          const shape = shapes.find(({ name }) => name === variant);
          if (shape === undefined) throw new Error(`no shape ${variant}`);
          farm = await openFarm(shape);
          try {
            await warmUp(farm, Math.min(shape.frames, WARM_UP_EPOCH_FRAMES));
            return await price(farm, shape.frames);
          } finally {
            await farm.bed.close();
            farm = undefined;
          }
        },
        close: async () => {
          await farm?.bed.close();
        },
      });
    },
  };
}

const thousand = (n: number): string => n.toLocaleString('en-GB');

const MEMORY = 'memory a held byte';
const MIB = 1 << 20;
/** Free memory of the machine, bytes: the ring is the kernel's, so the process's own size would not show it. */
const availableBytes = (): number => Number(/MemAvailable:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
const FILLS = [{ name: '60 B', x: 60 }, { name: '1,400 B', x: 1400 }];

const memory: Scenario = {
  name: MEMORY, section: 'growth', variants: FILLS, baseline: false, warmUpLap: false, lapsMax: 1, xLabel: 'frame length, bytes',
  topology: 'one tap as member, an outsider, one Linux bridge; hold.bytes 64 MiB',
  arguments: 'frames are sent until the queue overflows; what the machine has less, over the bytes held. The ring is allocated whole when protection begins',
  quantities: [
    { key: 'perByte', name: MEMORY, unit: 'bytes', lowerIsBetter: true },
    { key: 'held', name: 'held when full', unit: 'MiB' },
  ],
  open: () => Promise.resolve({
    lap: async ({ variant }) => {
      const bytes = FILLS.find(({ name }) => name === variant)?.x ?? 0;
      const bed = await Bed.create({ members: ['tap'], addresses: false });
      try {
        const daemon = bed.daemon();
        await daemon.start('live');
        const before = availableBytes();
        const engine = new Engine(daemon.api, 'g');
        await engine.protect(bed.groupFile('g', { hold: { bytes: '64MiB' } }));
        const held = await fill(bed, engine, bytes);
        return { values: { perByte: (before - availableBytes()) / held, held: held / MIB } };
      } finally {
        await bed.close();
      }
    },
    close: () => Promise.resolve(),
  }),
};

/** Sends until frames are dropped; the bytes held then. */
async function fill(bed: Bed, engine: Engine, bytes: number): Promise<number> {
  const end = bed.end(0);
  let heldBytes = 0;
  await until('the queue overflows', async () => {
    sendFrames(bed, end, 0, 5000, bytes);
    await sleep(SETTLE_MS);
    const { held, dropped } = await engine.sync();
    heldBytes = held.bytes;
    return dropped.overflow > 0;
  }, 30_000);
  return heldBytes;
}

export const growth: readonly Scenario[] = [
  growing('held frames', [1_000, 10_000, 100_000, 1_000_000].map((frames) => ({
    name: `${thousand(frames)} held`, x: frames, groups: 1, membersPerGroup: 1, frames, holdBytes: '512MiB',
  })), 'frames held', 'hold'),
  growing('groups', [1, 8, 64].map((groups) => ({
    name: `${groups} ${groups === 1 ? 'group' : 'groups'}`, x: groups, groups, membersPerGroup: 1, frames: FRAMES_PER_GROUP * groups, holdBytes: '64MiB',
  })), `groups of ${thousand(FRAMES_PER_GROUP)} frames an epoch`, 'hold'),
  { ...growing('members', [2, 16, 64, 256].map((members) => ({
    name: `${members} members`, x: members, groups: 1, membersPerGroup: members, frames: 64_000, holdBytes: '64MiB',
  })), 'members of one group', 'in'), lapsMax: 1 },
  memory,
];
