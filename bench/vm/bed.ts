/**
 * A bed with real VMs: the bed's bridge and outsider, and guests in a row instead of members.
 *
 *   outsider ══ uplink ─┐                      ┌─ tap ─ front 0 (runs)     front asks the guest behind
 *   (the client)        ├─ br0 ──── sluiced ───┼─ tap ─ front 1 (standby)  it, the last one is the store
 *                       └─                     ├─ tap ─ store 0
 *                                              └─ tap ─ store 1
 *
 *   create ─► startGuests() ─► …an engine, a client, a death… ─► close()
 *
 * Who starts the second sides is the engine; the bed only knows how to find and end them, by the
 * process numbers they write. All taps exist before any QEMU does (it silently makes a missing one,
 * attached to nothing). `close()` ends every guest process of either side, whoever started it, and
 * removes what the bed made: RAM files, taps, namespaces, directory. Call it in `finally`.
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestGroup, GuestSpec, SideIndex } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { memberAt } from '../../checkpoint-hooks/engines/qemu/guest.ts';
import { Bed } from '../bed/bed.ts';
import { nowUs } from '../bed/libc.ts';
import { end, ipBatch, sleep, start, until, type Running } from '../bed/commands.ts';
import { consoleOf, eyeOf, guestSpec, type Role } from './guest.ts';
import { guestKit } from './kit.ts';

const SIDES: readonly SideIndex[] = [0, 1];
const NAMES = { 1: ['store'], 2: ['front', 'store'], 3: ['front', 'middle', 'store'] } as const;
/** 2 to 3 s are usual; on a machine that others load, ten. */
const BOOT_MS = 25_000;
/** A boot under emulation hangs or panics now and then; then the guest is started again. */
const BOOTS_MAX = 3;

export interface VmBedOptions {
  readonly guests: 1 | 2 | 3;
  readonly group?: string;
  /** More arguments of each first side's QEMU. */
  readonly qemu?: readonly string[];
}

export interface Closable {
  close(): unknown;
}

export class VmBed {
  readonly bed: Bed;
  readonly group: GuestGroup;
  /** The group, as a file for `sluice engine qemu`. */
  readonly groupFile: string;
  readonly #qemu: readonly string[];
  readonly #running = new Map<string, Running>();
  readonly #owned: Closable[] = [];

  private constructor(bed: Bed, group: GuestGroup, qemu: readonly string[]) {
    this.bed = bed;
    this.#qemu = qemu;
    this.group = group;
    this.groupFile = join(bed.directory, 'guests.yaml');
    writeFileSync(this.groupFile, JSON.stringify(group));
  }

  /** What `close()` closes before the bed itself, last owned first. */
  own<T extends Closable>(it: T): T {
    this.#owned.push(it);
    return it;
  }

  static async create(options: VmBedOptions): Promise<VmBed> {
    const kit = await guestKit();
    const bed = await Bed.create({ members: [] });
    try {
      const names = NAMES[options.guests];
      const guests = names.map((name, i) => {
        const role: Role = i === names.length - 1 ? { kind: 'store' } : { kind: 'relay', next: ipOf(i + 1) };
        return guestSpec(kit, {
          name, mac: `02:52:00:00:00:0${i + 1}`, ip: ipOf(i), role, namespace: bed.host, directory: bed.directory,
          ram: `/dev/shm/sl-${bed.id}-${name}`, taps: [`${name}0`, `${name}1`],
        });
      });
      await ipBatch(bed.host, guests.flatMap((guest) => SIDES.flatMap((side) => tapLines(guest.sides[side].ports[0]))));
      return new VmBed(bed, { group: options.group ?? 'g', guests }, options.qemu ?? []);
    } catch (error) {
      await bed.close();
      throw error;
    }
  }

  guest(name: string): GuestSpec {
    const found = this.group.guests.find((guest) => guest.name === name);
    if (found === undefined) throw new Error(`the bed has no guest ${name}`);
    return found;
  }

  ip(name: string): string {
    return this.guest(name).nics[0]?.addresses?.[0] ?? '';
  }

  eye(name: string, side: SideIndex): string {
    return eyeOf(this.bed.directory, name, side);
  }

