/**
 * The kernel that the gate of the portable plane works on: cells in shared memory, and a child that
 * does what programs, maps and a bridge do elsewhere. So the gate itself is the same for both.
 *
 *   gate ─► put, hook, count … ─► remembered here, said to the child
 *   ports() = the devices of the namespace, with ours in a bridge of our own:
 *       listed in `pcap.ports`, and in no real bridge ─► master = BRIDGE
 *       everything else                               ─► in no bridge at all: nothing of it is switched
 *   + the bridge itself, + two devices a group (`hold pair`), which exist in name only
 *
 * What the gate asks is idempotent, so what is remembered here is what the child has; a restart
 * begins with an empty child, and cells as they were left (`adopted`), as it is with pins.
 * `pin` keeps the memory for the next life, `unpin` removes it.
 */
import type { Hook, Port, TableName } from '../../classifier/plan.ts';
import type { HoldPair, Kernel, LanePair } from '../../classifier/kernel.ts';
import { STATS } from '../../classifier/abi.ts';
import { unshareMemory } from '../edge/shared-memory.ts';
import { Netlink } from '../edge/netlink.ts';
import type { Link } from '../edge/netlink.ts';
import type { ChildLink } from './child-link.ts';
import { COUNTED_MAX } from './layout.ts';
import type { Shared } from './layout.ts';

/** No device of the kernel gets so high a number: it counts from 1. */
const BRIDGE = 0x7f00_0000;
const HOLD_FIRST = 0x7e00_0000;

const hookKey = ({ ifindex, side, program }: Hook): string => `${ifindex} ${side} ${program}`;
const keyText = (key: Uint8Array): string => Buffer.from(key).toString('hex');

