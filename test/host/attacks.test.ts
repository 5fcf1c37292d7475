/**
 * I1 and I8 by the outside oracle: every way we know to make the gate lose its grip, under traffic.
 *
 * Each row: external and intra-group traffic with epochs, the attack, a while more, and then the
 * count: frames sent, released (seen outside), held (discarded with their epoch), lost, leaked.
 * Leaked must be 0 in every row. The first rows are the controls: the same traffic over a bridge
 * without Sluice, and with a group that is not protected. There the oracle must find leaks, or its
 * silence elsewhere would mean nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ipBatch, run, runIn, sleep, until } from '../../bench/bed/commands.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { macBytes, probeFlow } from '../../bench/bed/probe.ts';
import { CADENCE, Rig, type RigOptions } from '../../bench/bed/rig.ts';
import { flowKey } from '../../bench/bed/traffic.ts';
import { corpus } from '../corpus/corpus.ts';
import { UNPRIVILEGED } from './privilege.ts';

/** A row: traffic, `attack`, traffic; then the count and what must hold in every row. */
async function row(name: string, attack: (rig: Rig) => Promise<void>, options: RigOptions = {}): Promise<Rig> {
  const rig = await Rig.create(options);
  try {
    rig.start();
    await rig.pause(150);
    await attack(rig);
    await rig.pause(150);
    await rig.finish();
    console.log(rig.line(name));
    expect(rig.traffic.missed(), 'the capture must miss nothing').toBe(0);
    expect(rig.oracle.leaks).toEqual([]);
    expect(rig.leaked()).toBe(0);
    expect(rig.oracle.count().duplicates).toBe(0);
    expect(rig.oracle.count().seen, 'frames must have left at all').toBeGreaterThan(100);
    return rig;
  } finally {
    await rig.close();
  }
}

const ip = (rig: Rig, ...args: string[]): Promise<string> => runIn(rig.bed.host, 'ip', args);

/** How many frames are seen outside from now on, over `ms`. */
async function seenIn(rig: Rig, ms: number): Promise<number> {
  rig.traffic.drain();
  const before = rig.oracle.count().seen;
  await rig.pause(ms);
  return rig.oracle.count().seen - before;
}

