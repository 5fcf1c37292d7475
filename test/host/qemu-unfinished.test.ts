/**
 * An engine that dies in a takeover: its standbys are restored and wait, Sluice was not reached. To
 * the next engine they must not be the execution that is protected, since what is held is of the dead one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { VmBed } from '../../bench/vm/bed.ts';
import { CountingClient } from '../../bench/vm/client.ts';
import { EngineProcess } from '../../bench/vm/engine.ts';
import { kitMissing } from '../../bench/vm/kit.ts';
import { UNPRIVILEGED } from './privilege.ts';

const reason = UNPRIVILEGED ?? (await kitMissing());

test.skipIf(reason !== undefined)(`an engine that dies in a takeover is followed by one that does it again ${reason ?? ''}`, async () => {
  const bed = await VmBed.create({ guests: 2 });
  const engines: EngineProcess[] = [];
  const engine = (): EngineProcess => {
    const started = new EngineProcess(bed, { socket: daemon.socket, intervalMs: 25 });
    engines.push(started);
    return started;
  };
  const daemon = bed.bed.daemon();
  try {
    await bed.startGuests();
    await daemon.start('live');
    const client = new CountingClient(bed.bed.outsider.namespace ?? '', bed.ip('front'), 1);
    const first = engine();
    await first.says('standby', 20_000, 2);
    await client.counts(20, 10_000);
    await daemon.kill();
    bed.kill(['front', 'store'], 0);
    await first.says('dead', 5_000);
    await sleep(1500); // the standbys are restored by now, and wait for Sluice
    await first.kill();
    await daemon.start('live');
    const second = engine();
    expect(await second.says('takeover', 15_000)).toMatchObject({ generation: 2 });
    await client.counts(20, 15_000);
    const account = await client.stop();
    expect(account).toMatchObject({ wrong: [], first: 1, last: account.answers });
    await second.stop();
  } finally {
    for (const one of engines) await one.kill();
    await bed.close();
  }
}, 90_000);
