/**
 * Lanes in the kernel (`lanes: on`, and what `auto` makes of them): that held frames wait there, what another tool can do to their queues and devices
 * (I1, I8), and that the ring carries what they do not.
 */
import { describe, expect, it } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { runIn, until } from '../../bench/bed/commands.ts';
import { iperf } from '../../bench/bed/iperf.ts';
import { CADENCE, type Rig } from '../../bench/bed/rig.ts';
import { row } from '../support/attack.ts';
import { withBed } from '../support/with-bed.ts';
import { Engine } from '../../bench/bed/engine.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { UNPRIVILEGED } from './privilege.ts';

const LANES = 16;
const ON = { daemon: { lanes: 'on' } } as const;
const tc = (rig: Rig, ...args: string[]): Promise<string> => runIn(rig.bed.host, 'tc', args);

interface Qdisc {
  readonly kind: string;
  readonly packets: number;
  readonly qlen: number;
}
const gates = async (host: string): Promise<readonly Qdisc[]> =>
  (JSON.parse(await runIn(host, 'tc', ['-s', '-j', 'qdisc', 'show', 'dev', 'slq0'])) as Qdisc[]).filter(({ kind }) => kind === 'tbf');

describe.skipIf(UNPRIVILEGED !== undefined)('lanes', () => {
  it('held frames wait in the queue of their epoch, are counted, can be looked at, and leave by the commit', async () => {
    await withBed(async (bed) => {
      const daemon = bed.daemon({ lanes: 'on' });
      await daemon.start();
      const engine = new Engine(daemon.api, 'g');
      await engine.protect(bed.groupFile('g'));
      await engine.cut();
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 5, 200);
      const end = bed.end(0);
      for (let seq = 0; seq < 25; seq++) expect(end.send(frame(seq))).toBe(true);
      expect((await gates(bed.host)).map(({ qlen }) => qlen).reduce((a, b) => a + b)).toBe(25);
      const state = await daemon.api.group('GET', '/v1/groups/g');
      expect(state.held).toMatchObject({ frames: 25, bytes: 5000 });
      const outside: number[] = [];
      const eye = bed.outside();
      const look = async (ms: number): Promise<number> => {
        await new Promise((resolve) => setTimeout(resolve, ms));
        eye.drain((bytes) => outside.push(bytes.length));
        return outside.length;
      };
      expect(await look(30)).toBe(0);
      // A look at the frames takes them into the ring; they stay held, and in order before what comes then.
      const capture = await daemon.api.call('GET', '/v1/groups/g/held.pcapng');
      expect(capture.status).toBe(200);
      expect((await gates(bed.host)).map(({ qlen }) => qlen).reduce((a, b) => a + b)).toBe(0);
      expect((await daemon.api.group('GET', '/v1/groups/g')).held).toMatchObject({ frames: 25, bytes: 5000 });
      expect(await look(30)).toBe(0);
      await engine.cut();
      for (let seq = 0; seq < 10; seq++) end.send(frame(100 + seq));
      await engine.commit(2, '?wait=released');
      expect(await look(30)).toBe(25);
      await engine.cut();
      await engine.commit(3, '?wait=released');
      expect(await look(30)).toBe(35);
      expect((await daemon.api.group('GET', '/v1/groups/g')).dropped).toMatchObject({ overflow: 0, discarded: 0, refused: 0 });
    });
  });

  it('the queues deleted by another tool: what they had is lost, the ring holds, the queues are made anew', async () => {
    const rig = await row('tc qdisc del dev slq0 root, 10 times', async (rig) => {
      const allThere = (): Promise<void> => until('the queues are there', async () => (await gates(rig.bed.host)).length === LANES);
      for (let i = 0; i < 10; i++) {
        await allThere();
        await tc(rig, 'qdisc', 'del', 'dev', 'slq0', 'root');
        await rig.pause(i < 5 ? 20 : 150);
      }
      await rig.pause(1200);
      expect(await gates(rig.bed.host)).toHaveLength(LANES);
    }, ON);
    expect(rig.oracle.count().leaked).toBe(0);
  });

  it('gates opened by another tool: what comes out early is held in the ring, and nothing is lost by it', async () => {
    const rig = await row('tc qdisc change: every gate open, 4 times', async (rig) => {
      for (let i = 0; i < 4; i++) {
        for (let lane = 0; lane < LANES; lane++) {
          await tc(rig, 'qdisc', 'change', 'dev', 'slq0', 'parent', `5150:${(lane + 1).toString(16)}`, 'handle', `51${lane.toString(16).padStart(2, '0')}:`,
            'tbf', 'rate', '10gbit', 'burst', '100mb', 'limit', '100mb');
        }
      }
    }, ON);
    expect(rig.oracle.count().lost).toBe(0);
  });

  it('the lanes\' devices set down, and deleted: what they had is lost, the ring holds, and they are made again', async () => {
    await row('slq0 down, up, deleted; slo0 deleted; the daemon killed meanwhile', async (rig) => {
      const ip = (...args: string[]): Promise<string> => runIn(rig.bed.host, 'ip', args);
      const back = (): Promise<void> => until('the queues are there', async () => (await devices(rig.bed.host)).includes('slq0') && (await gates(rig.bed.host)).length === LANES);
      await ip('link', 'set', 'slq0', 'down');
      await rig.pause(50);
      await ip('link', 'set', 'slq0', 'up');
      await rig.pause(50);
      for (const device of ['slq0', 'slo0']) {
        await ip('link', 'del', device);
        await rig.pause(300); // the ring has it all
        await back();
        await rig.pause(100);
        await ip('link', 'del', device);
        await rig.daemon.kill();
        await rig.restart();
        await back();
        await rig.pause(100);
      }
    }, ON);
  });

  it('what comes out of the lanes goes nowhere: a rollback waits two seconds for it, then the ring holds alone', async () => {
    const rig = await row('slo0 down', async (rig) => {
      await runIn(rig.bed.host, 'ip', ['link', 'set', 'slo0', 'down']);
      await rig.pause(100);
      await rig.engine.stop();
      const sinceMs = performance.now();
      await rig.engine.rollback(rig.engine.open - 1);
      expect(performance.now() - sinceMs).toBeLessThan(8000);
      rig.engine.run(CADENCE);
      await rig.pause(300);
    }, ON);
    expect(rig.oracle.count().leaked).toBe(0);
    expect(rig.oracle.count().seen).toBeGreaterThan(100);
  });

  it('members cut one by one, rollbacks and captures under traffic: nothing leaks, nothing is lost but what was taken back', async () => {
    await row('captures, member cuts, rollbacks', async (rig) => {
      const capture = (): Promise<unknown> => rig.daemon.api.call('GET', '/v1/groups/g/held.pcapng');
      for (let i = 0; i < 6; i++) {
        await capture();
        await rig.engine.stop();
        await rig.engine.cut('m1');
        await rig.pause(5);
        await capture();
        await rig.pause(5);
        await rig.engine.cut();
        await rig.pause(5);
        await rig.engine.cut();
        await rig.pause(5);
        await rig.engine.rollback(rig.engine.open - 2);
        await rig.pause(10);
        rig.engine.run(CADENCE);
        await rig.pause(60);
      }
    }, ON);
  });

  it('a flood of an epoch of 20,000 frames leaves whole: no backlog is overrun', async () => {
    await withBed(async (bed) => {
      const daemon = bed.daemon({ lanes: 'on' });
      await daemon.start();
      const engine = new Engine(daemon.api, 'g');
      await engine.protect(bed.groupFile('g'));
      await engine.cut();
      const [end, eye] = [bed.end(0), bed.outside()];
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 5, 60);
      for (let seq = 0; seq < 20_000; seq++) if (!end.send(frame(seq))) throw new Error(`frame ${seq} was not taken`);
      await engine.cut();
      await engine.commit(2, '?wait=released');
      let seen = 0;
      for (let quiet = 0; quiet < 20; quiet++) {
        if (eye.drain(() => void (seen += 1)) > 0) quiet = 0;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      expect(seen).toBe(20_000);
    });
  });

  it('left to itself: small frames go by ring, and a stream has lanes made for it', async () => {
    await streaming(async (bed, stream) => {
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 5, 60);
      for (let seq = 0; seq < 500; seq++) {
        bed.end(0).send(frame(seq));
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      expect(await devices(bed.host)).not.toContain('slq0');
      await stream();
      expect((await gates(bed.host)).reduce((sum, { packets }) => sum + packets, 0)).toBeGreaterThan(1000);
    });
  });

  it('a device of that name is somebody else\'s: the group is protected, the ring holds, the device stays', async () => {
    await streaming(async (bed, stream) => {
      await runIn(bed.host, 'ip', ['link', 'add', 'slq0', 'type', 'veth', 'peer', 'name', 'others0']);
      await stream();
      expect(bed.daemon().log()).toMatch(/device slq0 exists already and is not ours/);
      expect(await devices(bed.host)).toContain('slq0');
      expect(await devices(bed.host)).not.toContain('slo0');
    });
  });
});

const devices = async (host: string): Promise<readonly string[]> =>
  (JSON.parse(await runIn(host, 'ip', ['-j', 'link'])) as { readonly ifname: string }[]).map(({ ifname }) => ifname);

/** A group cut every 5 ms, left to itself; afterwards nothing is lost. */
async function streaming(job: (bed: Bed, stream: () => Promise<unknown>) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: ['veth', 'veth'] });
  try {
    const daemon = bed.daemon({ lanes: 'auto' });
    await daemon.start();
    const engine = new Engine(daemon.api, 'g');
    await engine.protect(bed.groupFile('g'));
    engine.run({ intervalMs: 5, commitDelayMs: 0 });
    await job(bed, () => iperf(bed, { from: bed.member(0), to: bed.outsider, seconds: 1 }));
    await engine.stop(true);
    expect((await engine.sync()).dropped).toMatchObject({ overflow: 0, discarded: 0, refused: 0 });
  } finally {
    await bed.close();
  }
}
