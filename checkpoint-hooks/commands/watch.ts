/** `sluice events` and `sluice held`: what happens, and what is held. */
import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import type { ApiEvent, HeldView } from '../../proxy/api/contract.ts';
import { bytesText, msText, table } from '../format.ts';
import { Failure, UsageError, wholeNumber } from './context.ts';
import type { Context } from './context.ts';

/** Time, type, group, then whatever else the event has as name=value. */
export function eventLine(event: ApiEvent): string {
  const { type, atMs, group, ...rest } = event;
  const details = Object.entries(rest).map(([name, value]) => `${name}=${Array.isArray(value) ? value.join(',') : String(value)}`);
  return [new Date(atMs).toISOString(), type.padEnd(14), (group ?? '-').padEnd(10), ...details].join('  ').trimEnd();
}

export function heldText(held: HeldView): string {
  if (held.frames === 0) return `${held.group}: nothing is held`;
  const rows = held.epochs.map((epoch) => [String(epoch.epoch), String(epoch.frames), bytesText(epoch.bytes), msText(epoch.oldestMs)]);
  const right = ['right', 'right', 'right', 'right'] as const;
  return `${held.group}: ${held.frames} frames, ${bytesText(held.bytes)}\n\n${table(['epoch', 'frames', 'bytes', 'oldest'], rows, right)}`;
}

interface EventsOptions {
  readonly group?: string;
  readonly count?: number;
  readonly type?: readonly string[];
  readonly since?: string;
}

async function printEvents(context: Context, options: EventsOptions, command: Command): Promise<void> {
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  let left = options.count ?? Infinity;
  const follow = context.client(command).events({
    signal: stop.signal,
    ...(options.group === undefined ? {} : { group: options.group }),
    ...(options.since === undefined ? {} : { lastEventId: options.since }),
    onLost: (reason) => process.stderr.write(`sluice: ${reason}; trying again\n`),
  });
  if (left <= 0) return;
  for await (const { id, event } of follow) {
    if (options.type !== undefined && !options.type.includes(event.type)) continue;
    context.show(command, { id, ...event }, () => eventLine(event));
    left -= 1;
    if (left <= 0) break;
  }
}

async function saveCapture(context: Context, group: string, path: string, command: Command): Promise<void> {
  const capture = await context.client(command).heldCapture(group);
  if (path === '-') {
    if (process.stdout.isTTY) throw new UsageError('-o - writes a binary capture: send it into a file or a pipe');
    for await (const chunk of capture) process.stdout.write(chunk as Buffer);
    return;
  }
  try {
    await pipeline(capture, createWriteStream(path));
  } catch (error) {
    throw new Failure(`${path}: ${(error as Error).message}`);
  }
  process.stderr.write(`wrote ${path}\n`);
}

export function addWatch(program: Command, context: Context): void {
  program
    .command('events')
    .description('what happens, as it happens; survives a restart of the daemon')
    .option('-g, --group <group>', 'of this group alone')
    .option('-n, --count <count>', 'end after so many events', wholeNumber)
    .option('-t, --type <types>', 'only these types, with commas', (text) => text.split(','))
    .option('--since <id>', 'begin after this event id, as far as the daemon remembers')
    .addHelpText('after', '\nExample:\n  $ sluice events --group web --type released,high-water')
    .action((options: EventsOptions, command: Command) => printEvents(context, options, command));
  program
    .command('held <group>')
    .description('what is held now, by epoch; with -o the frames themselves')
    .option('-o, --output <file>', 'write the held frames as a capture (pcapng); - is standard output')
    .addHelpText('after', '\nExample:\n  $ sluice held web -o held.pcapng && tshark -r held.pcapng')
    .action(async (group: string, options: { output?: string }, command: Command) => {
      if (options.output !== undefined) return saveCapture(context, group, options.output, command);
      const held = await context.client(command).held(group);
      context.show(command, held, () => heldText(held));
    });
}
