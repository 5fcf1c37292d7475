/**
 * libvirt's hook with its real caller: a libvirtd of the test's own starts, loses and ends real domains
 * on the bed's bridge, and calls deploy/libvirt/sluice by itself.
 *
 *     network namespace of the bed ── br0 ── vnet0, vnet1 (made by libvirtd)
 *     mount and process namespace of libvirtd ── /etc/libvirt, /run and /var of its own; QEMU dies with it
 *
 * The guests have no disk: what they send is their firmware asking for an address, again and again, which
 * is enough to see that a domain's frames are held.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bed } from '../../bench/bed/bed.ts';
import { until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import { OwnWorld } from '../support/own-world.ts';
import { withBed } from '../support/with-bed.ts';
import { UNPRIVILEGED } from '../host/privilege.ts';

const PATIENCE_MS = 60_000;

/** Without users, labels and control groups of the machine: it is alone in its namespaces. */
const QEMU_CONF = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\ndynamic_ownership = 0\n';
const LIBVIRTD_CONF = 'auth_unix_rw = "none"\nunix_sock_group = "root"\n';
/** $1: the directory with what goes into /etc/libvirt. The user that libvirtd asks for, whatever its settings, is its package's for whole systems. libvirtd is started again each time it ends. */
const WORLD = `set -e
for at in /run /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do mkdir -p $at; mount -t tmpfs sluice-test $at; done
mkdir -p /etc/libvirt; mount --bind "$1/etc" /etc/libvirt
for names in passwd group; do
  cp /etc/$names "$1/$names"
  grep -q ^libvirt-qemu: /etc/$names || echo "libvirt-qemu:x:64055:$([ $names = group ] || echo 64055::/var/lib/libvirt:/usr/sbin/nologin)" >> "$1/$names"
  mount --bind "$1/$names" /etc/$names
done
while :; do libvirtd & echo $! > "$1/pid"; wait $! || true; done`;

const domain = (name: string, mac: string): string => `<domain type='qemu'><name>${name}</name>
  <metadata><sluice:member xmlns:sluice="urn:sluice:libvirt:1" group="web"/></metadata>
  <memory unit='MiB'>32</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type><boot dev='network'/><bios rebootTimeout='1000'/></os>
  <devices><controller type='usb' model='none'/><memballoon model='none'/>
    <interface type='bridge'><mac address='${mac}'/><source bridge='br0'/><model type='e1000'/></interface></devices></domain>`;

class Libvirt {
  readonly #place: string;
  readonly world: OwnWorld;

  constructor(bed: Bed) {
    this.#place = join(bed.directory, 'libvirt');
    const [hooks, bin] = [join(this.#place, 'etc/hooks/qemu.d'), join(this.#place, 'bin')];
    for (const directory of [hooks, bin]) mkdirSync(directory, { recursive: true });
    writeFileSync(join(this.#place, 'etc/qemu.conf'), QEMU_CONF);
    writeFileSync(join(this.#place, 'etc/libvirtd.conf'), LIBVIRTD_CONF);
    // libvirtd gives a hook no environment of ours; a busy machine may take longer than an operator would wait.
    writeFileSync(join(hooks, 'sluice'), `#!/bin/sh\nSLUICE_HOOK_SECONDS=60 exec ${join(repositoryRoot(), 'deploy/libvirt/sluice')} "$@"\n`, { mode: 0o755 });
    writeFileSync(join(bin, 'sluice'), `#!/bin/sh\nexec ${process.execPath} ${join(repositoryRoot(), 'bin/sluice')} --socket ${bed.daemon().socket} "$@"\n`, { mode: 0o755 });
    this.world = new OwnWorld(bed.host, WORLD, [this.#place], { PATH: `${bin}:${process.env['PATH'] ?? ''}` });
  }

  /** `virsh`, to its end. */
  virsh(...args: string[]): Promise<string> {
    return this.world.run('virsh', '-q', '-c', 'qemu:///system', ...args);
  }

  async answers(): Promise<void> {
    await until('libvirtd answers', () => this.virsh('version').then(() => true, () => false), PATIENCE_MS).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.world.output()}`);
    });
  }

  async starts(name: string, xml: string): Promise<void> {
    writeFileSync(join(this.#place, `${name}.xml`), xml);
    await this.virsh('create', join(this.#place, `${name}.xml`));
  }

  /** `job`, and then another libvirtd; the domains live on. */
  async again(job: () => Promise<unknown>): Promise<void> {
    const pid = readFileSync(join(this.#place, 'pid'), 'utf8').trim();
    await job();
    await this.world.run('kill', pid);
    await until('it is another', () => readFileSync(join(this.#place, 'pid'), 'utf8').trim() !== pid, PATIENCE_MS);
    await this.answers();
  }
}

describe.skipIf(UNPRIVILEGED !== undefined)('libvirt', () => {
  test('domains join by their metadata when libvirtd starts them, are held, stay under protection, and leave', async () => {
    await withBed(async (bed) => {
      const daemon = bed.daemon();
      await daemon.start();
      const { api } = daemon;
      const members = async (): Promise<string[]> => {
        const { status, body } = await api.call('GET', '/v1/groups/web');
        return status === 200 ? (body as { spec: { members: { name: string; port: string; mac: string }[] } }).spec.members.map(({ name, port, mac }) => `${name} ${port} ${mac}`).sort() : [];
      };
      const libvirt = new Libvirt(bed);
      const [front, store] = ['front vnet0 52:54:00:00:00:01', 'store vnet1 52:54:00:00:00:02'];
      try {
        await libvirt.answers();
        await libvirt.starts('front', domain('front', '52:54:00:00:00:01'));
        expect(await members(), libvirt.world.output()).toEqual([front]);
        await libvirt.starts('store', domain('store', '52:54:00:00:00:02'));
        expect(await members(), libvirt.world.output()).toEqual([front, store]);

        await api.must('POST', '/v1/groups/web/protect', {});
        await until('what a domain sends is held', async () => ((await api.must('GET', '/v1/groups/web')) as { held: { frames: number } }).held.frames > 0, PATIENCE_MS);
        await libvirt.virsh('destroy', 'front'); // a death, as far as anyone can tell
        expect(await members(), libvirt.world.output()).toEqual([front, store]);
        await api.must('POST', '/v1/groups/web/unprotect', { generation: 1, held: 'discard' });
        await libvirt.again(() => api.must('DELETE', '/v1/groups/web'));
        await until('a libvirtd that is started again tells of the domains it finds', async () => (await members()).length === 1, PATIENCE_MS);
        expect(await members(), libvirt.world.output()).toEqual([store]);
        await libvirt.virsh('destroy', 'store');
        await until('the last one takes the group along', async () => (await api.call('GET', '/v1/groups/web')).status === 404, PATIENCE_MS);
      } finally {
        await libvirt.world.close();
      }
    });
  }, 300_000);
});
