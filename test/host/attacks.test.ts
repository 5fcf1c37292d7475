/**
 * I1 and I8 by the outside oracle: every way we know to make the gate lose its grip, under traffic.
 *
 * Each row: external and intra-group traffic with epochs, the attack, a while more, and then the
 * count: frames sent, released (seen outside), held (discarded with their epoch), lost, leaked.
 * Leaked must be 0 in every row. The first rows are the controls: the same traffic over a bridge
 * without Sluice, and with a group that is not protected. There the oracle must find leaks, or its
 * silence elsewhere would mean nothing. Attacks that both data planes meet alike are in
 * attacks-planes.test.ts; these are of the kernel's plane.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ipBatch, run, runIn, until } from '../../bench/bed/commands.ts';
import { nowUs } from '../../bench/bed/libc.ts';
import { CADENCE, Rig } from '../../bench/bed/rig.ts';
import { row, seenIn } from '../support/attack.ts';
import { UNPRIVILEGED } from './privilege.ts';

const ip = (rig: Rig, ...args: string[]): Promise<string> => runIn(rig.bed.host, 'ip', args);

describe.skipIf(UNPRIVILEGED !== undefined)('attacks', () => {
  it('control: plain bridge: the oracle finds leaks', async () => {
    const rig = await Rig.create({ plain: true });
    try {
      rig.oracle.begin('cut', 1, nowUs())(true);
      for (let i = 0; i < 50; i++) rig.traffic.tick();
      await rig.settle();
      console.log(rig.line('control: plain bridge'));
      expect(rig.oracle.count().leaked).toBe(rig.oracle.count().sent + rig.oracle.count().strays);
    } finally {
      await rig.close();
    }
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

  it('link flap of br0', async () => {
    await row('link flap of br0, 5 times', async (rig) => {
      for (let i = 0; i < 5; i++) {
        await ip(rig, 'link', 'set', 'br0', 'down');
        await rig.pause(20);
        await ip(rig, 'link', 'set', 'br0', 'up');
        await rig.pause(20);
      }
    });
  });

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

  it('destination MAC unlearned by the bridge', async () => {
    await row('forwarding table flushed, 20 times', async (rig) => {
      for (let i = 0; i < 20; i++) {
        await ip(rig, 'link', 'set', 'br0', 'type', 'bridge', 'fdb_flush');
        await runIn(rig.bed.host, 'bridge', ['fdb', 'del', rig.bed.member(1).mac, 'dev', 'port2', 'master']).catch(() => '');
        await rig.pause(10);
      }
    });
  });

});

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
