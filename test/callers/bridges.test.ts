/**
 * `sluice attach` and protection on bridges that ifupdown, systemd-networkd and NetworkManager made: the real programs,
 * each alone in namespaces of its own. The bridge is attached, a group on it protected, the bridge ended and made anew
 * under protection by its manager, the group released; and no file of the manager has changed.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bed } from '../../bench/bed/bed.ts';
import { run, runIn, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { UNPRIVILEGED } from '../host/privilege.ts';
import { OwnWorld } from '../support/own-world.ts';
import { withBed } from '../support/with-bed.ts';

const PATIENCE_MS = 60_000;
const PORTS = ['port1', 'port2', 'uplink'];
/** No udev here, and a /sys that can't be written says so to who would wait for it. */
const ALONE = 'set -e; mount -t tmpfs t /run; mount -t sysfs -o ro sysfs /sys; ';

interface Manager {
  /** As `sluice attach` says it. */
  readonly said: RegExp;
  /** Its files, by name, in the directory that is mounted over its own. */
  readonly files: Readonly<Record<string, string>>;
  /** Of sh; $1: that directory. It brings the bridge up and stays. */
  readonly script: string;
  /** Ends the bridge, makes it anew. */
  readonly again: (world: OwnWorld) => Promise<unknown>;
}

const keyfile = (type: string, name: string, rest: string): string => `[connection]\nid=${name}\nuuid=${`0000000${PORTS.indexOf(name) + 1}`.slice(-8)}-0000-4000-8000-000000000000\ntype=${type}\ninterface-name=${name}\n${rest}`;
const slave = (name: string): string => keyfile('ethernet', name, 'master=br0\nslave-type=bridge\n');

const MANAGERS: Readonly<Record<string, Manager>> = {
  ifupdown: {
    said: /^ifupdown \(\/etc\/network\/interfaces\)$/,
    files: { interfaces: `auto br0\niface br0 inet manual\n  bridge_ports ${PORTS.join(' ')}\n  bridge_stp off\n  bridge_fd 0\n` },
    script: `${ALONE} mkdir /run/network; cp -an /etc/network/. "$1"; mount --bind "$1" /etc/network; ifup br0; exec sleep infinity`,
    again: async (world) => {
      await world.run('ifdown', 'br0');
      await world.run('ifup', 'br0');
    },
  },
  'systemd-networkd': {
    said: /^systemd-networkd$/,
    files: {
      'br0.netdev': '[NetDev]\nName=br0\nKind=bridge\n[Bridge]\nSTP=no\nForwardDelaySec=0\n',
      'br0.network': '[Match]\nName=br0\n[Network]\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n',
      'ports.network': `[Match]\nName=${PORTS.join(' ')}\n[Network]\nBridge=br0\n`,
    },
    script: `${ALONE} mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp; chown -R systemd-network: /run/systemd/netif; mount --bind "$1" /etc/systemd/network
      trap : TERM; while :; do /lib/systemd/systemd-networkd & echo $! > /run/networkd.pid; wait $! || :; done`,
    // It makes a bridge anew when it starts and there is none.
    again: async (world) => {
      await world.run('ip', 'link', 'del', 'br0');
      await world.run('sh', '-c', 'kill $(cat /run/networkd.pid)');
    },
  },
  NetworkManager: {
    said: /^NetworkManager$/,
    files: {
      'NetworkManager.conf': '[main]\nplugins=keyfile\nauth-polkit=false\nno-auto-default=*\n',
      'system-connections/br0.nmconnection': keyfile('bridge', 'br0', '[bridge]\nstp=false\n[ipv4]\nmethod=disabled\n[ipv6]\nmethod=disabled\n'),
      ...Object.fromEntries(PORTS.map((port) => [`system-connections/${port}.nmconnection`, slave(port)])),
    },
    script: `${ALONE} mkdir /run/dbus; mount -t tmpfs t /var/lib/NetworkManager; mount --bind "$1" /etc/NetworkManager; dbus-daemon --system --fork --nopidfile; exec NetworkManager --no-daemon`,
    again: async (world) => {
      await world.run('nmcli', 'connection', 'down', 'br0');
      for (const name of ['br0', ...PORTS]) await world.run('nmcli', 'connection', 'up', name);
    },
  },
};

