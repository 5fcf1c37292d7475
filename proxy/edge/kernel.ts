/**
 * The kernel side of the gate, for real: programs, maps, links, devices of one network namespace.
 *
 *   open ─► bpf file system ─► load the object over what is pinned ─► hook, put, …
 *
 *   <pin dir>/groups nics members lanes queues ports macs guarded devices near wires vlans vnis peers stats     maps
 *   <pin dir>/link-<ifindex>-<side>-<program>                          tcx links
 *
 * Programs are attached through tcx links where the kernel has them (6.6 and later): pinned, they
 * outlive the process, `tc` can't remove them, and a newer program replaces an older one without
 * a gap. Elsewhere through clsact filters, which outlive the process by themselves. Replacing is
 * always in place. It decides nothing: what is called for is done or throws.
 */
import { randomInt } from 'node:crypto';
import { closeSync, readdirSync, rmSync, rmdirSync } from 'node:fs';
import {
  TCX_EGRESS, TCX_INGRESS, linkCreate, linkDetach, linkInfo, linkUpdate, mapDelete, mapInfo, mapKeys, mapLookup,
  mapUpdate, objectPin, possibleCpus, programId, programName,
} from './ffi/bpf.ts';
import type { MapInfo } from './ffi/bpf.ts';
import { MissingPart, TC_EGRESS, TC_INGRESS, clsactAttach, clsactDetach, clsactProgram, loadObject, pinnedAt } from './ffi/libbpf.ts';
import type { LoadedObject } from './ffi/libbpf.ts';
import { close, view, mustMap, MAP_SHARED } from './ffi/libc.ts';
import { LITTLE, fixedBytes } from './ffi/struct.ts';
import { membarrier } from './ffi/sys.ts';
import { claimPinDir, deleteHoldPair, deleteLanePair, deleteTunnel, ensureHoldPair, ensureLanePair, ensurePinDir, ensureTunnel, kernelAtLeast } from './devices.ts';
import type { HoldNames, HoldPair, LaneNames, LanePair } from './devices.ts';
import { Near } from './near.ts';
import { Netlink } from './netlink.ts';
import type { Link, Watch } from './netlink.ts';

type Side = 'ingress' | 'egress';
interface Hook<P extends string> {
  readonly ifindex: number;
  readonly side: Side;
  readonly program: P;
}

export interface KernelOptions<P extends string> {
  /** classify.bpf.o */
  readonly object: Uint8Array;
  readonly maps: readonly string[];
  readonly programs: readonly P[];
  readonly mark: { readonly mask: number; readonly shift: number };
  /** What released frames are known by between two programs (abi.h); a random one unless given. */
  readonly releaseHash?: number;
  /** A directory below a bpf file system, made where it is missing. */
  readonly pinDir: string;
  /** Nobody else may use that directory while this one does. Default: not asked. */
  readonly alone?: boolean;
  readonly attach: 'auto' | 'tcx' | 'clsact';
  /** Lanes of a group that has some, each a queue of the kernel's. */
  readonly lanes?: number;
  /** UDP port of frames between hosts by VXLAN; VXLAN_PORT unless given. */
  readonly vxlanPort?: number;
  /** Said in the alias of our devices; another owner's devices are not touched. */
  readonly owner: string;
}

/** Devices of one group. */
export interface HoldDevices extends HoldPair {
  readonly holdDevice: string;
  readonly ringDevice: string;
}

const ATTACH_TYPE = { ingress: TCX_INGRESS, egress: TCX_EGRESS } as const;
const TC_POINT = { ingress: TC_INGRESS, egress: TC_EGRESS } as const;
const SIDES: readonly Side[] = ['ingress', 'egress'];
const TCX_SINCE = [6, 6] as const;
/** IANA's. */
const VXLAN_PORT = 4789;
/** Without membarrier: longer than any frame is on its way through the kernel. */
const PASSED_MS = 50;

