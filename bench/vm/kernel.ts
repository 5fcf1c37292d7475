/**
 * Kernels of Debian's for guests: downloaded, unpacked, never installed.
 *
 *   linux-image-cloud-amd64 ─► cloud: small, for the guests that count
 *   linux-image-amd64       ─► full:  with every queue and filter, for the lab guest
 *
 * Kept under `${XDG_CACHE_HOME:-~/.cache}/sluice` by the package's name; the newest that is there
 * is taken and nothing is asked of the network. Unpacked beside its place and renamed into it, so
 * that two who do it at once don't see each other's halves.
 *
 * What can't be had ends in `KitUnavailable` with a reason of a closed set.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CommandError, run } from '../bed/commands.ts';

export type KitReason = 'no-qemu' | 'no-compiler' | 'no-busybox' | 'no-kernel-package';

export class KitUnavailable extends Error {
  override readonly name = 'KitUnavailable';
  readonly reason: KitReason;
  constructor(reason: KitReason, detail: string) {
    super(`${reason}: ${detail}`);
    this.reason = reason;
  }
}

export type Flavour = 'cloud' | 'full';

interface Package {
  readonly meta: string;
  readonly name: RegExp;
}
const PACKAGES: Record<Flavour, Package> = {
  cloud: { meta: 'linux-image-cloud-amd64', name: /^linux-image-[0-9][\w.+-]*-cloud-amd64$/ },
  full: { meta: 'linux-image-amd64', name: /^linux-image-[0-9][0-9.]*-[0-9]+-amd64$/ },
};

export const cache = (): string => join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'sluice');

/** Where the flavour's package is unpacked (boot/, lib/modules/); downloaded if it has to be. */
export async function unpackedKernel(flavour: Flavour): Promise<string> {
  mkdirSync(cache(), { recursive: true });
  return newestKernel(PACKAGES[flavour]) ?? (await downloadKernel(PACKAGES[flavour]));
}

/** The newest kernel that is in the cache already. */
function newestKernel({ name: fits }: Package): string | undefined {
  const kept = readdirSync(cache()).filter((name) => fits.test(name));
  const newest = kept.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  return newest === undefined ? undefined : join(cache(), newest);
}

async function downloadKernel(wanted: Package): Promise<string> {
  const work = mkdtempSync(join(cache(), 'download-'));
  try {
    const name = await kernelPackage(wanted);
    await run('sh', ['-c', 'cd "$1" && apt-get download -q "$2" && dpkg -x ./*.deb unpacked', 'sh', work, name]);
    return keep(join(work, 'unpacked'), join(cache(), name));
  } catch (error) {
    if (error instanceof CommandError) throw new KitUnavailable('no-kernel-package', error.message);
    throw error;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The package that the flavour is today; package lists are fetched where there are none. */
async function kernelPackage({ meta, name: fits }: Package): Promise<string> {
  const ask = async (): Promise<string | undefined> => {
    const said = await run('apt-cache', ['depends', meta]).catch(() => '');
    return said.split(/\s+/).find((word) => fits.test(word));
  };
  const name = (await ask()) ?? (await run('apt-get', ['update', '-q']).then(ask));
  if (name === undefined) throw new KitUnavailable('no-kernel-package', `no package ${meta} here`);
  return name;
}

/** Renames into place; whoever was first wins, for the content is the same. */
export function keep(from: string, to: string): string {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!existsSync(to)) throw error;
  }
  return to;
}

/** The one name in a directory that fits. */
export function filesOf(directory: string, name: RegExp): string {
  const found = readdirSync(directory).find((each) => name.test(each));
  if (found === undefined) throw new KitUnavailable('no-kernel-package', `${directory} has nothing like ${name.source}`);
  return found;
}
