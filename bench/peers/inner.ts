/**
 * Sluice beside the kernel's own ways to hold, as scenarios that run wherever the kernel can: each
 * way over a bed of its own, one engine for all (hold.ts).
 *
 *   held traffic      one member's TCP (not through a plug) and echo to the outside
 *   in flight         epoch 1: 5 frames, cut, epoch 2: 10 frames, cut, commit(1): what left too early?
 *
 * The second is the fault of a plug that counts: with two sealed epochs it releases as many frames
 * as the younger one has.
 */
import { Bed } from '../bed/bed.ts';
import { sleep } from '../bed/commands.ts';
import { echo } from '../bed/echo.ts';
import { iperf } from '../bed/iperf.ts';
import { parseProbe, probeFlow } from '../bed/probe.ts';
import { median } from '../bed/stats.ts';
import { Unavailable, type Demand, type Lap, type Reading, type Scenario, type Stage } from '../scenario.ts';
import { AT_ONCE, epochs, setWindow } from '../worlds.ts';
import { Driver, NO_HOLD, type Hold } from './hold.ts';
import { nfqueueHold } from './nfqueue.ts';
import { plugHold } from './plug.ts';
import { sluiceHold } from './sluice.ts';

/** Devices of the plug plane: epochs in flight it can hold. */
const PLUGS = 4;
const WINDOW_MB = 32;
const ECHOES = 20;

type Way = (bed: Bed) => Promise<Hold>;
const WAYS: Readonly<Record<string, Way>> = {
  plain: () => Promise.resolve(NO_HOLD),
  group: (bed) => sluiceHold(bed),
  NFQUEUE: nfqueueHold,
  sch_plug: (bed) => plugHold(bed),
  'plug per epoch': (bed) => plugHold(bed, PLUGS),
};

interface Held {
  readonly bed: Bed;
  readonly hold: Hold;
  readonly driver: Driver;
}

/** A bed and a hold per variant, made when its first lap needs them. */
class Ways implements Stage {
  readonly #made = new Map<string, Held>();
  readonly #job: (held: Held, lap: Lap) => Promise<Reading>;

  constructor(job: (held: Held, lap: Lap) => Promise<Reading>) {
    this.#job = job;
  }

  async lap(lap: Lap): Promise<Reading> {
    return this.#job(this.#made.get(lap.variant) ?? (await this.#make(lap.variant)), lap);
  }

  async close(): Promise<void> {
    for (const { bed, hold } of this.#made.values()) {
      await hold.close();
      await bed.close();
    }
    this.#made.clear();
  }

  async #make(variant: string): Promise<Held> {
    const way = WAYS[variant];
    if (way === undefined) throw new Error(`no way to hold is called ${variant}`);
    const bed = await Bed.create({ members: ['veth', 'veth'] });
    try {
      await setWindow(bed, WINDOW_MB);
      const hold = await way(bed);
      const held = { bed, hold, driver: new Driver(hold) };
      this.#made.set(variant, held);
      return held;
    } catch (error) {
      await bed.close();
      throw error;
    }
  }
}

async function traffic({ bed, driver }: Held, lap: Lap): Promise<Reading> {
  const tcp = (): Promise<{ gbps: number }> => iperf(bed, { from: bed.member(0), to: bed.outsider, seconds: lap.seconds, warmUpSeconds: 1 });
  const atOnce = await driver.during(AT_ONCE, tcp);
  const held = await driver.during(epochs(25), tcp);
  return { values: { atOnce: atOnce.gbps, held: held.gbps, echo: await echoMs(bed, driver) } };
}

/** No flood and no TCP: an emulated kernel takes longer over a command than such an epoch lasts. */
const echoes = async ({ bed, driver }: Held): Promise<Reading> => ({ values: { echo: await echoMs(bed, driver) } });

async function echoMs(bed: Bed, driver: Driver): Promise<number> {
  const { roundTripMs, lost } = await driver.during(epochs(25), () => echo(bed, bed.member(0), { count: ECHOES, spacingMs: 1, spreadMs: 25, timeoutMs: 4000 }));
  if (lost > 0) throw new Error(`${lost} of ${ECHOES} echo requests had no reply`);
  return median(roundTripMs);
}

const FIRST = 5;
const SECOND = 10;
/** What is released has come out by then, under emulation too. */
const SETTLE_MS = 400;

