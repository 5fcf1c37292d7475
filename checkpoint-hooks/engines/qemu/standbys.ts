/**
 * Keeps a standby beside every guest while the group lives: launched and filled one after the
 * other, so that they take a core and not the machine, and again when one ends.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Tell } from './events.ts';
import { kill } from './machine.ts';
import { launchStandby } from './standby.ts';
import type { Unit } from './unit.ts';

const LOOK_EVERY_MS = 200;
const AGAIN_AFTER_MS = 3000;

/** Runs until the signal, from `laterMs` on. `isBetween`: the shadows are at the newest durable checkpoint, not ahead of it. */
export async function keepStandbys(units: readonly Unit[], isBetween: () => boolean, tell: Tell, signal: AbortSignal, laterMs: number): Promise<void> {
  await sleep(laterMs, undefined, { signal }).catch(() => undefined);
  while (!signal.aborted) {
    const unit = units.find(({ standby }) => standby === undefined);
    let waitMs = LOOK_EVERY_MS;
    if (unit !== undefined) waitMs = (await standBy(unit, isBetween, tell)) ? 0 : AGAIN_AFTER_MS;
    await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }
}

async function standBy(unit: Unit, isBetween: () => boolean, tell: Tell): Promise<boolean> {
  const beganMs = performance.now();
  try {
    const machine = await launchStandby(unit.waiting);
    const standby = { machine, copied: false, ready: false };
    unit.standby = standby;
    void machine.qmp.closed.then(() => {
      if (unit.standby !== standby) return;
      unit.standby = undefined;
      unit.ram.ask({ do: 'dropStandby' }).catch(() => undefined); // the worker's own end is told by whoever needs it
    });
    const { count } = await unit.ram.ask({ do: 'bringStandby', ram: unit.waiting.ram });
    standby.copied = true;
    standby.ready = isBetween();
    tell({ event: 'standby', member: unit.name, movedBytes: count, tookMs: performance.now() - beganMs });
    return true;
  } catch (error) {
    unit.standby?.machine.close();
    unit.standby = undefined;
    tell({ event: 'standby-failed', member: unit.name, why: error instanceof Error ? error.message : String(error) });
    return false;
  }
}

/** They are the engine's, and nobody would keep them up to date. */
export function endStandbys(units: readonly Unit[]): void {
  for (const unit of units) {
    if (unit.standby !== undefined) kill(unit.waiting);
  }
}