describe.skipIf(UNPRIVILEGED !== undefined)('attacks', () => {
  for (const [name, options] of [['plain bridge', { plain: true }], ['group not protected', { unprotected: true }]] as const) {
    it(`control: ${name}: the oracle finds leaks`, async () => {
      const rig = await Rig.create(options);
      try {
        rig.oracle.begin('cut', 1, nowUs())(true);
        for (let i = 0; i < 50; i++) rig.traffic.tick();
        await rig.settle();
        console.log(rig.line(`control: ${name}`));
        expect(rig.oracle.count().leaked).toBe(rig.oracle.count().sent + rig.oracle.count().strays);
      } finally {
        await rig.close();
      }
    });
  }

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

  it('SIGKILL of the daemon (its hold worker is a thread of it), ten times at odd moments', async () => {
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

  it('SIGSTOP of the daemon and its hold worker', async () => {
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
      const state = await r.engine.sync();
      expect(state.dropped.overflow, 'the ring must have been too small').toBeGreaterThan(0);
      r.engine.run(CADENCE);
    }, { group: { hold: { bytes: '4MiB', highWater: 0.75 } } });
    expect(rig.traffic.flows('external').map((flow) => flow.reorders)).toEqual([0, 0]);
  });

  for (const device of ['port1', 'uplink', 'br0']) {
    it(`tc qdisc deleted at ${device} by another tool (clsact)`, async () => {
      await row(`tc qdisc del dev ${device} clsact`, async (rig) => {
        await runIn(rig.bed.host, 'tc', ['qdisc', 'del', 'dev', device, 'clsact']);
      }, { daemon: { attach: 'clsact' } });
    });
  }

  it('tc filters deleted by another tool (clsact)', async () => {
    await row('tc filter del dev port1, port2 ingress', async (rig) => {
      for (const port of ['port1', 'port2']) await runIn(rig.bed.host, 'tc', ['filter', 'del', 'dev', port, 'ingress']);
    }, { daemon: { attach: 'clsact' } });
  });

  it('tc qdisc added and deleted by another tool (tcx)', async () => {
    await row('tc qdisc replace, del (tcx)', async (rig) => {
      for (const device of ['port1', 'port2', 'uplink']) {
        await runIn(rig.bed.host, 'tc', ['qdisc', 'replace', 'dev', device, 'clsact']);
        await runIn(rig.bed.host, 'tc', ['qdisc', 'del', 'dev', device, 'clsact']);
      }
    }, { daemon: { attach: 'tcx' } });
  });

  it('tap deleted and made again under traffic', async () => {
    await row('tap deleted and made again, 5 times', async (rig) => {
      for (let i = 0; i < 5; i++) {
        await rig.bed.replaceTap(i % 2);
        await rig.pause(60);
      }
    });
  });

  for (const device of ['port1', 'uplink', 'br0']) {
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

  for (const device of ['port1', 'uplink']) {
    it(`bridge port ${device} removed and added`, async () => {
      await row(`${device} out of the bridge and in, 230 times`, async (rig) => {
        for (let i = 0; i < 30; i++) {
          await ip(rig, 'link', 'set', device, 'nomaster');
          await rig.pause(i); // back while the daemon still takes leave of it, and long after
          await ip(rig, 'link', 'set', device, 'master', 'br0');
          await rig.pause(20);
        }
        const outAndIn = [`link set ${device} nomaster`, `link set ${device} master br0`];
        for (let i = 0; i < 20; i++) {
          await ipBatch(rig.bed.host, Array.from({ length: 10 }, () => outAndIn).flat());
          await rig.pause(10);
        }
      }, { perTick: 10 });
    });
  }

  it('bridge port removed and added while the daemon is frozen in the middle of noticing', async () => {
    await row('port1 out and in, daemon frozen between', async (rig) => {
      for (let i = 0; i < 150; i++) {
        spawnSync('ip', ['-n', rig.bed.host, 'link', 'set', 'port1', 'nomaster']);
        const stopUs = nowUs() + i * 25; // at another step of its leave-taking each time
        while (nowUs() < stopUs);
        rig.daemon.signal('SIGSTOP');
        await ip(rig, 'link', 'set', 'port1', 'master', 'br0');
        await rig.pause(5);
        rig.daemon.signal('SIGCONT');
        await rig.pause(20);
      }
    });
  });

  it('every member port out of the bridge for a while, then in again', async () => {
    await row('all member ports out and in, 20 times', async (rig) => {
      for (let i = 0; i < 20; i++) {
        await ipBatch(rig.bed.host, ['link set port1 nomaster', 'link set port2 nomaster']);
        await rig.pause(30);
        await ipBatch(rig.bed.host, ['link set port1 master br0', 'link set port2 master br0']);
        await rig.pause(30);
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

  it('a second uplink appears under traffic', async () => {
    await row('a second uplink appears', async (rig) => {
      const out = rig.bed.outsider.namespace ?? '';
      await ip(rig, 'link', 'add', 'uplink2', 'type', 'veth', 'peer', 'name', 'eth1', 'netns', out);
      await runIn(out, 'ip', ['link', 'set', 'eth1', 'up']);
      await ip(rig, 'link', 'set', 'uplink2', 'master', 'br0', 'up');
      await rig.pause(100);
    });
  });

  it('hold device set down and deleted by another tool', async () => {
    await row('hold device down, up, deleted', async (rig) => {
      const links = await ip(rig, '-o', 'link', 'show', 'type', 'veth');
      const hold = /\bslh\d+/.exec(links)?.[0] ?? '';
      expect(hold).not.toBe('');
      await ip(rig, 'link', 'set', hold, 'down');
      await rig.pause(50);
      await ip(rig, 'link', 'set', hold, 'up');
      await rig.pause(50);
      await ip(rig, 'link', 'del', hold);
      await rig.pause(50);
      await rig.daemon.kill();
      await rig.restart();
    });
  });

  it('journal disk full', async () => {
    await fullDisk();
  });

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

  it('destination MAC unlearned by the bridge', async () => {
    await row('forwarding table flushed, 20 times', async (rig) => {
      for (let i = 0; i < 20; i++) {
        await ip(rig, 'link', 'set', 'br0', 'type', 'bridge', 'fdb_flush');
        await runIn(rig.bed.host, 'bridge', ['fdb', 'del', rig.bed.member(1).mac, 'dev', 'port2', 'master']).catch(() => '');
        await rig.pause(10);
      }
    });
  });

  for (const [whom, mac] of [['another member', '02:51:00:00:00:02'], ['the outsider', '02:51:00:00:00:fe'], ['nobody known', '02:77:00:00:00:01']] as const) {
    it(`member speaks with the MAC of ${whom}`, async () => {
      await row(`source MAC of ${whom}`, (rig) => spoof(rig, mac));
    });
  }

  it('every odd frame of the corpus', async () => {
    await row('corpus of odd frames', oddFrames, { mtu: 9000 });
  });
});

/** Frames with a foreign source to outside and to the other member: held like any other, never intra. */
async function spoof(rig: Rig, mac: string): Promise<void> {
  const from = { ...rig.bed.member(0).address, mac: macBytes(mac) };
  const outward = probeFlow(from, rig.bed.outsider.address, 1000);
  const inward = probeFlow(from, rig.bed.member(1).address, 1001);
  const tap = rig.bed.tap(0);
  for (let seq = 0; seq < 200; seq++) {
    rig.oracle.sent(flowKey(1000, seq), 'm1', nowUs());
    tap.send(outward(seq));
    rig.oracle.sent(flowKey(1001, seq), 'm1', nowUs()); // flooded or not: outside it may be seen once committed
    tap.send(inward(seq));
    if (seq % 10 === 0) await sleep(2);
  }
}

/** The corpus, spread over many epochs; a frame is known by its bytes. */
async function oddFrames(rig: Rig): Promise<void> {
  const { mac } = rig.bed.member(0);
  const frames = corpus({ source: macBytes(mac), outsider: macBytes(rig.bed.outsider.mac), mtu: 9000 }, 11);
  const key = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
  rig.traffic.watch((frame, atUs) => rig.oracle.seen(key(frame), atUs));
  const done = new Set<string>();
  for (const { bytes } of frames) {
    if (done.has(key(bytes))) continue;
    done.add(key(bytes));
    rig.oracle.sent(key(bytes), 'm1', nowUs());
    rig.bed.tap(0).send(bytes);
    await sleep(1);
  }
  await rig.pause(50);
}

/** A body beyond the limit is refused before all of it is read, so its sender may find the pipe broken instead. */
async function refusedCall(rig: Rig, path: string, body: object | string): Promise<{ readonly status: number }> {
  try {
    return await rig.daemon.api.call('POST', `/v1/groups/${path}`, body);
  } catch (error) {
    if (typeof body === 'string' && body.length > 256 << 10 && /EPIPE|ECONNRESET|other side closed/.test(String(error))) return { status: 413 };
    throw error;
  }
}

function badCommands(generation: number, open: number): [string, object | string][] {
  return [
    ['g/commit', '{'], ['g/commit', '[]'], ['g/commit', {}], ['g/commit', { generation, epoch: -1 }],
    ['g/commit', { generation, epoch: open }], ['g/commit', { generation, epoch: open + 1000 }],
    ['g/commit', { generation, epoch: 1e300 }], ['g/commit', { generation, epoch: open - 1, extra: 1 }],
    ['g/commit', { generation: generation - 1, epoch: open - 1 }], ['g/commit', { generation: generation + 1, epoch: open - 1 }],
    ['g/cut', { generation, epoch: open + 1 }], ['g/cut', { generation: 0, epoch: open }],
    ['g/rollback', { generation: generation + 7, epoch: open - 1 }], ['g/rollback', { generation, epoch: open + 5 }],
    ['g/takeover', { generation, epoch: open - 1 }], ['g/takeover', { generation: generation - 1, epoch: open - 1 }],
    ['g/unprotect', { generation }], ['g/unprotect', { generation: generation - 1, held: 'release' }],
    ['nobody/commit', { generation, epoch: open - 1 }], ['g/release', {}], ['g/protect', { generation: 'x' }],
    ['g/commit', 'x'.repeat(300 << 10)],
  ];
}

/** The journal on a file system with no room for its next file: commits are refused, nothing leaves, it recovers. */
async function fullDisk(): Promise<void> {
  const state = mkdtempSync(join(tmpdir(), 'sl-full-'));
  await run('mount', ['-t', 'tmpfs', '-o', 'size=5m', 'tmpfs', state]);
  try {
    await row('journal disk full', async (rig) => {
      await rig.engine.stop();
      rig.engine.run({ intervalMs: 0, commitDelayMs: 0 });
      await until('the journal is full', () => rig.engine.failure !== undefined, 60_000);
      expect(String(rig.engine.failure)).toContain('journal_failed');
      await rig.pause(50);
      expect(await seenIn(rig, 200), 'nothing leaves that is not in the journal').toBe(0);
      await run('mount', ['-o', 'remount,size=64m', state]);
      await rig.engine.stop();
      await rig.pause(1500); // the journal tries again once a second
      await rig.engine.sync();
      rig.engine.run(CADENCE);
    }, { daemon: { state: join(state, 'journal') } });
  } finally {
    await run('umount', [state]);
    rmSync(state, { recursive: true, force: true });
  }
}
