/**
 * What only the portable plane has to show: its child, its fence, its offloads, its ports.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Bed, type BedOptions } from '../../bench/bed/bed.ts';
import { runIn, sleep, until } from '../../bench/bed/commands.ts';
import { Daemon } from '../../bench/bed/daemon.ts';
import { Engine } from '../../bench/bed/engine.ts';
import { tcpGbps } from '../../bench/bed/iperf.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { Rig } from '../../bench/bed/rig.ts';
import { row, seenIn } from '../support/attack.ts';
import { UNPRIVILEGED } from './privilege.ts';

async function withBed(options: Partial<BedOptions>, job: (bed: Bed) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: ['tap', 'tap'], addresses: false, plane: 'pcap', ...options });
  try {
    await bed.daemon().start();
    await job(bed);
  } finally {
    await bed.close();
  }
}
const childOf = (rig: Rig): number => {
  const [child, ...more] = rig.daemon.children();
  if (child === undefined || more.length > 0) throw new Error(`${more.length + 1} children`);
  return child;
};
function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
const missing = async (bed: Bed): Promise<string> => JSON.stringify((await bed.daemon().api.call('GET', '/readyz')).body);
const inHost = (bed: Bed, ...args: string[]): Promise<string> => runIn(bed.host, args[0] ?? '', args.slice(1));

describe.skipIf(UNPRIVILEGED !== undefined)('the portable plane', () => {
  it('SIGKILL of the child: nobody forwards, the daemon ends and says why, a restart goes on', async () => {
    await row('pcap: SIGKILL of the child', async (rig) => {
      process.kill(childOf(rig), 'SIGKILL');
      await rig.pause(50);
      expect(await seenIn(rig, 200), 'nothing leaves without the child').toBe(0);
      await until('the daemon has ended', () => !alive(rig.daemon.pid));
      expect(rig.daemon.log()).toContain('child ended with SIGKILL');
      await rig.daemon.stop();
      await rig.restart();
    }, { plane: 'pcap' });
  });

  it('SIGSTOP of the child: nothing leaves; what waited is held as any other', async () => {
    await row('pcap: SIGSTOP of the child for 300 ms', async (rig) => {
      const child = childOf(rig);
      process.kill(child, 'SIGSTOP');
      await rig.pause(50);
      expect(await seenIn(rig, 250)).toBe(0);
      process.kill(child, 'SIGCONT');
    }, { plane: 'pcap' });
  });

  it('a child that stays frozen: not ready, a cut is refused and not waited for; it goes on when the child does', async () => {
    await withBed({}, async (bed) => {
      const { api } = bed.daemon();
      const engine = new Engine(api, 'g');
      await engine.protect(bed.groupFile('g'));
      const [child] = bed.daemon().children();
      if (child === undefined) throw new Error('no child');
      const body = { generation: engine.generation, epoch: engine.open };
      process.kill(child, 'SIGSTOP');
      try {
        await until('readyz says it', async () => (await missing(bed)).includes('has not answered for'), 30_000);
        const { status, body: refusal } = await api.call('POST', '/v1/groups/g/cut', body);
        expect([status, JSON.stringify(refusal)]).toEqual([503, expect.stringContaining('plane_down')]);
        expect((await api.call('GET', '/v1/groups/g/held')).status, 'what is held').toBe(503);
      } finally {
        process.kill(child, 'SIGCONT');
      }
      await until('it is ready again', async () => (await api.call('GET', '/readyz')).status === 200, 30_000);
      expect((await api.call('POST', '/v1/groups/g/cut', body)).status).toBe(200);
      expect(String((await api.call('GET', '/metrics')).body)).toContain('sluice_plane_lost_frames_total{reason="notRead"}');
    });
  }, 90_000);

  it('SIGKILL of the daemon takes its child with it', async () => {
    const rig = await Rig.create({ plane: 'pcap' });
    try {
      const child = childOf(rig);
      await rig.daemon.kill();
      await until('the child is gone', () => !alive(child));
    } finally {
      await rig.close();
    }
  });

  it('the host\'s own stack hears nothing of its ports, while the daemon lives and after it was killed', async () => {
    await withBed({ members: ['veth', 'veth'], addresses: true }, async (bed) => {
      const guest = bed.member(0).namespace ?? '';
      // Three, a second apart: a guest that got no ARP answer waits with the next question.
      const answers = async (): Promise<boolean> => runIn(guest, 'ping', ['-c', '3', '-W', '1', '10.81.0.200']).then(() => true, () => false);
      await inHost(bed, 'ip', 'addr', 'add', '10.81.0.200/24', 'dev', 'port1');
      await inHost(bed, 'ip', 'link', 'set', 'lo', 'up');
      expect(await answers(), 'the daemon runs').toBe(false);
      await inHost(bed, 'nft', 'flush', 'ruleset'); // as every reload of a firewall does
      await until('the fence is back', async () => (await inHost(bed, 'nft', 'list', 'tables')).includes('netdev sluice_'));
      expect(await answers(), 'another tool has flushed all tables').toBe(false);
      await new Engine(bed.daemon().api, 'g').protect(bed.groupFile('g'));
      await bed.daemon().kill();
      expect(await answers(), 'killed while a group was protected').toBe(false);
      const [table] = /netdev sluice_\w+/.exec(await inHost(bed, 'nft', 'list', 'tables')) ?? [];
      await inHost(bed, 'nft', 'delete', 'table', ...(table ?? '').split(' '));
      expect(await answers(), 'control: without the fence it answers').toBe(true);
    });
  });

  it('a second daemon over the same ports, or the same memory, is refused: it would switch what the first one holds', async () => {
    await withBed({}, async (bed) => {
      await new Engine(bed.daemon().api, 'g').protect(bed.groupFile('g'));
      const eye = bed.outside();
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 1);
      const second = async (name: string, memory: string): Promise<string> => {
        const directory = `${bed.directory}/${name}`;
        mkdirSync(directory);
        const ports = [...bed.members, bed.outsider].map(({ port }) => port);
        const daemon = new Daemon({ namespace: bed.host, directory, pins: '', pcap: { ports, memory } });
        try {
          return await daemon.start().then(() => 'it started', String);
        } finally {
          for (let seq = 0; seq < 20; seq++) bed.tap(0).send(frame(seq));
          await sleep(50);
          await daemon.stop();
        }
      };
      const memory = `/dev/shm/sluice-${bed.id}`;
      try {
        expect.soft(await second('other', `${memory}-2`)).toMatch(/port1 .*another sluiced.*nft delete table netdev sluice_/s);
        expect.soft(await second('same', memory)).toContain(`${memory} is in use by another sluiced`);
      } finally {
        rmSync(`${memory}-2`, { force: true });
      }
      expect(eye.drain(() => undefined), 'frames of a protected member').toBe(0);
      expect((await bed.daemon().api.call('GET', '/readyz')).status).toBe(200);
    });
  });

  it('a member\'s port in a Linux bridge: no leak through that bridge, not ready, and protect is refused', async () => {
    await row('pcap: port1 into a Linux bridge with an uplink, and out', async (rig) => {
      const { bed } = rig;
      const out = bed.outsider.namespace ?? '';
      await inHost(bed, 'ip', 'link', 'add', 'brx', 'address', '02:00:00:00:0b:01', 'type', 'bridge');
      await inHost(bed, 'ip', 'link', 'set', 'brx', 'up');
      await inHost(bed, 'ip', 'link', 'add', 'upx', 'type', 'veth', 'peer', 'name', 'eth0x', 'netns', out);
      await runIn(out, 'ip', ['link', 'set', 'eth0x', 'up']);
      await inHost(bed, 'ip', 'link', 'set', 'upx', 'master', 'brx', 'up');
      const eye = bed.outside('eth0x');
      await inHost(bed, 'ip', 'link', 'set', 'port1', 'master', 'brx');
      await rig.pause(200);
      const leaked: string[] = [];
      // But its own IPv6 and IGMP, which come from its own address.
      eye.drain((frame) => {
        const hex = Buffer.from(frame).toString('hex');
        if (!hex.startsWith('020000000b01', 12)) leaked.push(hex);
      });
      expect(leaked, 'frames of a protected member out of the other bridge').toEqual([]);
      expect(await missing(bed)).toContain('port port1 of pcap.ports is in a bridge');
      await inHost(bed, 'ip', 'link', 'set', 'port1', 'nomaster');
      await until('it is served again', async () => (await bed.daemon().api.call('GET', '/readyz')).status === 200);
    }, { plane: 'pcap' });
  });

  it('what is not listed, or in a bridge, can\'t be protected; each is said with its fix', async () => {
    await withBed({}, async (bed) => {
      const { api } = bed.daemon();
      const put = async (port: string): Promise<string> => {
        const group = bed.groupFile('g', { members: [{ name: 'a', port, mac: bed.member(0).mac }] });
        await api.must('PUT', '/v1/groups/g', group);
        const answer = await api.call('POST', '/v1/groups/g/protect', {});
        expect(answer.status).toBe(400);
        return JSON.stringify(answer.body);
      };
      await inHost(bed, 'ip', 'link', 'add', 'brx', 'type', 'bridge');
      await inHost(bed, 'ip', 'link', 'set', 'port2', 'master', 'brx');
      expect(await put('brx')).toContain('not one of pcap.ports');
      expect(await put('port2')).toContain('ip link set port2 nomaster');
    });
  });

  it('a protected group whose journal is gone stays shut', async () => {
    await withBed({}, async (bed) => {
      await new Engine(bed.daemon().api, 'g').protect(bed.groupFile('g'));
      await bed.daemon().stop();
      await inHost(bed, 'rm', '-r', `${bed.directory}/state`);
      await expect(bed.daemon().start()).rejects.toThrow(/not in the journal/);
      await bed.daemon().stop();
      const eye = bed.outside();
      const frame = probeFlow(bed.member(0).address, bed.outsider.address, 1);
      for (let seq = 0; seq < 20; seq++) bed.tap(0).send(frame(seq));
      await sleep(50);
      expect(eye.drain(() => undefined)).toBe(0);
    });
  });

  it('TCP of stacks with offloads flows, inside and held: sums are completed, super-frames are cut', async () => {
    await withBed({ members: ['veth', 'veth'], addresses: true }, async (bed) => {
      const engine = new Engine(bed.daemon().api, 'g');
      await engine.protect(bed.groupFile('g'));
      const inside = await tcpGbps(bed, { from: bed.member(0), to: bed.member(1), seconds: 1 });
      engine.run({ intervalMs: 5, commitDelayMs: 0 });
      const held = await tcpGbps(bed, { from: bed.member(0), to: bed.outsider, seconds: 1 });
      await engine.stop();
      console.log(`pcap: TCP inside ${inside.toFixed(2)} Gbit/s, held with 5 ms epochs ${held.toFixed(2)} Gbit/s`);
      expect(inside).toBeGreaterThan(0);
      expect(held).toBeGreaterThan(0);
    });
  });
});
