/**
 * Guests that are not what they seem: started again while no engine watched, they are not the
 * execution that is protected, and the engine refuses them; one that stands still without having
 * ended is declared dead by its silence, and the group goes on at the other sides.
 */
import { expect, test } from 'vitest';
import { until } from '../../bench/bed/commands.ts';
import { VmBed } from '../../bench/vm/bed.ts';
import { CountingClient } from '../../bench/vm/client.ts';
import { EngineProcess } from '../../bench/vm/engine.ts';
import { kitMissing } from '../../bench/vm/kit.ts';
import { UNPRIVILEGED } from './privilege.ts';

const reason = UNPRIVILEGED ?? (await kitMissing());

test.skipIf(reason !== undefined)(`a guest started again is refused, a silent one is taken over ${reason ?? ''}`, async () => {
  const bed = await VmBed.create({ guests: 2 });
  const engines: EngineProcess[] = [];
  const daemon = bed.bed.daemon();
  const engine = (...more: string[]): EngineProcess => {
    const started = new EngineProcess(bed, { socket: daemon.socket, intervalMs: 25, more });
    engines.push(started);
    return started;
  };
  try {
    await bed.startGuests();
    await daemon.start('live');
    const first = engine('--no-standby');
    await first.says('checkpoint', 20_000, 2);
    await first.kill();
    bed.kill(['front', 'store'], 0);
    await until('the guests are gone', () => bed.pid('front', 0) === undefined && bed.pid('store', 0) === undefined);
    await bed.startGuests();
    const refused = engine();
    await until('the engine has ended', () => !refused.isRunning, 20_000);
    expect(refused.output()).toMatch(/front, store of group g were started again since checkpoint \d+/);
    expect(refused.said().map(({ event }) => event)).not.toContain('based');
    const { generation } = await daemon.api.group('GET', '/v1/groups/g');
    await daemon.api.must('POST', '/v1/groups/g/unprotect', { generation, held: 'discard' });
    const second = engine('--silence', '500ms');
    await second.says('standby', 20_000, 2);
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    bed.own({ close: () => client.end() });
    await client.counts(20, 10_000);
    bed.freeze('front', 0);
    const dead = await second.says('dead', 10_000);
    expect(dead).toMatchObject({ member: 'front', why: expect.stringMatching(/no answer to \S+ within \d+ ms/) as string });
    await second.says('takeover', 10_000);
    await until('the silent guest is gone', () => bed.pid('front', 0) === undefined);
    await client.counts(20, 15_000);
    const account = await client.stop();
    expect(account).toMatchObject({ wrong: [], first: 1, last: account.answers });
    await second.stop();
  } finally {
    for (const one of engines) await one.kill();
    await bed.close();
  }
}, 120_000);
