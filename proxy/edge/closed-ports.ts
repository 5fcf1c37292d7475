/**
 * Ports that this daemon has closed, because their host is cut off and its policy says so.
 *
 *    open ─ close(ports): named in the file, synced ─► link down ─┐
 *      ▲                                                          ├─ again: what is up meanwhile is closed again
 *      └──────── open(): link up ◄─ then out of the file ─────────┘
 *
 * A port that is down carries nothing, either way, whoever's program is at it. The file is what a
 * daemon that starts anew opens them by; it names only what we closed, so a port that the operator
 * had set down stays down. A port is named before it goes down: a death between the two leaves one
 * named that is up, and opening it does nothing.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import type { Link } from './netlink.ts';

/** The part of netlink that is needed. */
export interface Switches {
  links(): readonly Pick<Link, 'ifindex' | 'name' | 'up'>[];
  setUp(ifindex: number): void;
  setDown(ifindex: number): void;
}

export class ClosedPorts {
  readonly #switches: Switches;
  readonly #file: string;
  #names: ReadonlySet<string>;

  constructor(switches: Switches, file: string) {
    this.#switches = switches;
    this.#file = file;
    this.#names = new Set(namesIn(file));
  }

  get names(): readonly string[] {
    return [...this.#names];
  }

  /** Those that are up go down. Throws where it can't be done; to be said again. */
  close(ports: readonly string[]): void {
    const up = this.#switches.links().filter((link) => link.up && ports.includes(link.name));
    const fresh = up.filter(({ name }) => !this.#names.has(name));
    if (fresh.length > 0) this.#remember([...this.#names, ...fresh.map(({ name }) => name)]);
    for (const { ifindex } of up) this.#switches.setDown(ifindex);
  }

  /** All that were closed, as far as they are still there. */
  open(): void {
    if (this.#names.size === 0) return;
    for (const { name, ifindex, up } of this.#switches.links()) if (!up && this.#names.has(name)) this.#switches.setUp(ifindex);
    rmSync(this.#file, { force: true });
    this.#names = new Set();
  }

  #remember(names: readonly string[]): void {
    const fresh = `${this.#file}.new`;
    const fd = openSync(fresh, 'w', 0o600);
    try {
      writeSync(fd, JSON.stringify(names));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(fresh, this.#file);
    this.#names = new Set(names);
  }
}

/** Of a file that is not there, or not whole: none. */
function namesIn(file: string): readonly string[] {
  try {
    const names: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return Array.isArray(names) ? names.filter((name): name is string => typeof name === 'string') : [];
  } catch {
    return [];
  }
}