const u32 = (value: number): Uint8Array => {
  const bytes = fixedBytes(4);
  new DataView(bytes.buffer).setUint32(0, value, LITTLE);
  return bytes;
};
const asNumber = (key: Uint8Array): number => new DataView(key.buffer, key.byteOffset).getUint32(0, LITTLE);
const pinSplit = (dir: string): [string, string] => {
  const at = dir.lastIndexOf('/');
  return [dir.slice(0, at), dir.slice(at + 1)];
};

export class Kernel<P extends string> {
  readonly #options: KernelOptions<P>;
  readonly #object: LoadedObject;
  readonly #netlink = new Netlink();
  readonly #tcx: boolean;
  readonly #ours = new Map<number, P>();
  readonly #shapes = new Map<number, MapInfo>();
  readonly #near: Near;
  #pinned = true;
  /** While the directory is there. */
  #claim: number | undefined;
  readonly cells: { readonly groups: ArrayBuffer; readonly nics: ArrayBuffer; readonly members: ArrayBuffer };

  constructor(options: KernelOptions<P>) {
    this.#options = options;
    this.#ownPinDir();
    const rodata = fixedBytes(12);
    rodata.set(u32(options.mark.mask), 0);
    rodata.set(u32(options.mark.shift), 4);
    rodata.set(u32(options.releaseHash ?? randomInt(1, 2 ** 32)), 8);
    this.#object = loadObject(options.object, { pinDir: options.pinDir, maps: options.maps, programs: options.programs, rodata });
    for (const name of options.programs) this.#ours.set(programId(this.#program(name)), name);
    this.#tcx = usesTcx(options.attach);
    this.cells = { groups: this.#memory('groups'), nics: this.#memory('nics'), members: this.#memory('members') };
    this.#near = new Near(this.#memory('near'), this.#memory('vlans'));
    for (const table of Near.tables) this.entries(table);
  }
  get attachMode(): 'tcx' | 'clsact' {
    return this.#tcx ? 'tcx' : 'clsact';
  }
  /** A program's descriptor, for test runs. */
  programFd(name: P): number {
    return this.#program(name);
  }

  // ------------------------------------------------------------------------------- devices

  ports(): Link[] {
    return this.#netlink.links();
  }
  watch(listener: () => void): Watch {
    return this.#netlink.watch(listener);
  }
  /** Lanes of an earlier life go with what they had: whoever wants some makes them. */
  ensureHoldPair(id: number): HoldDevices {
    const names = holdNames(id);
    this.deleteLanePair(id);
    return { holdDevice: names.hold, ringDevice: names.ring, ...ensureHoldPair(this.#netlink, names, this.#options.owner) };
  }
  deleteHoldPair(id: number): void {
    this.deleteLanePair(id);
    deleteHoldPair(this.#netlink, holdNames(id), this.#options.owner);
  }
  readonly poolDevice = POOL.ring;
  ensurePool(): { readonly poolHoldIfindex: number; readonly poolIfindex: number } {
    const { holdIfindex, ringIfindex } = ensureHoldPair(this.#netlink, POOL, this.#options.owner);
    return { poolHoldIfindex: holdIfindex, poolIfindex: ringIfindex };
  }
  deletePool(): void {
    deleteHoldPair(this.#netlink, POOL, this.#options.owner);
  }
  ensureLanePair(id: number): LanePair {
    return ensureLanePair(this.#netlink, holdNames(id), this.#options.lanes ?? 0, this.#options.owner);
  }
  deleteLanePair(id: number): void {
    deleteLanePair(this.#netlink, holdNames(id), this.#options.owner);
  }
  readonly tunnelDevice = 'slx';
  ensureTunnel(): number {
    return ensureTunnel(this.#netlink, { name: this.tunnelDevice, port: this.#options.vxlanPort ?? VXLAN_PORT }, this.#options.owner);
  }
  deleteTunnel(): void {
    deleteTunnel(this.#netlink, this.tunnelDevice, this.#options.owner);
  }
  forward(ifindex: number, mac: string): boolean {
    return this.#netlink.addForwarding(ifindex, mac);
  }
  unforward(ifindex: number, mac: string): void {
    this.#netlink.deleteForwarding(ifindex, mac);
  }
  /** Resolves when every frame that was on its way through the kernel has left it. */
  async passed(): Promise<void> {
    if (!(await membarrier())) await new Promise((resolve) => setTimeout(resolve, PASSED_MS));
  }

  // --------------------------------------------------------------------------------- hooks

  *hooks(ifindexes: readonly number[]): Generator<Hook<P> & { readonly fresh: boolean }, void, undefined> {
    if (this.#tcx) yield* this.#links();
    else for (const ifindex of ifindexes) for (const side of SIDES) yield* this.#filter(ifindex, side);
  }
  hook(hook: Hook<P>): void {
    const program = this.#program(hook.program);
    if (!this.#tcx) {
      clsactAttach(program, hook.ifindex, TC_POINT[hook.side]);
      return;
    }
    const path = this.#linkPath(hook);
    if (this.#replaceLink(path, hook.ifindex, program)) return;
    rmSync(path, { force: true });
    const link = linkCreate(program, hook.ifindex, ATTACH_TYPE[hook.side], hook.side === 'ingress');
    try {
      objectPin(link, path);
    } finally {
      close(link);
    }
  }
  unhook(hook: Hook<P>): void {
    if (this.#tcx) this.#dropLink(this.#linkPath(hook));
    else clsactDetach(hook.ifindex, TC_POINT[hook.side]);
  }

  /** Detached first: what is only unpinned goes at some later time. */
  #dropLink(path: string): void {
    const link = pinnedAt(path);
    if (link === undefined) return;
    try {
      if (linkInfo(link).ifindex !== 0) linkDetach(link);
    } finally {
      close(link);
      rmSync(path, { force: true });
    }
  }

  /** False where there is no living link to replace the program of. */
  #replaceLink(path: string, ifindex: number, program: number): boolean {
    const link = pinnedAt(path);
    if (link === undefined) return false;
    try {
      if (linkInfo(link).ifindex !== ifindex) return false;
      linkUpdate(link, program);
      return true;
    } finally {
      close(link);
    }
  }
  #linkPath({ ifindex, side, program }: Hook<P>): string {
    return `${this.#options.pinDir}/link-${ifindex}-${side}-${program}`;
  }
  /** Every pinned link; one whose device is gone, or whose program is an earlier daemon's, is not fresh. */
  *#links(): Generator<Hook<P> & { readonly fresh: boolean }, void, undefined> {
    if (!this.#pinned) return;
    for (const name of readdirSync(this.#options.pinDir)) {
      const [, index, side, program] = /^link-(\d+)-(ingress|egress)-(\w+)$/.exec(name) ?? [];
      const known = this.#options.programs.find((candidate) => candidate === program);
      if (known === undefined) continue;
      const link = pinnedAt(`${this.#options.pinDir}/${name}`);
      if (link === undefined) continue; // another tool has removed it since
      let fresh = false;
      try {
        const info = linkInfo(link);
        fresh = info.ifindex === Number(index) && this.#ours.get(info.programId) === known;
      } finally {
        close(link);
      }
      yield { ifindex: Number(index), side: side === 'ingress' ? 'ingress' : 'egress', program: known, fresh };
    }
  }
  #filter(ifindex: number, side: Side): (Hook<P> & { readonly fresh: boolean })[] {
    const id = clsactProgram(ifindex, TC_POINT[side]);
    if (id === 0) return [];
    const name = this.#ours.get(id) ?? programName(id);
    const program = this.#options.programs.find((candidate) => candidate === name);
    return program === undefined ? [] : [{ ifindex, side, program, fresh: this.#ours.has(id) }];
  }

  // ---------------------------------------------------------------------------------- maps

  /** As the hash has them; the cells beside it (near.ts) are equal to it from then on. */
  entries(table: string): { readonly key: Uint8Array; readonly value: number }[] {
    const fd = this.#map(table);
    const { keyBytes, entries } = this.#shape(fd);
    const value = fixedBytes(4);
    const rows = mapKeys(fd, keyBytes, entries).flatMap((key) =>
      mapLookup(fd, key, value) ? [{ key, value: new DataView(value.buffer).getUint32(0, LITTLE) }] : []);
    this.#near.mirror(table, rows.map((row) => ({ key: asNumber(row.key), value: row.value })));
    return rows;
  }
  put(table: string, key: Uint8Array, value: number): void {
    mapUpdate(this.#map(table), key, u32(value));
    this.#near.put(table, { key: asNumber(key), value });
  }
  remove(table: string, key: Uint8Array): void {
    this.#near.remove(table, asNumber(key));
    mapDelete(this.#map(table), key);
  }
  counted(): number[] {
    const fd = this.#map('stats');
    return mapKeys(fd, 4, this.#shape(fd).entries).map(asNumber);
  }
  count(ifindex: number): void {
    const fd = this.#map('stats');
    mapUpdate(fd, u32(ifindex), fixedBytes(this.#shape(fd).valueBytes * possibleCpus()));
  }
  uncount(ifindex: number): void {
    mapDelete(this.#map('stats'), u32(ifindex));
  }
  counters(ifindex: number): Uint8Array {
    const fd = this.#map('stats');
    const value = fixedBytes(this.#shape(fd).valueBytes * possibleCpus());
    return mapLookup(fd, u32(ifindex), value) ? value : new Uint8Array(0);
  }

  // ---------------------------------------------------------------------------------- pins

  pin(): void {
    if (this.#pinned) return;
    this.#ownPinDir();
    for (const [name, fd] of this.#object.maps) objectPin(fd, `${this.#options.pinDir}/${name}`);
    this.#pinned = true;
  }
  /** Only to be called when nothing is attached. */
  unpin(): void {
    if (!this.#pinned) return;
    for (const name of readdirSync(this.#options.pinDir)) rmSync(`${this.#options.pinDir}/${name}`);
    rmdirSync(this.#options.pinDir);
    this.#giveUpClaim();
    this.#pinned = false;
  }
  close(): void {
    this.#netlink.close();
    this.#object.close();
    this.#giveUpClaim();
  }

  #ownPinDir(): void {
    const dir = ensurePinDir(...pinSplit(this.#options.pinDir));
    if (this.#options.alone === true) this.#claim = claimPinDir(dir);
  }
  #giveUpClaim(): void {
    if (this.#claim !== undefined) closeSync(this.#claim);
    this.#claim = undefined;
  }

  /** A map's never changes. */
  #shape(fd: number): MapInfo {
    const known = this.#shapes.get(fd) ?? mapInfo(fd);
    this.#shapes.set(fd, known);
    return known;
  }
  #map(name: string): number {
    const fd = this.#object.maps.get(name);
    if (fd === undefined) throw new Error(`no map ${name}`);
    return fd;
  }
  #program(name: P): number {
    const fd = this.#object.programs.get(name);
    if (fd === undefined) throw new Error(`no program ${name}`);
    return fd;
  }
  #memory(map: string): ArrayBuffer {
    const fd = this.#map(map);
    const { valueBytes, entries } = mapInfo(fd);
    const bytes = ((valueBytes + 7) & ~7) * entries;
    return view(mustMap(0, bytes, MAP_SHARED, fd, map), bytes);
  }
}

/** The pair by which all groups' frames come that have no ring of their own. */
const POOL: HoldNames = { hold: 'slhp', ring: 'slrp' };
const holdNames = (id: number): HoldNames & LaneNames => ({ hold: `slh${id}`, ring: `slr${id}`, lane: `slq${id}`, exit: `slo${id}` });

function usesTcx(attach: 'auto' | 'tcx' | 'clsact'): boolean {
  const there = kernelAtLeast(...TCX_SINCE);
  if (attach === 'tcx' && !there) throw new MissingPart('this kernel has no tcx', 'use attach: auto, or Linux 6.6 or later');
  return attach !== 'clsact' && there;
}
