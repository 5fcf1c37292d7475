/**
 * What it costs to protect a group again: bytes that are moved, and how long the group stands.
 *
 *   copy       the whole RAM of all members copied while they stand: what a plain checkpoint does
 *   full       first protection: nothing is there, everything is copied while they run
 *   changed    protection ended and began again; meanwhile one of three changed DIRTY_KIB of its memory
 *   damaged    the same, and the store's image of that one is gone: it alone is copied in full
 *
 * By turns, ROUNDS times each, guests of their own RAM, standbys included. Moved is the sum of three:
 * first pictures into the store, the first checkpoint's delta, and what the standbys' RAM was given.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { median } from '../bed/stats.ts';
import type { VmBed } from './bed.ts';
import { EngineProcess, type Said } from './engine.ts';
import { RAM_BYTES } from './guest.ts';
import { Hand } from './hand.ts';
import { dirtyKib } from './lab.ts';

export const WAYS = ['full', 'changed', 'damaged'] as const;
export type Way = (typeof WAYS)[number];
const ROUNDS = 3;
const DIRTY_KIB = 8 << 10;
const READY_MS = 30_000;

export interface Reprotection {
  readonly copiedInFull: readonly string[];
  readonly baseBytes: number;
  readonly deltaBytes: number;
  readonly standbyBytes: number;
  readonly movedBytes: number;
  /** The group's, in the first checkpoint. */
  readonly stopMs: number;
}
export interface Reprotections {
  /** Stop of a checkpoint that copies all RAM while the group stands, and its bytes. */
  readonly copy: { readonly stopMs: number; readonly movedBytes: number };
  readonly ways: Readonly<Record<Way, Reprotection>>;
}

/** The guests run and the daemon does; the group is not protected before and not after. */
export async function reprotections(bed: VmBed, changed: string): Promise<Reprotections> {
  const copies = await copiesWhileStopped(bed);
  const runs: Record<Way, Reprotection[]> = { full: [], changed: [], damaged: [] };
  const sluice = new SluiceClient({ socket: bed.bed.daemon().socket });
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const way of WAYS) {
        await prepare(bed, way, changed);
        runs[way].push(await protect(bed, sluice));
      }
    }
  } finally {
    await sluice.close();
  }
  return {
    copy: { stopMs: median(copies), movedBytes: bed.group.guests.length * RAM_BYTES },
    ways: { full: middle(runs.full), changed: middle(runs.changed), damaged: middle(runs.damaged) },
  };
}

const storeOf = (bed: VmBed): string => join(bed.bed.directory, 'store');

async function prepare(bed: VmBed, way: Way, changed: string): Promise<void> {
  if (way === 'full') {
    rmSync(storeOf(bed), { recursive: true, force: true });
    for (const { sides } of bed.group.guests) rmSync(sides[1].ram, { force: true });
    return;
  }
  await dirtyKib(bed, changed, DIRTY_KIB);
  if (way === 'damaged') for (const id of [1, 2, 3, 4]) rmSync(join(storeOf(bed), 'base', `${changed}.${id}`), { force: true });
}

/** From a running engine's begin to standbys of all, then to its end and no protection. */
async function protect(bed: VmBed, sluice: SluiceClient): Promise<Reprotection> {
  const engine = new EngineProcess(bed, { socket: bed.bed.daemon().socket, intervalMs: 25 });
  try {
    await engine.says('standby', READY_MS, bed.group.guests.length);
    await engine.says('checkpoint', READY_MS, 3);
    const said = engine.said();
    await engine.stop();
    const { generation } = await sluice.group(bed.group.group);
    await sluice.unprotect(bed.group.group, { generation, held: 'release' });
    return accountOf(said);
  } finally {
    await engine.kill();
  }
}

function accountOf(said: readonly Said[]): Reprotection {
  const sum = (event: string): number => said.filter((one) => one.event === event).reduce((bytes, { movedBytes }) => bytes + Number(movedBytes), 0);
  const first = said.find(({ event }) => event === 'checkpoint');
  const deltas = Object.values((first?.['members'] ?? {}) as Record<string, { bytes: number }>);
  const [baseBytes, standbyBytes, deltaBytes] = [sum('based'), sum('standby'), deltas.reduce((bytes, one) => bytes + one.bytes, 0)];
  return {
    copiedInFull: said.filter(({ event, how }) => event === 'based' && how === 'full').map(({ member }) => String(member)).sort(),
    baseBytes, deltaBytes, standbyBytes, movedBytes: baseBytes + deltaBytes + standbyBytes, stopMs: Number(first?.['stopMs']),
  };
}

/** The middle one by bytes; its stop is the median of all. */
function middle(runs: readonly Reprotection[]): Reprotection {
  const [one] = [...runs].sort((a, b) => a.movedBytes - b.movedBytes).slice(runs.length >> 1);
  if (one === undefined) throw new Error('nothing was measured');
  return { ...one, stopMs: median(runs.map(({ stopMs }) => stopMs)) };
}

async function copiesWhileStopped(bed: VmBed): Promise<number[]> {
  const hand = await Hand.attach(bed);
  const stopsMs: number[] = [];
  try {
    for (let i = 0; i < ROUNDS; i++) stopsMs.push((await hand.checkpoint()).stopMs);
    return stopsMs;
  } finally {
    await hand.close();
  }
}
