/**
 * Where a scenario runs: here, if this kernel has what it needs; else in the lab guest, and then
 * its topology says so. Questions go to the agent, readings come back as they are.
 */
import { spawnSync } from 'node:child_process';
import { Unavailable, type Lap, type Reading, type Scenario, type Stage } from '../../scenario.ts';
import { KitUnavailable } from '../../vm/kernel.ts';
import { LabGuest, type LabAnswer } from './guest.ts';

/** Under emulation sluiced alone needs the better part of a minute to start. */
const OPEN_MS_MAX = 300_000;
const LAP_MS_MAX = 180_000;
const CLOSE_MS_MAX = 60_000;

/** The scenario where it can be run: here if the kernel can, else in the lab guest. */
export function whereItCan(inner: Scenario, can: () => boolean): Scenario {
  if (can()) return inner;
  return { ...inner, topology: `in a guest with Debian's own kernel under emulation (compare within the row only): ${inner.topology}`, open: () => open(inner.name) };
}

/** Whether this kernel has the queueing discipline; asked in a namespace that ends with the question. */
export const hasQdisc = (name: string): boolean =>
  spawnSync('unshare', ['--net', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', name]).status === 0;

async function open(scenario: string): Promise<Stage> {
  const guest = await LabGuest.boot().catch((error: unknown) => {
    throw error instanceof KitUnavailable ? new Unavailable(error.message) : error;
  });
  try {
    must(await guest.ask({ verb: 'open', scenario }, OPEN_MS_MAX));
  } catch (error) {
    await guest.close();
    throw error;
  }
  return {
    lap: async (lap: Lap) => must(await guest.ask({ verb: 'lap', lap }, LAP_MS_MAX)) as Reading,
    close: async () => {
      try {
        must(await guest.ask({ verb: 'close' }, CLOSE_MS_MAX));
      } finally {
        await guest.close();
      }
    },
  };
}

function must(answer: LabAnswer): unknown {
  if (answer.ok) return answer.value;
  throw answer.unavailable ? new Unavailable(answer.error) : new Error(`in the lab guest: ${answer.error}`);
}
