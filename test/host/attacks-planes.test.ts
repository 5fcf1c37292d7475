/**
 * I1 and I8 by the outside oracle, over both data planes: the attacks that know nothing of how a plane
 * is made. What only the kernel's has (qdiscs, filters, hold devices) is in attacks.test.ts.
 */
import { describe, expect, it } from 'vitest';
import { runIn, until } from '../../bench/bed/commands.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { CADENCE, Rig } from '../../bench/bed/rig.ts';
import { badCommands, oddFrames, refusedCall, row as rowOf, seenIn, spoof } from '../support/attack.ts';
import { PLANES } from '../support/planes.ts';
import { UNPRIVILEGED } from './privilege.ts';

const ip = (rig: Rig, ...args: string[]): Promise<string> => runIn(rig.bed.host, 'ip', args);

describe.skipIf(UNPRIVILEGED !== undefined).each(PLANES)('attacks over %s', (plane) => {
  const row = (name: string, attack: Parameters<typeof rowOf>[1], options: Parameters<typeof rowOf>[2] = {}): ReturnType<typeof rowOf> =>
    rowOf(`${plane}: ${name}`, attack, { ...options, plane });

  it('control: group not protected: the oracle finds leaks', async () => {
    const rig = await Rig.create({ unprotected: true, plane });
    try {
      rig.oracle.begin('cut', 1, nowUs())(true);
      for (let i = 0; i < 50; i++) rig.traffic.tick();
      await rig.settle();
      console.log(rig.line(`${plane}: control: group not protected`));
      expect(rig.oracle.count().leaked).toBe(rig.oracle.count().sent + rig.oracle.count().strays);
    } finally {
      await rig.close();
    }
  });

  it('nothing at all: nothing is lost and order is kept', async () => {
    const rig = await row('no attack', async (r) => r.pause(300));
    expect(rig.oracle.count()).toMatchObject({ held: 0, lost: 0 });
    for (const flow of [...rig.traffic.flows('external'), ...rig.traffic.flows('intra')]) {
      expect(flow).toMatchObject({ reorders: 0, repeats: 0, seen: flow.sent - flow.unsent });
    }
  });

  it('SIGKILL of the daemon', async () => {
    await row('SIGKILL of the daemon', async (rig) => {
      await rig.daemon.kill();
      await rig.pause(50);
      expect(await seenIn(rig, 200), 'nothing leaves without the daemon').toBe(0);
      await rig.restart();
    });
  });

  it('SIGKILL of the daemon (its hold loop goes with it), ten times at odd moments', async () => {
    await row('SIGKILL ten times', async (rig) => {
      for (let i = 0; i < 10; i++) {
        await rig.pause(7 * i);
        await rig.daemon.kill();
        await rig.restart();
      }
    });
  });

  it('SIGTERM of the daemon: protection stays', async () => {
    await row('SIGTERM of the daemon', async (rig) => {
      await rig.daemon.stop();
      await rig.pause(50);
      expect(await seenIn(rig, 150)).toBe(0);
      await rig.restart();
    });
  });

  it('SIGSTOP of the daemon', async () => {
    await row('SIGSTOP for 300 ms', async (rig) => {
      rig.daemon.signal('SIGSTOP');
      await rig.pause(50);
      expect(await seenIn(rig, 250), 'nothing leaves while it is frozen').toBe(0);
      rig.daemon.signal('SIGCONT');
    });
  });

  it('engine gone silent', async () => {
    await row('engine silent for 500 ms', async (rig) => {
      await rig.engine.stop();
      await rig.pause(50);
      expect(await seenIn(rig, 450), 'nothing leaves without a commit').toBe(0);
      rig.engine.run(CADENCE);
    });
  });

  it('ring overflow under flood', async () => {
    const rig = await row('overflow under flood', async (r) => {
      await r.engine.stop();
      for (let i = 0; i < 60_000; i++) r.traffic.send(1);
      r.traffic.drain();
      await r.pause(200);
      await until('the ring was too small', async () => (await r.engine.sync()).dropped.overflow > 0);
      r.engine.run(CADENCE);
    }, { group: { hold: { bytes: '4MiB', highWater: 0.75 } } });
    expect(rig.traffic.flows('external').map((flow) => flow.reorders)).toEqual([0, 0]);
  });

  it('tap deleted and made again under traffic', async () => {
    await row('tap deleted and made again, 5 times', async (rig) => {
      for (let i = 0; i < 5; i++) {
        await rig.bed.replaceTap(i % 2);
        await rig.pause(60);
      }
    });
  });

  it('every tap deleted, and made again later', async () => {
    await row('all taps deleted and made again, 10 times', async (rig) => {
      for (let i = 0; i < 10; i++) {
        rig.bed.deleteTap(0);
        rig.bed.deleteTap(1);
        await rig.pause(40);
        await rig.bed.replaceTap(0);
        await rig.bed.replaceTap(1);
        await rig.pause(40);
      }
    });
  });

  for (const device of ['port1', 'uplink']) {
    it(`link flap of ${device}`, async () => {
      await row(`link flap of ${device}, 5 times`, async (rig) => {
        for (let i = 0; i < 5; i++) {
          await ip(rig, 'link', 'set', device, 'down');
          await rig.pause(20);
          await ip(rig, 'link', 'set', device, 'up');
          await rig.pause(20);
        }
      });
    });
  }

  it('malformed and fenced commands during traffic', async () => {
    await row('malformed and fenced commands', async (rig) => {
      await rig.engine.stop();
      await rig.pause(50);
      rig.traffic.drain();
      const before = rig.oracle.count().seen;
      for (const [path, body] of badCommands(rig.engine.generation, rig.engine.open)) {
        const answer = await refusedCall(rig, path, body);
        expect(answer.status, `${path} ${JSON.stringify(body).slice(0, 100)}`).toBeGreaterThanOrEqual(400);
        expect(answer.status).toBeLessThan(500);
      }
      await rig.pause(100);
      expect(rig.oracle.count().seen - before, 'a refusal releases nothing').toBe(0);
      rig.engine.run(CADENCE);
    });
  });

  it('every odd frame of the corpus', async () => {
    await row('corpus of odd frames', oddFrames, { mtu: 9000 });
  });

  for (const [whom, mac] of [['another member', '02:51:00:00:00:02'], ['the outsider', '02:51:00:00:00:fe'], ['nobody known', '02:77:00:00:00:01']] as const) {
    it(`member speaks with the MAC of ${whom}`, async () => {
      await row(`source MAC of ${whom}`, (rig) => spoof(rig, mac));
    });
  }
});
