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
 * (SIGHUP of the daemon) turn each target's queue to them, so that no event overtakes another across
 * the change. What waits for a target that they no longer name is delivered by the old ones.
 */
import { setPriority } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { commandHook, killCommands } from './command.ts';
import { webhook } from './post.ts';
import { Lines, lineOf } from './protocol.ts';
import type { HookReport, HookSettings, ToHooks } from './protocol.ts';
import { TargetQueue } from './queue.ts';
import type { Deliver } from './queue.ts';

/** Events that wait for one target. */
const WAITING_MAX = 256;
const LAST_MS = 3000;
/** Of `setPriority`. */
const ORDINARY = 0;

/** By name, which settings have at most a handful of: those of earlier settings included. */
const queues = new Map<string, TargetQueue>();
let targets: readonly TargetQueue[] = [];

const report = (one: HookReport): void => void process.stdout.write(lineOf(one));

function queueOf(target: string, deliver: Deliver): TargetQueue {
  const known = queues.get(target);
  known?.turnTo(deliver);
  const queue = known ?? new TargetQueue(target, deliver, report, WAITING_MAX);
  queues.set(target, queue);
  return queue;
}

function open({ host, command, urls, secret, ca, timeoutMs }: HookSettings): readonly TargetQueue[] {
  return [
    ...(command === undefined ? [] : [queueOf('command', commandHook(command, host, timeoutMs))]),
    ...urls.map((url, i) => queueOf(`webhook-${i + 1}`, webhook(url, { secret, ca, timeoutMs }))),
  ];
}

function hear(message: ToHooks): void {
  if ('set' in message) {
    targets = open(message.set);
    return;
  }
  for (const target of targets) target.add(message);
}

async function end(): Promise<void> {
  await Promise.race([Promise.all([...queues.values()].map((queue) => queue.idle())), pause(LAST_MS)]);
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
