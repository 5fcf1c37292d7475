/** `sluice engine qemu`: protects a group of running QEMU guests and takes over when they die. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { parse } from '../../proxy/doors/yaml.ts';
import { Refused, Unreachable } from '../client.ts';
import { QemuEngine } from '../engines/qemu/engine.ts';
import type { QemuSummary } from '../engines/qemu/engine.ts';
import type { EngineEvent } from '../engines/qemu/events.ts';
import { mustGuests } from '../engines/qemu/guest.ts';
import type { GuestGroup } from '../engines/qemu/guest.ts';
import { Store } from '../engines/qemu/store.ts';
import { bytesText, msText, pairs } from '../format.ts';
import { Failure } from './context.ts';
import type { Context } from './context.ts';
import { latencyText, untilSignal } from './running.ts';

export interface QemuFlags {
  readonly file: string;
  readonly store: string;
  readonly interval: number;
  readonly idleInterval: number;
  readonly commitDelay: number;
  readonly heartbeat: number;
  readonly silence: number;
  readonly standby: boolean;
  readonly replay: boolean;
  readonly checkpoints?: number;
  readonly giveUpAfter: number;
}

function readGuests(path: string): GuestGroup {
  try {
    return mustGuests(parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new Failure(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** One line for a person; undefined: not worth one. */
export function eventText(event: EngineEvent): string | undefined {
  switch (event.event) {
    case 'phase': case 'committed': case 'checkpoint': return undefined;
    case 'skipped': return `checkpoint skipped: ${event.why}`;
    case 'base-lost': return `${event.member}: it is copied anew, since ${event.why}`;
    case 'based': return event.how === 'kept' ? `${event.member}: the store has its image` : `${event.member}: ${bytesText(event.movedBytes)} copied while it ran, in ${msText(event.tookMs)}`;
    case 'protected': return `protected, generation ${event.generation}`;
    case 'standby': return `${event.member}: standby ready, ${bytesText(event.movedBytes)} copied, in ${msText(event.tookMs)}`;
    case 'standby-failed': return `${event.member}: no standby: ${event.why}`;
    case 'without': return event.what === 'priority' ? `without a higher priority: ${event.why}` : `without a record of what comes from outside: ${event.why}`;
    case 'dead': return `${event.member} is dead: ${event.why}`;
    case 'takeover': return `running again after ${msText(event.runningMs)} from epoch ${event.epoch}, generation ${event.generation}${event.cold.length === 0 ? '' : `; filled from the store: ${event.cold.join(', ')}`}`;
  }
}

function qemuLine(now: QemuSummary): string {
  return `${now.group} generation ${now.generation}  checkpoints ${now.checkpoints}  durable ${now.durable}  committed ${now.committed}  stop p50 ${msText(now.stopMs.p50)}  standbys ${now.standbysReady}`;
}

export function qemuSummaryText(summary: QemuSummary): string {
  return pairs([
    ['checkpoints', `${summary.checkpoints} (durable ${summary.durable}, committed ${summary.committed}), ${summary.skipped} skipped`],
    ['group stop', latencyText(summary.stopMs)],
    ['to the store', latencyText(summary.shipMs)],
    ['takeovers', String(summary.takeovers)],
  ]);
}

export async function protect(context: Context, flags: QemuFlags, command: Command): Promise<void> {
  const guests = readGuests(flags.file);
  const isJson = context.isJson(command);
  const store = openStore(flags.store, guests.group);
  const tell = (event: EngineEvent): void => {
    const text = isJson ? JSON.stringify({ atMs: Date.now(), ...event }) : eventText(event);
    if (text !== undefined) context.out(text);
  };
  const engine = new QemuEngine(context.client(command), store, {
    guests,
    intervalMs: flags.interval,
    idleIntervalMs: Math.max(flags.idleInterval, flags.interval),
    commitDelayMs: flags.commitDelay,
    heartbeat: { everyMs: flags.heartbeat, silenceMaxMs: flags.silence },
    standby: flags.standby,
    replay: flags.replay,
    troubleMaxMs: flags.giveUpAfter,
    checkpoints: flags.checkpoints,
  }, tell);
  try {
    const line = { first: `${guests.group}: finding its guests`, isShown: !isJson, text: () => qemuLine(engine.summary()) };
    const summary = await untilSignal(line, (signal) => engine.run(signal)).catch((error: unknown) => {
      // Guests, disk or store: an operating error, said in its one sentence.
      if (error instanceof Error && !(error instanceof Refused || error instanceof Unreachable)) throw new Failure(error.message);
      throw error;
    });
    context.show(command, { event: 'end', ...summary }, () => qemuSummaryText(summary));
  } finally {
    store.close();
  }
}

function openStore(directory: string, group: string): Store {
  try {
    return Store.open(directory, group);
  } catch (error) {
    throw new Failure(error instanceof Error ? error.message : String(error));
  }
}
