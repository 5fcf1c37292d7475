/**
 * What a program that is told to end does about its open beds: `finally` does not run then.
 *
 *   Bed: leaves(…) ─► the program ends in order: settled(…)
 *                 └─► SIGINT, SIGTERM, the parent gone: abandonBeds(), exit 130
 *
 * All of it is synchronous, because who sent the signal may send SIGKILL half a second later (a test
 * runner does); then nobody clears away. What runs is found by namespace: daemon, engine, clients and
 * guests of a bed are all in one of its namespaces, whoever started them, and nobody else is.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** What a bed has made, as far as it is made. */
export interface Leaving {
  readonly id: string;
  readonly namespaces: readonly string[];
  readonly directory: string;
  /** Where they are not `/sys/fs/bpf/sluice-<id>`. */
  readonly pins?: readonly string[];
}

const MEMORY = '/dev/shm';
const open = new Set<Leaving>();

export const leaves = (it: Leaving): void => void open.add(it);
export const settled = (it: Leaving): void => void open.delete(it);

/** From now on a signal, or the end of the parent that forked this process, takes open beds down. */
export function abandonOnSignal(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'disconnect'] as const) process.on(signal, abandonAndExit);
}
/** The same, but the first signal asks for an end in order: who says it again can't wait. */
export function endOnSignal(): AbortSignal {
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (ending.signal.aborted) abandonAndExit();
      ending.abort();
    });
  }
  return ending.signal;
}
/** Listened to for good: `timeout` and impatient hands send a signal twice, and the second would end the process in the middle. */
function abandonAndExit(): never {
  abandonBeds();
  process.exit(130);
}

/** Takes down every open bed at once; what fails is said and does not stop the rest. */
export function abandonBeds(): void {
  for (const { id, namespaces, directory, pins } of open) {
    for (const name of namespaces) {
      attempt(() => killIn(name));
      attempt(() => execFileSync('ip', ['netns', 'del', name], { stdio: 'pipe' }));
    }
    const memory = readdirSync(MEMORY).filter((name) => name === `sluice-${id}` || name.startsWith(`sl-${id}-`));
    for (const path of [directory, ...(pins ?? [`/sys/fs/bpf/sluice-${id}`]), ...memory.map((name) => join(MEMORY, name))]) {
      attempt(() => rmSync(path, { recursive: true, force: true }));
    }
  }
  open.clear();
}

function killIn(namespace: string): void {
  const pids = execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' }).split('\n').filter(Boolean).map(Number);
  for (const pid of pids) if (pid !== process.pid) attempt(() => process.kill(pid, 'SIGKILL'));
}

function attempt(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return; // it has ended by itself
    console.error(`not cleared away: ${error instanceof Error ? error.message : String(error)}`);
  }
}
