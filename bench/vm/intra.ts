/**
 * Traffic between two guests of a group, plain and under protection.
 *
 *   plain ─ protected ─ plain ─ protected ─ …      by turns, so that both see the same machine
 *
 *   intraTraffic         epochs are cut and committed by the clock and no guest is stopped: what
 *                        differs is the gate alone
 *   betweenCheckpoints   the QEMU engine with an interval longer than a measurement. The guest is asked
 *                        by a connection, whose answers are held: so it is asked just after a
 *                        checkpoint, and measures before the next. A measurement that one fell into
 *                        all the same is taken again.
 *
 * Measured in the guests, by their clocks: bytes the other guest had read, round trips of 8 bytes.
 */
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { Engine } from '../bed/engine.ts';
import { median } from '../bed/stats.ts';
import type { VmBed } from './bed.ts';
import { EngineProcess } from './engine.ts';
import { pingUs, sendMbps } from './lab.ts';

const CADENCE = { intervalMs: 25, commitDelayMs: 5 };
const SEND_MS = 1500;
const PINGS = 400;
const LONG_INTERVAL_MS = 3000;
const READY_MS = 20_000;
const TRIES_MAX = 5;

export interface IntraSpeed {
  readonly mbps: number;
  readonly pingUs: number;
}

export interface Intra {
  readonly plain: IntraSpeed;
  readonly protected: IntraSpeed;
  readonly ratio: number;
  readonly pingRatio: number;
  readonly epochs: number;
}

/** The guests run and the daemon does; the group is not protected before and not after. */
export async function intraTraffic(bed: VmBed, rounds: number): Promise<Intra> {
  const daemon = bed.bed.daemon();
  const speeds = { plain: newSpeeds(), protected: newSpeeds() };
  let epochs = 0;
  for (let round = 0; round < rounds; round++) {
    await measure(bed, speeds.plain);
    const engine = new Engine(daemon.api, bed.group.group);
    await engine.protect(bed.memberFile(0));
    engine.run(CADENCE);
    await measure(bed, speeds.protected);
    await engine.stop(true);
    if (engine.failure !== undefined) throw engine.failure;
    epochs += engine.cuts;
    await engine.unprotect('release');
  }
  return resultOf(speeds.plain, speeds.protected, epochs);
}

function resultOf(plainly: Speeds, underIt: Speeds, epochs: number): Intra {
  const of = ({ mbps, ping }: Speeds): IntraSpeed => ({ mbps: median(mbps), pingUs: median(ping) });
  const [plain, held] = [of(plainly), of(underIt)];
  return { plain, protected: held, ratio: held.mbps / plain.mbps, pingRatio: held.pingUs / plain.pingUs, epochs };
}

/** Under the QEMU engine; what a checkpoint costs is not in it. */
export async function betweenCheckpoints(bed: VmBed, rounds: number): Promise<Intra> {
  const daemon = bed.bed.daemon();
  const sluice = new SluiceClient({ socket: daemon.socket });
  const speeds = { plain: newSpeeds(), protected: newSpeeds() };
  let epochs = 0;
  try {
    for (let round = 0; round < rounds; round++) {
      await measure(bed, speeds.plain);
      const engine = new EngineProcess(bed, { socket: daemon.socket, intervalMs: LONG_INTERVAL_MS, more: ['--idle-interval', `${LONG_INTERVAL_MS}ms`, '--no-standby'] });
      try {
        await engine.says('checkpoint', READY_MS);
        await measureUndisturbed(bed, engine, speeds.protected);
        epochs += engine.said().filter(({ event }) => event === 'checkpoint').length;
        await engine.stop();
      } finally {
        await engine.kill();
      }
      const { generation } = await sluice.group(bed.group.group);
      await sluice.unprotect(bed.group.group, { generation, held: 'release' });
    }
  } finally {
    await sluice.close();
  }
  return resultOf(speeds.plain, speeds.protected, epochs);
}

interface Speeds {
  readonly mbps: number[];
  readonly ping: number[];
}
const newSpeeds = (): Speeds => ({ mbps: [], ping: [] });

async function measure(bed: VmBed, into: Speeds): Promise<void> {
  into.mbps.push(await sendMbps(bed, 'front', 'store', SEND_MS));
  into.ping.push((await pingUs(bed, 'front', 'store', PINGS)).p50);
}

/**
 * A question's answer comes with the checkpoint after the measurement. Two checkpoints are in every
 * one: what lets the question in, what lets the answer out; a third fell into it.
 */
async function measureUndisturbed(bed: VmBed, engine: EngineProcess, into: Speeds): Promise<void> {
  const undisturbed = async (ask: () => Promise<number>): Promise<number> => {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const made = (): number => engine.said().filter(({ event }) => event === 'checkpoint').length;
      const before = made();
      const value = await ask();
      if (made() - before <= 2) return value;
    }
    throw new Error(`a checkpoint fell into each of ${TRIES_MAX} measurements`);
  };
  into.mbps.push(await undisturbed(() => sendMbps(bed, 'front', 'store', SEND_MS)));
  into.ping.push(await undisturbed(async () => (await pingUs(bed, 'front', 'store', PINGS)).p50));
}
