/**
 * Traffic between two guests of a group, plain and under protection, between checkpoints: epochs
 * are cut and committed by the clock, but no guest is stopped, so what differs is the gate alone.
 *
 *   plain ─ protected ─ plain ─ protected ─ …      by turns, so that both see the same machine
 *
 * Measured in the guests, by their clocks: bytes the other guest had read, round trips of 8 bytes.
 */
import { Engine } from '../bed/engine.ts';
import { median } from '../bed/stats.ts';
import type { VmBed } from './bed.ts';
import { pingUs, sendMbps } from './lab.ts';

const CADENCE = { intervalMs: 25, commitDelayMs: 5 };
const SEND_MS = 1500;
const PINGS = 400;

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
  const of = ({ mbps, ping }: Speeds): IntraSpeed => ({ mbps: median(mbps), pingUs: median(ping) });
  const [plain, held] = [of(speeds.plain), of(speeds.protected)];
  return { plain, protected: held, ratio: held.mbps / plain.mbps, pingRatio: held.pingUs / plain.pingUs, epochs };
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
