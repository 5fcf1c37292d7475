/**
 * The hooks child: runs the hook command and posts to the webhooks, in a process of its own, so that
 * starting a program or a slow TLS handshake costs the daemon nothing, least of all between a commit
 * and its release.
 *
 *     standard input: settings, then events ─► a queue for each target ─► command | post
 *     standard output: a report for each event and target
 *     input ends (daemon ended, or was killed) ─► LAST_MS for what waits ─► commands killed ─► exit
 *
 * It runs at ordinary priority: the daemon's own is not for other people's programs. New settings
 * (SIGHUP of the daemon) are for events to come; what waits goes on under the old ones.
 */
import { setPriority } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { commandHook, killCommands } from './command.ts';
import { webhook } from './post.ts';
import { Lines, lineOf } from './protocol.ts';
import type { HookReport, HookSettings, ToHooks } from './protocol.ts';
import { TargetQueue } from './queue.ts';

/** Events that wait for one target. */
const WAITING_MAX = 256;
const LAST_MS = 3000;
/** Of `setPriority`. */
const ORDINARY = 0;

const all: TargetQueue[] = [];
let targets: readonly TargetQueue[] = [];

const report = (one: HookReport): void => void process.stdout.write(lineOf(one));

function open({ host, command, urls, secret, ca, timeoutMs }: HookSettings): readonly TargetQueue[] {
  return [
    ...(command === undefined ? [] : [new TargetQueue('command', commandHook(command, host, timeoutMs), report, WAITING_MAX)]),
    ...urls.map((url, i) => new TargetQueue(`webhook-${i + 1}`, webhook(url, { secret, ca, timeoutMs }), report, WAITING_MAX)),
  ];
}

function hear(message: ToHooks): void {
  if ('set' in message) {
    targets = open(message.set);
    all.push(...targets);
    return;
  }
  for (const target of targets) target.add(message);
}

async function end(): Promise<void> {
  await Promise.race([Promise.all(all.map((queue) => queue.idle())), pause(LAST_MS)]);
  killCommands();
  process.exit(0);
}

try {
  setPriority(ORDINARY);
} catch {
  // Already ordinary, or not ours to change.
}
const lines = new Lines();
process.stdout.on('error', () => undefined); // the daemon is gone: its end is told by the input
process.stdin.setEncoding('utf8').on('data', (piece: string) => {
  for (const message of lines.take(piece)) hear(message as ToHooks);
});
process.stdin.once('end', () => void end());
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined); // ends with the daemon, not beside it
