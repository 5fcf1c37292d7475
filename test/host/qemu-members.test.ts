/**
 * Membership of a protected group with real guests: one leaves and joins again, and only that one is
 * copied. The group's stop is a checkpoint's, whatever is copied: copies are made while guests run.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { VmBed } from '../../bench/vm/bed.ts';
import { CountingClient } from '../../bench/vm/client.ts';
import { EngineProcess } from '../../bench/vm/engine.ts';
import { kitMissing } from '../../bench/vm/kit.ts';
import { SluiceClient } from '../../checkpoint-hooks/client.ts';
import { UNPRIVILEGED } from './privilege.ts';

const reason = UNPRIVILEGED ?? (await kitMissing());

test.skipIf(reason !== undefined)(`one of three leaves and joins, and the others are not copied again ${reason ?? ''}`, async () => {
  const bed = await VmBed.create({ guests: 3 });
  const engines: EngineProcess[] = [];
  const daemon = bed.bed.daemon();
  const sluice = new SluiceClient({ socket: daemon.socket });
  /** Three checkpoints with these guests: how each came to its base, and bytes copied. */
  const protect = async (names: readonly string[]): Promise<{ how: Record<string, string>; movedBytes: number; members: string[] }> => {
    const file = join(bed.bed.directory, `${names.join('-')}.json`);
    writeFileSync(file, JSON.stringify({ ...bed.group, guests: bed.group.guests.filter(({ name }) => names.includes(name)) }));
    const engine = new EngineProcess(bed, { socket: daemon.socket, intervalMs: 25, more: ['-f', file, '--no-standby'] });
    engines.push(engine);
    await engine.says('checkpoint', 30_000, 3);
    const based = engine.said().filter(({ event }) => event === 'based');
    const { members } = await sluice.group('g');
    await engine.stop();
    return {
      how: Object.fromEntries(based.map(({ member, how }) => [String(member), String(how)])),
      movedBytes: based.reduce((sum, { movedBytes }) => sum + Number(movedBytes), 0),
      members: members.map(({ name }) => name).sort(),
    };
  };
  try {
    await bed.startGuests();
    await daemon.start('live');
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    bed.own({ close: () => client.end() });
    await client.counts(20, 10_000);
    const all = await protect(['front', 'middle', 'store']);
    expect(all).toMatchObject({ how: { front: 'full', middle: 'full', store: 'full' }, members: ['front', 'middle', 'store'] });
    const two = await protect(['front', 'store']);
    expect(two).toEqual({ how: { front: 'kept', store: 'kept' }, movedBytes: 0, members: ['front', 'store'] });
    const again = await protect(['front', 'middle', 'store']);
    expect(again).toMatchObject({ how: { front: 'kept', middle: 'full', store: 'kept' }, members: ['front', 'middle', 'store'] });
    expect(again.movedBytes / all.movedBytes).toBeLessThan(0.5);
    const account = await client.stop();
    expect(account).toMatchObject({ wrong: [], first: 1, last: account.answers });
    expect(account.broken).toBeUndefined();
  } finally {
    for (const one of engines) await one.kill();
    await sluice.close();
    await bed.close();
  }
}, 120_000);