/** Every file below, with its text. */
function texts(directory: string): Readonly<Record<string, string>> {
  return Object.fromEntries(readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name)).map((path) => [path, readFileSync(path, 'utf8')]));
}

async function forwards(bed: Bed, world: OwnWorld): Promise<void> {
  await until('the bridge forwards', async () => {
    const ports = JSON.parse(await runIn(bed.host, 'bridge', ['-j', 'link', 'show'])) as { ifname: string; master?: string; state?: string }[];
    return PORTS.every((name) => ports.some(({ ifname, master, state }) => ifname === name && master === 'br0' && state === 'forwarding'));
  }, PATIENCE_MS).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${world.output()}`);
  });
}

describe.skipIf(UNPRIVILEGED !== undefined)('bridges of', () => {
  test.each(Object.keys(MANAGERS))('%s', async (name) => {
    const manager = MANAGERS[name];
    if (manager === undefined) throw new Error('no such manager');
    await withBed(async (bed) => {
      await run('ip', ['-n', bed.host, 'link', 'del', 'br0']);
      const place = join(bed.directory, 'manager');
      for (const [file, text] of Object.entries(manager.files)) {
        mkdirSync(join(place, file, '..'), { recursive: true });
        writeFileSync(join(place, file), text, { mode: file.endsWith('.nmconnection') ? 0o600 : 0o644 });
      }
      const world = new OwnWorld(bed.host, manager.script, [place]);
      try {
        await forwards(bed, world);
        const before = texts(place);
        const daemon = bed.daemon();
        await daemon.start();
        const bridges = ['--bridges', join(bed.directory, 'bridges')];
        const sluice = (...args: string[]): Promise<string> => world.run(process.execPath, join(repositoryRoot(), 'bin/sluice'), '--socket', daemon.socket, ...args);
        expect(JSON.parse(await sluice('--json', 'attach', 'br0', ...bridges, '--force'))).toMatchObject({ outcome: 'attached', manager: expect.stringMatching(manager.said) as string });
        await daemon.api.must('PUT', '/v1/groups/web', bed.groupFile('web'));
        await daemon.api.must('POST', '/v1/groups/web/protect', {});

        const outside = bed.outside();
        const flow = probeFlow(bed.member(0).address, bed.outsider.address, 1, 200);
        const frames = Array.from({ length: 10 }, (_, i) => Buffer.from(flow(i)));
        const held = async (count: number): Promise<void> => until(`${count} are held`, async () => ((await daemon.api.must('GET', '/v1/groups/web')) as { held: { frames: number } }).held.frames === count, PATIENCE_MS);
        for (const frame of frames.slice(0, 5)) expect(bed.end(0).send(frame)).toBe(true);
        await held(5);
        await manager.again(world);
        await forwards(bed, world);
        await until('everything is in place again', async () => (await daemon.api.call('GET', '/readyz')).status === 200, PATIENCE_MS);
        for (const frame of frames.slice(5)) expect(bed.end(0).send(frame)).toBe(true);
        await held(10);
        const came: Buffer[] = [];
        const isOurs = (frame: Uint8Array): boolean => frames.some((one) => one.equals(frame));
        outside.drain((frame) => void (isOurs(frame) && came.push(Buffer.from(frame))));
        expect(came).toEqual([]);
        await daemon.api.must('POST', '/v1/groups/web/cut', { generation: 1, epoch: 1 });
        await daemon.api.must('POST', '/v1/groups/web/commit?wait=released', { generation: 1, epoch: 1 });
        await until('all are outside', () => {
          outside.drain((frame) => void (isOurs(frame) && came.push(Buffer.from(frame))));
          return came.length >= frames.length;
        }, PATIENCE_MS);
        expect(came).toEqual(frames);

        await daemon.api.must('POST', '/v1/groups/web/unprotect', { generation: 1, held: 'release' });
        expect(JSON.parse(await sluice('--json', 'detach', 'br0', ...bridges))).toMatchObject({ outcome: 'detached' });
        expect(texts(place)).toEqual(before);
      } finally {
        await world.close();
      }
    });
  });
});
