/**
 * The lab guest: Debian's own full kernel under emulation, with this machine's file system as its
 * root, for what the host's kernel does not have (sch_plug, NFQUEUE) and for Sluice on that kernel.
 *
 *   host                                        guest (QEMU, TCG, 2 CPUs, Debian's kernel)
 *   LabGuest ── unix socket ── second serial ── agent-child.js: one JSON line in, one out
 *   /        ── 9p, read-only ───────────────── lower layer of its root; changes stay in its memory
 *
 * What runs in it is this checkout's own dist/, with the host's node and tools. Emulation costs a
 * factor of ten to thirty, so a figure from here means something only beside another from here.
 * One question at a time. `close()` kills the guest; nothing of it is left. A guest that dies
 * answers the question under way with what it said on its console.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { end, run, sleep, start, until, type Running } from '../../bed/commands.ts';
import { repositoryRoot } from '../../bed/daemon.ts';
import { cpio } from '../../vm/cpio.ts';
import { hostKhz } from '../../vm/guest.ts';
import { KitUnavailable, unpackedKernel } from '../../vm/kernel.ts';

const QEMU = '/usr/bin/qemu-system-x86_64';
const BUSYBOX = '/bin/busybox';
const RAM_MB = 2048;
const BOOT_MS_MAX = 60_000;
const CONNECT_MS_MAX = 10_000;
/** In the order of their dependence; everything else is loaded from the guest's root. */
const MODULES: readonly string[] = [
  'drivers/virtio/virtio_ring', 'drivers/virtio/virtio', 'drivers/virtio/virtio_pci_legacy_dev',
  'drivers/virtio/virtio_pci_modern_dev', 'drivers/virtio/virtio_pci', 'fs/netfs/netfs', 'fs/fscache/fscache',
  'net/9p/9pnet', 'net/9p/9pnet_virtio', 'fs/9p/9p', 'fs/overlayfs/overlay',
];

/** What the agent answers a line with. */
export type LabAnswer = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string; readonly unavailable: boolean };

export class LabGuest {
  readonly kernel: string;
  readonly #directory: string;
  readonly #running: Running;
  readonly #lines: string[] = [];
  #socket: Socket | undefined;
  #rest = '';

  private constructor(kernel: string, directory: string, running: Running) {
    this.kernel = kernel;
    this.#directory = directory;
    this.#running = running;
  }

  /** Boots one and waits for its agent. Throws `KitUnavailable` where it can't be had. */
  static async boot(): Promise<LabGuest> {
    for (const [path, made] of [[QEMU, 'qemu-system-x86'], [BUSYBOX, 'busybox-static']] as const) {
      if (!existsSync(path)) throw new KitUnavailable(path === QEMU ? 'no-qemu' : 'no-busybox', `${path} is missing (package ${made}): deploy/setup.sh vm`);
    }
    const unpacked = await unpackedKernel('full');
    const release = readdirSync(join(unpacked, 'lib/modules'))[0] ?? '';
    if (!existsSync(join(unpacked, 'lib/modules', release, 'modules.dep'))) await run('depmod', ['-b', unpacked, release]);
    const directory = mkdtempSync(join(tmpdir(), `sl-${process.pid}-lab-`));
    writeFileSync(join(directory, 'initramfs'), archive(join(unpacked, 'lib/modules', release, 'kernel')));
    const guest = new LabGuest(release, directory, start(QEMU, commandLine(unpacked, release, directory)));
    try {
      await guest.#ready();
      return guest;
    } catch (error) {
      await guest.close();
      throw error;
    }
  }

  /** One line, one answer. */
  async ask(question: object, timeoutMs: number): Promise<LabAnswer> {
    this.#socket?.write(JSON.stringify(question) + '\n');
    return JSON.parse(await this.#line(timeoutMs)) as LabAnswer;
  }

  async close(): Promise<void> {
    this.#socket?.destroy();
    await end(this.#running, 'SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #ready(): Promise<void> {
    const path = join(this.#directory, 'agent');
    await until('the lab guest runs', () => existsSync(path) || this.#ended(), CONNECT_MS_MAX);
    const socket = connect(path);
    this.#socket = socket;
    socket.on('data', (chunk) => {
      const lines = (this.#rest + chunk.toString()).split('\n');
      this.#rest = lines.pop() ?? '';
      this.#lines.push(...lines.filter((line) => line.startsWith('{')));
    });
    socket.on('error', () => undefined); // the guest's end is seen in #line
    await this.#line(BOOT_MS_MAX);
  }

  async #line(timeoutMs: number): Promise<string> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined) return line;
      if (this.#ended() || Date.now() > deadline) throw new Error(`the lab guest ${this.#ended() ? 'ended' : `did not answer in ${timeoutMs} ms`}:\n${this.#console()}`);
      await sleep(5);
    }
  }

  #ended(): boolean {
    return this.#running.child.exitCode !== null || this.#running.child.signalCode !== null;
  }

  #console(): string {
    const path = join(this.#directory, 'console');
    return (existsSync(path) ? readFileSync(path, 'utf8').slice(-4000) : '') + this.#running.output();
  }
}

function archive(modules: string): Buffer {
  const directories = ['dev', 'modules', 'host', 'root', 'changes', 'bin'].map((path) => ({ path }));
  return cpio([
    ...directories, { path: 'dev/console', device: [5, 1] },
    { path: 'init', content: readFileSync(join(repositoryRoot(), 'bench/peers/lab/init.sh')), executable: true },
    { path: 'bin/busybox', content: readFileSync(BUSYBOX), executable: true },
    ...MODULES.map((path, i) => ({ path: `modules/${String(i).padStart(2, '0')}.ko`, content: readFileSync(join(modules, `${path}.ko`)) })),
  ]);
}

function commandLine(unpacked: string, release: string, directory: string): string[] {
  const kernelArguments = [
    'console=ttyS0 quiet loglevel=4 panic=-1 nokaslr mitigations=off no_timer_check',
    `lpj=5000000 tsc_early_khz=${hostKhz()} tsc=reliable clocksource=tsc`,
    `sluice_modules=${join(unpacked, 'lib/modules')} sluice_node=${process.execPath}`,
    `sluice_agent=${join(repositoryRoot(), 'dist/bench/peers/lab/agent-child.js')}`,
  ].join(' ');
  return [
    '-M', 'pc,hpet=off', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', String(RAM_MB),
    '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
    '-kernel', join(unpacked, 'boot', `vmlinuz-${release}`), '-initrd', join(directory, 'initramfs'), '-append', kernelArguments,
    '-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,multidevs=remap', '-device', 'virtio-9p-pci,fsdev=root,mount_tag=root',
    '-serial', `file:${join(directory, 'console')}`,
    '-chardev', `socket,id=agent,path=${join(directory, 'agent')},server=on,wait=off`, '-serial', 'chardev:agent',
  ];
}
