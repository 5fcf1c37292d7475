/**
 * A hot standby: the guest's other side, started with `-incoming defer`, its machine built, its RAM
 * kept at the newest durable checkpoint, waiting for its device state.
 *
 *   launch ─► listening ─► bring RAM (ram-image.ts) ─► ready ─► … settle, settle … ─► restoreState, cont
 *
 * QEMU writes its firmware and kernel into the RAM file as it starts, so the RAM is brought after
 * that. The process is detached: it outlives the engine, and the next engine finds it.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestSide } from './guest.ts';
import { Machine, kill, pidOf } from './machine.ts';

const LAUNCH_DEADLINE_MS = 10_000;
const POLL_MS = 10;

/** Whatever ran on that side is ended; then it is a standby with empty hands. */
export async function launchStandby(side: GuestSide): Promise<Machine> {
  await ended(side);
  rmSync(side.qmp, { force: true });
  const [program, ...args] = side.argv;
  if (program === undefined) throw new Error(`${side.qmp}: no command line`);
  // Into a file: a pipe would keep an engine that has ended from going, and break when it is gone.
  const log = `${side.qmp}.log`;
  const logFd = openSync(log, 'w', 0o600);
  const child = spawn(program, [...args, '-incoming', 'defer'], { detached: true, stdio: ['ignore', 'ignore', logFd] });
  closeSync(logFd);
  let gone: string | undefined;
  child.once('error', (error) => (gone = error.message));
  child.once('exit', (code, signal) => (gone = `it ended with ${signal ?? String(code)}`));
  // The engine's is higher: its own, not theirs.
  if (child.pid !== undefined) setPriority(child.pid, 0);
  child.unref();
  const machine = await attached(side, () => gone === undefined ? undefined : `${gone}: ${readFileSync(log, 'utf8').slice(-2000).trim()}`);
  await machine.listen();
  return machine;
}

/** Asks again until it answers or it is known to be gone. */
async function attached(side: GuestSide, gone: () => string | undefined): Promise<Machine> {
  const deadlineMs = performance.now() + LAUNCH_DEADLINE_MS;
  for (;;) {
    const why = gone();
    if (why !== undefined) throw new Error(`the standby at ${side.qmp} did not start: ${why}`);
    try {
      return await Machine.attach(side);
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(POLL_MS);
    }
  }
}

async function ended(side: GuestSide): Promise<void> {
  const deadlineMs = performance.now() + LAUNCH_DEADLINE_MS;
  kill(side);
  while (pidOf(side) !== undefined) {
    if (performance.now() > deadlineMs) throw new Error(`the process at ${side.qmp} does not end`);
    await sleep(POLL_MS);
  }
}
