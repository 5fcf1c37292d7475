/**
 * I1 and I8 by the outside oracle, as in attacks.test.ts: what happens to a member's port while its
 * device lives on. A nic is the device it was placed at: its bridge may go and come, its name may
 * change, and nothing of it leaves uncommitted, whatever source MAC it speaks with.
 */
import { describe, expect, it } from 'vitest';
import { ipBatch, runIn } from '../../bench/bed/commands.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { macBytes, probeFlow } from '../../bench/bed/probe.ts';
import { Rig, type RigOptions } from '../../bench/bed/rig.ts';
import { flowKey } from '../../bench/bed/traffic.ts';
import { judge } from '../support/attack.ts';
import { UNPRIVILEGED } from './privilege.ts';

const FOREIGN_MAC = '02:77:00:00:00:01';
const FOREIGN_FLOW = 1000;

/** Member 1 also speaks with a source MAC that is nobody's, to the outside, until stopped. */
function foreignSpeaker(rig: Rig): () => number {
  const from = { ...rig.bed.member(0).address, mac: macBytes(FOREIGN_MAC) };
  const frame = probeFlow(from, rig.bed.outsider.address, FOREIGN_FLOW);
  let seq = 0;
  const timer = setInterval(() => {
    for (let i = 0; i < 4; i++, seq++) {
      rig.oracle.sent(flowKey(FOREIGN_FLOW, seq), 'm1', nowUs());
      rig.bed.tap(0).send(frame(seq));
    }
  }, 1);
  return () => {
    clearInterval(timer);
    return seq;
  };
}

/** Traffic, foreign frames too, `attack`, traffic; then the count and what must hold in every row. */
async function row(name: string, attack: (rig: Rig) => Promise<void>, options: RigOptions = {}): Promise<void> {
  const rig = await Rig.create(options);
  try {
    rig.start();
    const stop = foreignSpeaker(rig);
    try {
      await rig.pause(150);
      await attack(rig);
      await rig.pause(200);
    } finally {
      expect(stop(), 'foreign frames must have been sent').toBeGreaterThan(10);
    }
    await rig.finish();
    judge(name, rig);
  } finally {
    await rig.close();
  }
}

const ip = (rig: Rig, ...args: string[]): Promise<string> => runIn(rig.bed.host, 'ip', args);

const ALL = ['uplink', 'port1', 'port2'];

/** As an operator's script makes it again: ports enter one by one, the uplink first. */
async function makeBridge(rig: Rig, ports: readonly string[], pauseMs: number): Promise<void> {
  await ip(rig, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0');
  await ip(rig, 'link', 'set', 'br0', 'up');
  for (const port of ports) {
    await ip(rig, 'link', 'set', port, 'master', 'br0');
    await rig.pause(pauseMs);
  }
}

describe.skipIf(UNPRIVILEGED !== undefined)('attacks on ports', () => {
  for (const intraPath of ['redirect', 'bridge']) {
    it(`bridge deleted and made again, the taps alive (intraPath ${intraPath})`, async () => {
      await row(`bridge made again, 6 times, ${intraPath}`, async (rig) => {
        for (const pauseMs of [0, 0, 3, 10, 30, 60]) {
          await ip(rig, 'link', 'del', 'br0');
          await rig.pause(pauseMs * 5);
          await makeBridge(rig, ALL, pauseMs);
          await rig.pause(100);
        }
      }, { group: { intraPath } });
    });
  }

  it('bridge deleted and made again while the daemon is down', async () => {
    await row('bridge made again without the daemon', async (rig) => {
      await rig.daemon.kill();
      await ip(rig, 'link', 'del', 'br0');
      await rig.pause(20);
      await makeBridge(rig, ALL, 10);
      await rig.pause(50);
      await rig.restart();
    });
  });

  /** The uplink alone lives on. */
  async function makeAllAgain(rig: Rig, pauseMs: number): Promise<void> {
    await ip(rig, 'link', 'del', 'br0');
    for (const i of [0, 1]) rig.bed.deleteTap(i);
    await rig.pause(pauseMs);
    await makeBridge(rig, ['uplink'], pauseMs);
    for (const i of [0, 1]) await rig.bed.replaceTap(i);
    await rig.pause(100);
  }

  it('bridge and taps deleted and made again', async () => {
    await row('bridge and taps made again, 6 times', async (rig) => {
      for (const pauseMs of [0, 3, 10, 30, 60, 120]) await makeAllAgain(rig, pauseMs);
    });
  });

  it('bridge and taps deleted and made again while the daemon is down', async () => {
    await row('bridge and taps made again, no daemon', async (rig) => {
      await rig.daemon.kill();
      await makeAllAgain(rig, 20);
      await rig.restart();
    });
  });

  it('member ports moved to another bridge and back', async () => {
    await row('ports to another bridge and back', async (rig) => {
      await ip(rig, 'link', 'add', 'br9', 'type', 'bridge', 'mcast_snooping', '0');
      await ip(rig, 'link', 'set', 'br9', 'up');
      for (const bridge of ['br9', 'br0', 'br9', 'br0']) {
        for (const port of ['port1', 'uplink', 'port2']) {
          await ip(rig, 'link', 'set', port, 'master', bridge);
          await rig.pause(15);
        }
        await rig.pause(60);
      }
    });
  });

  it('tap renamed under traffic, and back', async () => {
    await row('tap renamed and back, 10 times', async (rig) => {
      for (let i = 0; i < 10; i++) {
        await ip(rig, 'link', 'set', 'port1', 'name', 'portz');
        await rig.pause(60);
        await ip(rig, 'link', 'set', 'portz', 'name', 'port1');
        await rig.pause(20);
      }
    });
  });

  it('tap renamed and out of the bridge and in again, the daemon restarted meanwhile', async () => {
    await row('tap renamed, out and in, restart', async (rig) => {
      await ipBatch(rig.bed.host, ['link set port1 name portz', 'link set portz nomaster']);
      await rig.pause(60);
      await ip(rig, 'link', 'set', 'portz', 'master', 'br0');
      await rig.pause(60);
      await rig.daemon.kill();
      await rig.restart();
      rig.traffic.drain();
      const before = rig.oracle.count().seen;
      await rig.pause(150);
      rig.traffic.drain();
      expect(rig.oracle.count().seen, 'under its new name it is a member as before').toBeGreaterThan(before);
      await ip(rig, 'link', 'set', 'portz', 'nomaster');
      await rig.pause(30);
      await ip(rig, 'link', 'set', 'portz', 'master', 'br0');
    });
  });

  it('the names of two taps exchanged under traffic', async () => {
    await row('names of two taps exchanged', async (rig) => {
      await ipBatch(rig.bed.host, ['link set port1 name portz', 'link set port2 name port1', 'link set portz name port2']);
      await rig.pause(200);
    });
  });
});
