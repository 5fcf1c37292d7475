/** The bench's own echo, under a garbage collector that never rests: its requests are answered all the same. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { until } from '../../bench/bed/commands.ts';
import { echo, type EchoResult } from '../../bench/bed/echo.ts';
import { UNPRIVILEGED } from './privilege.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

describe.skipIf(UNPRIVILEGED !== undefined)('echo', () => {
  test('nothing of it is collected while a request is under way', async () => {
    const bed = await Bed.create({ members: ['veth'] });
    const collector = setInterval(collect, 1);
    try {
      let came: EchoResult | undefined;
      // Not awaited: nothing here may lead to it, as nothing does in a bench between two timers.
      void echo(bed, bed.member(0), { count: 60, spacingMs: 1, timeoutMs: 60_000 }).then((result) => (came = result));
      await until('all requests are answered', () => came !== undefined, 200_000);
      expect(came).toMatchObject({ lost: 0 });
    } finally {
      clearInterval(collector);
      await bed.close();
    }
  }, 240_000);
});