async function inFlight({ bed, hold, driver }: Held): Promise<Reading> {
  const eye = bed.outside();
  const frame = probeFlow(bed.member(0).address, bed.outsider.address, 3);
  const seen: number[] = [];
  const look = async (): Promise<void> => {
    await sleep(SETTLE_MS);
    eye.drain((bytes) => seen.push(parseProbe(bytes)?.seq ?? -1));
  };
  const send = (from: number, count: number): void => {
    for (let seq = from; seq < from + count; seq++) bed.end(0).send(frame(seq));
  };
  eye.drain(() => undefined);
  send(0, FIRST);
  const first = await driver.cut();
  send(FIRST, SECOND);
  const second = await driver.cut();
  await hold.commit(first);
  await look();
  const early = seen.filter((seq) => seq >= FIRST).length;
  await hold.commit(second);
  await look();
  const disordered = seen.filter((seq, i) => i > 0 && seq < (seen[i - 1] ?? 0)).length;
  return { values: { early, missing: FIRST + SECOND - new Set(seen).size, disordered } };
}

const none = (variant: string): Demand => ({ variant, by: 'value', floor: 0 });
const exact = (...variants: readonly string[]): Pick<Scenario, 'quantities' | 'arguments' | 'warmUpLap'> => ({
  arguments: `epoch 1: ${FIRST} frames, cut; epoch 2: ${SECOND} frames, cut; commit of epoch 1, then of epoch 2`,
  warmUpLap: false,
  quantities: [
    { key: 'early', name: `two epochs in flight, ${variants.join(', ')}: frames released before their commit`, unit: 'frames', lowerIsBetter: true, demands: [none('group')] },
    { key: 'missing', name: `two epochs in flight, ${variants.join(', ')}: frames that never came`, unit: 'frames', lowerIsBetter: true, demands: [none('group')] },
    { key: 'disordered', name: `two epochs in flight, ${variants.join(', ')}: frames out of order`, unit: 'frames', lowerIsBetter: true, demands: [none('group')] },
  ],
});

const TOPOLOGY = 'a member and an outsider on one Linux bridge (veth into namespaces), a bed for each way to hold';
const CARRIES_TCP: Pick<Scenario, 'quantities' | 'arguments' | 'warmUpLap'> = {
  arguments: 'iperf3 -C cubic -O 1 with 32 MB windows, cut and committed every ms and with 25 ms epochs committed 5 ms later; ICMP echo from outside',
  warmUpLap: false,
  quantities: [
    { key: 'atOnce', name: 'held TCP beside NFQUEUE: committed at once', unit: 'Gbit/s' },
    { key: 'held', name: 'held TCP beside NFQUEUE: 25 ms epochs', unit: 'Gbit/s' },
    { key: 'echo', name: 'echo beside NFQUEUE: 25 ms epochs, p50', unit: 'ms', lowerIsBetter: true },
  ],
};
const ANSWERS: Pick<Scenario, 'quantities' | 'arguments' | 'warmUpLap'> = {
  arguments: 'ICMP echo from outside, one at a time, 25 ms epochs committed 5 ms later',
  warmUpLap: false,
  quantities: [
    { key: 'echo', name: 'echo beside sch_plug: 25 ms epochs, p50', unit: 'ms', lowerIsBetter: true },
  ],
};

function scenario(name: string, variants: readonly string[], what: Pick<Scenario, 'quantities' | 'arguments' | 'warmUpLap'>, job: (held: Held, lap: Lap) => Promise<Reading>): Scenario {
  return {
    name, section: 'peers', topology: TOPOLOGY, variants: variants.map((each) => ({ name: each })), ...what,
    open: () => {
      if (process.getuid?.() !== 0) throw new Unavailable('needs root: namespaces and rules');
      return Promise.resolve(new Ways(job));
    },
  };
}

export const NFQUEUE_CARRIES = scenario('NFQUEUE', ['plain', 'group', 'NFQUEUE'], CARRIES_TCP, traffic);
export const NFQUEUE_EXACT = scenario('NFQUEUE, epochs in flight', ['plain', 'group', 'NFQUEUE'], exact('NFQUEUE'), inFlight);
export const PLUG_CARRIES = scenario('sch_plug', ['plain', 'group', 'sch_plug', 'plug per epoch'], ANSWERS, echoes);
export const PLUG_EXACT = scenario('sch_plug, epochs in flight', ['plain', 'group', 'sch_plug', 'plug per epoch'], exact('sch_plug'), inFlight);

/** What the lab guest's agent can be asked for. */
export const INNER: readonly Scenario[] = [NFQUEUE_CARRIES, NFQUEUE_EXACT, PLUG_CARRIES, PLUG_EXACT];
