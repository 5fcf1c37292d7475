/**
 * The QEMU engine with real guests: killed at every step of a checkpoint it goes on from the last
 * one that was durable; killed together with all guests the group comes back from the store; a
 * death of the guests alone is taken over by the hot standbys. All the while a client counts over
 * one connection, and every number must be the one before plus one.
 */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startIn, until } from '../../bench/bed/commands.ts';
import type { Running } from '../../bench/bed/commands.ts';
import type { Daemon } from '../../bench/bed/daemon.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { VmBed } from '../../bench/vm/bed.ts';
import { CountingClient } from '../../bench/vm/client.ts';
import { kitMissing } from '../../bench/vm/kit.ts';
import type { Phase } from '../../checkpoint-hooks/engines/qemu/checkpoint.ts';
import type { EngineEvent } from '../../checkpoint-hooks/engines/qemu/events.ts';
import { UNPRIVILEGED } from './privilege.ts';

const PHASES: readonly Phase[] = ['stopping', 'stopped', 'saved', 'cut', 'running', 'written', 'durable', 'settled'];
const reason = UNPRIVILEGED ?? (await kitMissing());

/** `sluice engine qemu` as a process, and what it has said. */
class Engine {
  private readonly running: Running;

  constructor(bed: VmBed, daemon: Daemon, file: string, options: readonly string[]) {
    const sluice = join(repositoryRoot(), 'bin/sluice');
    const store = join(bed.bed.directory, 'store');
    this.running = startIn(bed.bed.host, process.execPath, [sluice, '--socket', daemon.socket, '--json', 'engine', 'qemu', '-f', file, '--store', store, '--interval', '20ms', ...options]);
  }

  said<K extends EngineEvent['event']>(event: K): Extract<EngineEvent, { event: K }>[] {
    const lines = this.running.output().split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
    return lines.map((line) => JSON.parse(line) as EngineEvent).filter((one): one is Extract<EngineEvent, { event: K }> => one.event === event);
  }
  /** Waits for the count-th of these; at the latest when the engine is gone. */
  async has(what: string, is: () => boolean): Promise<void> {
    await until(what, () => is() || this.running.child.exitCode !== null, 20_000);
    if (!is()) throw new Error(`the engine ended before ${what}: ${this.running.output().slice(-2000)}`);
  }
  checkpoints(count: number): Promise<void> {
    return this.has(`${count} checkpoints`, () => this.said('checkpoint').length >= count);
  }
  /** SIGKILL as soon as it has said that it is in this phase, some checkpoints on. */
  async killAt(phase: Phase): Promise<void> {
    await this.has(phase, () => this.said('phase').some((one) => one.phase === phase && one.number > 2));
    await this.end('SIGKILL');
  }
  async end(signal: NodeJS.Signals): Promise<void> {
    this.running.child.kill(signal);
    await this.running.ended;
  }
}

interface Stage {
  readonly bed: VmBed;
  readonly daemon: Daemon;
  readonly client: CountingClient;
  readonly engine: (options?: readonly string[], file?: string) => Engine;
}

async function onStage(guests: 2 | 3, play: (stage: Stage) => Promise<void>): Promise<void> {
  const bed = await VmBed.create({ guests });
  const engines: Engine[] = [];
  try {
    const daemon = bed.bed.daemon();
    await bed.startGuests();
    await daemon.start('live');
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    const engine = (options: readonly string[] = [], file = bed.groupFile): Engine => {
      const started = new Engine(bed, daemon, file, options);
      engines.push(started);
      return started;
    };
    await play({ bed, daemon, client, engine });
    const account = await client.stop();
    expect(account).toMatchObject({ wrong: [], first: 1, last: account.answers });
    expect(account.broken).toBeUndefined();
  } finally {
    for (const engine of engines) await engine.end('SIGKILL').catch(() => undefined); // most have ended long ago
    await bed.close();
  }
}

test.skipIf(reason !== undefined)(`the engine is killed at every step of a checkpoint ${reason ?? ''}`, () => onStage(2, async ({ bed, daemon, client, engine }) => {
  let durable = 0;
  for (const phase of PHASES) {
    const killed = engine(['--no-standby']);
    await killed.checkpoints(2);
    expect(killed.said('based').map(({ how }) => how), phase).toEqual(durable === 0 ? ['full', 'full'] : ['kept', 'kept']);
    await killed.killAt(phase);
    const last = killed.said('checkpoint').at(-1)?.epoch ?? 0;
    expect(last, phase).toBeGreaterThan(durable);
    durable = last;
  }
  const after = engine(['--no-standby', '--checkpoints', '5']);
  await after.checkpoints(5);
  await client.counts(10, 5000).catch(() => undefined); // the engine may have ended: what is held then stays held
  expect(await daemon.api.group('GET', '/v1/groups/g')).toMatchObject({ generation: 1 });
  const last = engine(['--no-standby']);
  await client.counts(10, 10_000);
  // Engine and guests at once: the next engine has nothing but the store.
  bed.kill(['front', 'store'], 0);
  await last.end('SIGKILL');
  const heir = engine();
  await heir.has('the takeover', () => heir.said('takeover').length === 1);
  expect(heir.said('takeover')[0]).toMatchObject({ generation: 2, cold: ['front', 'store'] });
  await client.counts(20, 15_000);
  await heir.end('SIGTERM');
}), 180_000);

test.skipIf(reason !== undefined)(`guests die, one alone and all at once; each time the standbys go on ${reason ?? ''}`, () => onStage(2, async ({ bed, client, engine }) => {
  const one = engine();
  for (const [round, victims] of [['front', 'store'], ['store'], ['front']].entries()) {
    await one.has('two standbys', () => one.said('standby').length >= 2 * (round + 1));
    await client.counts(20, 10_000);
    bed.kill(victims, round % 2 === 0 ? 0 : 1);
    await one.has('the takeover', () => one.said('takeover').length === round + 1);
    await client.counts(20, 15_000);
  }
  expect(one.said('takeover').map(({ generation, cold }) => [generation, cold])).toEqual([[2, []], [3, []], [4, []]]);
  // What the new side has is not copied again: a first standby is filled in full, a later one is not.
  const moved = one.said('standby').map(({ movedBytes }) => movedBytes);
  expect(Math.max(...moved.slice(2))).toBeLessThan(Math.min(...moved.slice(0, 2)) / 2);
  await one.end('SIGTERM');
}), 120_000);
