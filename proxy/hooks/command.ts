/**
 * The hook command: started anew for each event, the event on its standard input.
 *
 *     start ─┬─ exits 0 ─────────────────────────► done
 *            ├─ exits otherwise, can't start ────► failed, with the last it said on standard error
 *            └─ still there after timeoutMs ─────► SIGTERM ─► GRACE_MS ─► SIGKILL ─► failed
 *
 * It has a process group of its own, and whatever of that is left when it ends is killed: an event
 * leaves nothing running. Its environment is PATH, LANG and what names the event; its working
 * directory is /. It runs as the daemon's user with the daemon's capabilities: who may write the
 * file is asked before (trust.ts).
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Deliver, Waiting } from './queue.ts';

const GRACE_MS = 1000;
const SAID_CHARACTERS_MAX = 200;
export const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Process groups that run now: what is killed when the child must end. */
const running = new Set<number>();

export function killCommands(): void {
  for (const group of running) signal(group, 'SIGKILL');
}

function signal(group: number, name: NodeJS.Signals): void {
  try {
    process.kill(-group, name);
  } catch {
    // It is gone.
  }
}

/** A process without descriptors or memory gets the error, or a child without pipes that has one to tell. */
function start(program: string, host: string, one: Waiting): ChildProcess {
  return spawn(program, [], {
    cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'pipe'],
    env: { PATH, LANG: 'C.UTF-8', SLUICE_HOST: host, SLUICE_EVENT: one.type, SLUICE_EVENT_ID: one.id },
  });
}

const notStarted = (error: unknown): string => `can't be started: ${error instanceof Error ? error.message : String(error)}`;

export function commandHook(program: string, host: string, timeoutMs: number): Deliver {
  return (one: Waiting) => new Promise((resolve) => {
    let child: ChildProcess;
    try {
      child = start(program, host, one);
    } catch (error) {
      return resolve(notStarted(error));
    }
    const group = child.pid;
    if (group !== undefined) running.add(group);
    let said = '';
    let late = false;
    const end = (name: NodeJS.Signals): void => {
      late = true;
      if (group !== undefined) signal(group, name);
    };
    const timers = [setTimeout(end, timeoutMs, 'SIGTERM'), setTimeout(end, timeoutMs + GRACE_MS, 'SIGKILL')];
    const over = (why: string | undefined): void => {
      for (const timer of timers) clearTimeout(timer);
      if (group !== undefined) {
        signal(group, 'SIGKILL'); // what it left behind
        running.delete(group);
      }
      child.stderr?.destroy();
      resolve(why);
    };
    child.stdin?.on('error', () => undefined); // it need not read
    child.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-SAID_CHARACTERS_MAX)));
    child.once('error', (error) => over(notStarted(error)));
    child.once('exit', (code, by) => {
      const ended = late ? `still ran after ${timeoutMs} ms and was killed` : code === 0 ? undefined : `ended with ${code ?? by}`;
      over(ended === undefined ? undefined : [ended, said.trim().split('\n').at(-1) ?? ''].filter((part) => part !== '').join(': '));
    });
    child.stdin?.end(`${one.text}\n`);
  });
}
