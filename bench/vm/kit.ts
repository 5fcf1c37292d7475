/**
 * The guest kit: the smallest Linux a real VM can run, made by the project itself on first use.
 *
 *   Debian's cloud kernel (downloaded, unpacked, never installed) ─┬─► vmlinuz
 *                                                                  └─► nine virtio modules ─┐
 *   init.c ─► cc -static ─────────────────────────────────────────────────► /init ──────────┴─► initramfs
 *
 * Both are kept under `${XDG_CACHE_HOME:-~/.cache}/sluice`, the kernel by its package's name, the
 * initramfs by a hash of what went into it: a changed source makes a new one, an unchanged one is
 * taken as it is and nothing is asked of the network. Made beside its place and renamed into it,
 * so that two who make it at once don't see each other's halves.
 *
 * What can't be had ends in `KitUnavailable` with a reason of a closed set; nothing else does.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../bed/commands.ts';
import { repositoryRoot } from '../bed/daemon.ts';
import { cpio } from './cpio.ts';
import { KitUnavailable, cache, filesOf, keep, unpackedKernel } from './kernel.ts';

export interface Kit {
  readonly qemu: string;
  readonly kernel: string;
  readonly initramfs: string;
}

/** In the order of their dependence; the pci ones are for a machine that is not a microvm. */
const MODULES: readonly string[] = [
  'drivers/virtio/virtio_ring', 'drivers/virtio/virtio', 'drivers/virtio/virtio_pci_legacy_dev',
  'drivers/virtio/virtio_pci_modern_dev', 'drivers/virtio/virtio_mmio', 'drivers/virtio/virtio_pci',
  'net/core/failover', 'drivers/net/net_failover', 'drivers/net/virtio_net',
];
const QEMU = '/usr/bin/qemu-system-x86_64';

let made: Promise<Kit> | undefined;

/** The kit, made if it has to be. Throws `KitUnavailable`. */
export function guestKit(): Promise<Kit> {
  made ??= make();
  return made;
}

/** The typed reason for which a test with guests is skipped here; undefined where it can run. */
export async function kitMissing(): Promise<string | undefined> {
  try {
    await guestKit();
    return undefined;
  } catch (error) {
    if (error instanceof KitUnavailable) return error.message;
    throw error;
  }
}

async function make(): Promise<Kit> {
  if (!existsSync(QEMU)) throw new KitUnavailable('no-qemu', `${QEMU} is missing: deploy/setup.sh vm`);
  const unpacked = await unpackedKernel('cloud');
  const kernel = join(unpacked, 'boot', filesOf(join(unpacked, 'boot'), /^vmlinuz-/));
  return { qemu: QEMU, kernel, initramfs: await initramfs(unpacked) };
}

async function initramfs(unpacked: string): Promise<string> {
  const source = join(repositoryRoot(), 'bench/vm/init.c');
  const release = filesOf(join(unpacked, 'lib/modules'), /cloud-amd64$/);
  const modules = MODULES.map((path) => readFileSync(join(unpacked, 'lib/modules', release, 'kernel', `${path}.ko`)));
  const hash = createHash('sha256');
  for (const content of [readFileSync(source), ...modules]) hash.update(content).update('|');
  const place = join(cache(), `guest-${hash.digest('hex').slice(0, 16)}.cpio`);
  if (existsSync(place)) return place;
  const work = mkdtempSync(join(cache(), 'build-'));
  try {
    const init = await compile(source, join(work, 'init'));
    await writeFile(join(work, 'guest.cpio'), archive(init, modules));
    return keep(join(work, 'guest.cpio'), place);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A missing compiler is a reason to skip; a source that it refuses is a fault. */
async function compile(source: string, output: string): Promise<Buffer> {
  await run('cc', ['--version']).catch(() => {
    throw new KitUnavailable('no-compiler', 'no cc here: deploy/setup.sh vm');
  });
  await run('cc', ['-static', '-O2', '-s', '-o', output, source]);
  return readFileSync(output);
}

function archive(init: Buffer, modules: readonly Buffer[]): Buffer {
  const numbered = modules.map((content, i) => ({ path: `modules/${String(i).padStart(2, '0')}.ko`, content }));
  return cpio([
    { path: 'dev' }, { path: 'proc' }, { path: 'modules' },
    { path: 'dev/console', device: [5, 1] }, { path: 'dev/null', device: [1, 3] },
    { path: 'init', content: init, executable: true }, ...numbered,
  ]);
}
