/**
 * Declares guests dead. Two words of death, whichever is first:
 *
 *   the QMP socket ends     the process is gone (a millisecond after SIGKILL), or nobody can reach it
 *   silence                 no answer to a heartbeat within silenceMaxMs
 *
 * One dead guest is the end of the group's execution: its members go back together (I4). A guest
 * that shut itself down is not dead, but it is the end as well.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClosed } from './qmp.ts';
import type { Unit } from './unit.ts';

export interface HeartbeatOptions {
  readonly everyMs: number;
  readonly silenceMaxMs: number;
}
export interface Death {
  readonly member: string;
  readonly why: string;
  readonly seenMs: number;
  readonly byItself: boolean;
}

/** The first death; undefined when the signal came before. */
export async function watch(units: readonly Unit[], options: HeartbeatOptions, signal: AbortSignal): Promise<Death | undefined> {
  const over = new AbortController();
  const all = AbortSignal.any([signal, over.signal]);
  const stopped = new Promise<undefined>((resolve) => {
    if (all.aborted) resolve(undefined);
    all.addEventListener('abort', () => resolve(undefined), { once: true });
  });
  try {
    return await Promise.race([stopped, ...units.map((unit) => deathOf(unit)), ...units.map((unit) => silenceOf(unit, options, all))]);
  } finally {
    over.abort();
  }
}

async function deathOf({ name, machine }: Unit): Promise<Death> {
  const why = await machine.qmp.closed;
  return { member: name, why, seenMs: performance.now(), byItself: machine.shutDown };
}

/** A heartbeat that is not answered closes the socket: `deathOf` reports it. Never resolves by itself. */
async function silenceOf({ machine }: Unit, { everyMs, silenceMaxMs }: HeartbeatOptions, signal: AbortSignal): Promise<never> {
  while (!signal.aborted) {
    try {
      await machine.qmp.ask('query-status', undefined, silenceMaxMs);
    } catch (error) {
      if (!(error instanceof QmpClosed)) throw error;
      break;
    }
    await sleep(everyMs, undefined, { signal }).catch(() => undefined);
  }
  return new Promise<never>(() => undefined);
}