  console(name: string, side: SideIndex): string {
    const path = consoleOf(this.bed.directory, name, side);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Starts every guest's first side and waits until it serves. */
  async startGuests(): Promise<void> {
    for (const guest of this.group.guests) this.#start(guest, 0);
    await Promise.all(this.group.guests.map((guest) => this.#serving(guest)));
  }

  /** The group as Sluice is told of it while these sides run. */
  memberFile(side: SideIndex = 0): object {
    return { group: this.group.group, commit: 'explicit', members: this.group.guests.map((guest) => memberAt(guest, side)) };
  }

  /** Process number of a side; undefined where it does not run. */
  pid(name: string, side: SideIndex): number | undefined {
    return pidOf(this.guest(name), side);
  }

  /** SIGSTOP: the guest's process is there and does nothing more. When that was, in microseconds. */
  freeze(name: string, side: SideIndex): number {
    return this.#signal([name], side, 'SIGSTOP');
  }

  /** SIGKILL to these guests' side at once: nobody between the first and the last one. When the first was. */
  kill(names: readonly string[], side: SideIndex): number {
    return this.#signal(names, side, 'SIGKILL');
  }

  /** Memory of the host that the guests' RAM files take, bytes. */
  ramBytes(): number {
    const used = (path: string): number => (existsSync(path) ? statSync(path).blocks * 512 : 0);
    return this.group.guests.flatMap(({ sides }) => sides.map(({ ram }) => used(ram))).reduce((a, b) => a + b, 0);
  }

  async close(): Promise<void> {
    for (const each of this.#owned.splice(0).reverse()) await each.close();
    for (const guest of this.group.guests) for (const side of SIDES) await this.#end(guest, side);
    for (const running of this.#running.values()) await end(running, 'SIGKILL');
    this.#running.clear();
    for (const { sides } of this.group.guests) for (const { ram } of sides) rmSync(ram, { force: true });
    await this.bed.close();
  }

  #signal(names: readonly string[], side: SideIndex, signal: NodeJS.Signals): number {
    const pids = names.map((name) => this.pid(name, side));
    const atUs = nowUs();
    for (const pid of pids) if (pid !== undefined) process.kill(pid, signal);
    return atUs;
  }

  #start(guest: GuestSpec, side: SideIndex): void {
    const [program, ...args] = guest.sides[side].argv;
    if (program === undefined) throw new Error(`guest ${guest.name} has no command line`);
    // What an earlier life said there is not this one's word.
    for (const path of [consoleOf(this.bed.directory, guest.name, side), guest.sides[side].pidFile]) rmSync(path, { force: true });
    this.#running.set(`${guest.name}${side}`, start(program, [...args, ...this.#qemu]));
  }

  async #serving(guest: GuestSpec): Promise<void> {
    for (let boot = 1; ; boot++) {
      if (await this.#serves(guest)) return;
      if (boot === BOOTS_MAX) throw new Error(`guest ${guest.name} does not boot: ${this.console(guest.name, 0)}${this.#said(guest)}`);
      await this.#end(guest, 0);
      this.#start(guest, 0);
    }
  }

  /** Waits for a boot's end: true once it serves, false when it hangs or the kernel gave up. */
  async #serves(guest: GuestSpec): Promise<boolean> {
    const child = this.#running.get(`${guest.name}0`)?.child;
    const deadline = Date.now() + BOOT_MS;
    while (Date.now() < deadline && child?.exitCode === null && child.signalCode === null) {
      const said = this.console(guest.name, 0);
      if (said.includes('sluice-guest: ready')) return true;
      if (said.includes('sluice-guest: failed')) throw new Error(`guest ${guest.name}: ${said}`);
      await sleep(20);
    }
    return false;
  }

  #said({ name }: GuestSpec): string {
    return this.#running.get(`${name}0`)?.output() ?? '';
  }

  /** Ends a side by its own process number, whoever started it. */
  async #end(guest: GuestSpec, side: SideIndex): Promise<void> {
    const pid = pidOf(guest, side);
    if (pid === undefined) return;
    process.kill(pid, 'SIGKILL');
    await until(`guest ${guest.name}${side} is gone`, () => pidOf(guest, side) === undefined);
  }
}

const ipOf = (i: number): string => `10.81.0.${i + 1}`;

const tapLines = (tap: string | undefined): string[] => [
  `tuntap add dev ${tap} mode tap`, `link set ${tap} txqueuelen 20000 master br0`, `link set ${tap} up`,
];

/** A number that another process has taken since is not the guest's: its command line says so. */
function pidOf(guest: GuestSpec, side: SideIndex): number | undefined {
  const { pidFile } = guest.sides[side];
  if (!existsSync(pidFile)) return undefined;
  const pid = Number(readFileSync(pidFile, 'utf8'));
  try {
    const state = /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return state !== 'Z' && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(pidFile) ? pid : undefined;
  } catch {
    return undefined;
  }
}

