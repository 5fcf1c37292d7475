/** The engines of the guide, in TypeScript and in Python, run as a reader would run them. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { sleep, start, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { readFileSync } from 'node:fs';
import { UNPRIVILEGED } from './privilege.ts';

const example = (name: string): string => join(repositoryRoot(), 'deploy/examples', name);
const ENGINES = [
  ['TypeScript', [process.execPath, '--import', 'tsx', example('engine.ts')]],
  ['Python', ['python3', example('engine.py')]],
] as const;

describe.skipIf(UNPRIVILEGED !== undefined)('an engine in 30 lines', () => {
  test.each(ENGINES)('%s: protects, cuts, commits; what was held leaves in order', async (_name, [program, ...args]) => {
    const bed = await Bed.create({ members: ['tap', 'tap'] });
    try {
      await bed.daemon().start();
      const { api } = bed.daemon();
      await api.must('PUT', '/v1/groups/web', bed.groupFile('web'));
      const outside = bed.outside();
      const engine = start(program, [...args, 'web', '40'], { SLUICE_CONTROL_SOCKET: bed.daemon().socket });
      await until('the engine protects', async () => (await api.group('GET', '/v1/groups/web')).generation === 1, 20_000);
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 1, 300);
      const sent = Array.from({ length: 30 }, (_, i) => Buffer.from(frame(i)).toString('hex'));
      for (const one of sent) expect(bed.tap(0).send(Buffer.from(one, 'hex'))).toBe(true);
      expect(await engine.ended, engine.output()).toBe(0);
      expect(engine.output()).toMatch(/^released 40, still held 0$/m);
      const came: string[] = [];
      await until('everything is outside', async () => {
        outside.drain((one) => came.push(Buffer.from(one).toString('hex')));
        await sleep(20);
        return came.length >= sent.length;
      });
      expect(came).toEqual(sent);
    } finally {
      await bed.close();
    }
  });

  test('each is as short as the guide says', () => {
    for (const name of ['engine.ts', 'engine.py']) {
      const lines = readFileSync(example(name), 'utf8').split('\n').filter((line) => line.trim() !== '');
      expect(lines.length, name).toBeLessThanOrEqual(32);
    }
  });
});