export class SoftKernel implements Kernel {
  readonly cells: { readonly groups: ArrayBuffer; readonly nics: ArrayBuffer; readonly members: ArrayBuffer };
  readonly #child: ChildLink;
  readonly #shared: Shared;
  readonly #memory: string;
  readonly #names: ReadonlySet<string>;
  readonly #netlink = new Netlink();
  readonly #hooks = new Map<string, Hook>();
  readonly #tables: Readonly<Record<TableName, Map<string, { readonly key: Uint8Array; readonly value: number }>>> = {
    ports: new Map(), macs: new Map(), guarded: new Map(), devices: new Map(), wires: new Map(), vnis: new Map(), peers: new Map(),
  };
  readonly #slots = new Map<number, number>();
  readonly #pairs = new Set<number>();
  /** Until the gate says otherwise: what was left there is not to be lost by a start that fails. */
  #pinned = true;

  /** `names`: the ports that are switched. */
  constructor(child: ChildLink, shared: Shared, memory: string, names: readonly string[]) {
    this.#child = child;
    this.#shared = shared;
    this.#memory = memory;
    this.#names = new Set(names);
    this.cells = { groups: shared.groups, nics: shared.nics, members: shared.members };
  }

  // ------------------------------------------------------------------------------- devices

  /** As the kernel has them. */
  links(): Link[] {
    return this.#netlink.links();
  }
  ports(): Port[] {
    const pairs = [...this.#pairs].flatMap((id) => {
      const { holdDevice, ringDevice, holdIfindex, ringIfindex } = pairOf(id);
      return [virtual(holdIfindex, holdDevice, ''), virtual(ringIfindex, ringDevice, '')];
    });
    return [
      ...this.links().map(({ ifindex, name, up, kind, master }): Port =>
        ({ ifindex, name, up, kind: kind === 'bridge' ? '' : kind, master: this.#names.has(name) && master === 0 ? BRIDGE : 0 })),
      virtual(BRIDGE, 'sluice-switch', 'bridge'),
      ...pairs,
    ];
  }
  watch(listener: () => void): { close(): void } {
    return this.#netlink.watch(listener);
  }
  ensureHoldPair(id: number): HoldPair {
    const pair = pairOf(id);
    this.#pairs.add(id);
    this.#child.say({ op: 'hold', id, ifindex: pair.holdIfindex });
    return pair;
  }
  deleteHoldPair(id: number): void {
    this.#pairs.delete(id);
  }
  /** Each group's frames are handed to it one by one here: no rings, and no pool of them. */
  readonly poolDevice = '';
  ensurePool(): undefined {
    return undefined;
  }
  deletePool(): void {
    // there is none
  }
  ensureLanePair(): LanePair {
    throw new Error('the portable plane has no lanes');
  }
  deleteLanePair(): void {
    // there is none
  }
  /** No group of this plane is carried between hosts: the gate refuses it before. */
  readonly tunnelDevice = '';
  ensureTunnel(): number {
    throw new Error('the portable plane carries nothing between hosts');
  }
  deleteTunnel(): void {
    // there is none
  }
  forward(ifindex: number, mac: string): boolean {
    this.#child.say({ op: 'fix', ifindex, mac });
    return true;
  }
  unforward(ifindex: number, mac: string): void {
    this.#child.say({ op: 'unfix', ifindex, mac });
  }
  passed(): Promise<void> {
    return this.#child.passed();
  }

  // -------------------------------------------------------------------------- programs and maps

  hooks(ifindexes: readonly number[]): { readonly ifindex: number; readonly side: Hook['side']; readonly program: Hook['program']; readonly fresh: boolean }[] {
    const asked = new Set(ifindexes);
    return [...this.#hooks.values()].filter(({ ifindex }) => asked.has(ifindex)).map((hook) => ({ ...hook, fresh: true }));
  }
  hook(hook: Hook): void {
    this.#hooks.set(hookKey(hook), hook);
    this.#child.say({ op: 'hook', hook });
  }
  unhook(hook: Hook): void {
    this.#hooks.delete(hookKey(hook));
    this.#child.say({ op: 'unhook', hook });
  }
  entries(table: TableName): { readonly key: Uint8Array; readonly value: number }[] {
    return [...this.#tables[table].values()];
  }
  put(table: TableName, key: Uint8Array, value: number): void {
    this.#tables[table].set(keyText(key), { key, value });
    this.#child.say({ op: 'put', table, key, value });
  }
  remove(table: TableName, key: Uint8Array): void {
    this.#tables[table].delete(keyText(key));
    this.#child.say({ op: 'remove', table, key });
  }

  // ----------------------------------------------------------------------------------- counters

  counted(): number[] {
    return [...this.#slots.keys()];
  }
  count(ifindex: number): void {
    if (this.#slots.has(ifindex)) return;
    const used = new Set(this.#slots.values());
    const slot = Array.from({ length: COUNTED_MAX }, (_, i) => i).find((i) => !used.has(i));
    if (slot === undefined) throw new Error(`${COUNTED_MAX} devices have counters already`);
    new Uint8Array(this.#shared.stats, slot * STATS.size, STATS.size).fill(0);
    this.#slots.set(ifindex, slot);
    this.#child.say({ op: 'count', ifindex, slot });
  }
  uncount(ifindex: number): void {
    this.#slots.delete(ifindex);
    this.#child.say({ op: 'uncount', ifindex });
  }
  counters(ifindex: number): Uint8Array {
    const slot = this.#slots.get(ifindex);
    return slot === undefined ? new Uint8Array(0) : new Uint8Array(this.#shared.stats, slot * STATS.size, STATS.size);
  }

  // --------------------------------------------------------------------------------------- life

  pin(): void {
    this.#pinned = true;
  }
  unpin(): void {
    this.#pinned = false;
  }
  get pinned(): boolean {
    return this.#pinned;
  }
  close(): void {
    this.#netlink.close();
    if (!this.#pinned) unshareMemory(this.#memory);
  }
}

const virtual = (ifindex: number, name: string, kind: string): Port => ({ ifindex, name, master: 0, kind, up: true });

function pairOf(id: number): HoldPair {
  const holdIfindex = HOLD_FIRST + 2 * id;
  return { holdDevice: `slh${id}`, ringDevice: `slr${id}`, holdIfindex, ringIfindex: holdIfindex + 1 };
}
