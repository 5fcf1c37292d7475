/**
 * bpf(2) as the edge uses it: maps, pins, links and test runs, one function a command.
 *
 * Every command takes a zeroed 128-byte attribute block of the layout in the kernel's uapi; values
 * in and out lie in our own memory and are referred to by address. File descriptors are numbers
 * that the caller closes. `mapCells` lays an ArrayBuffer over a pinned array map: each thread may
 * call it for itself, and all see the same memory as the kernel programs.
 *
 * It decides nothing. A command that fails throws BpfError with the system's reason.
 */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { ENOENT, MAP_SHARED, SystemError, close, errno, mustMap, view } from './libc.ts';
import { LITTLE, Struct, fixedBytes } from './struct.ts';

const SYSCALL: Readonly<Record<string, number>> = {
  x64: 321, arm64: 280, riscv64: 280, loong64: 280, ppc64: 361, s390x: 351, arm: 386,
};
const COMMAND = {
  mapLookup: 1, mapUpdate: 2, mapDelete: 3, mapNextKey: 4, pin: 6, get: 7, testRun: 10,
  programById: 13, info: 15, linkCreate: 28, linkUpdate: 29, linkDetach: 34,
} as const;

/** Attach types of tcx; present since Linux 6.6. */
export const TCX_INGRESS = 46;
export const TCX_EGRESS = 47;
const LINK_TYPE_TCX = 11;
const BEFORE = 1 << 3;

const ATTR_BYTES = 128;

const lib = koffi.load('libc.so.6');
const syscall: (n: number, command: number, attr: Uint8Array, size: number) => number =
  lib.func('syscall', 'long', ['long', 'int', 'uint8_t *', 'unsigned int']);

/** The attribute block of one command. */
const attr = (): Struct => new Struct(ATTR_BYTES);

function call(command: number, block: Struct): number {
  const n = SYSCALL[process.arch];
  if (n === undefined) throw new Error(`bpf: architecture ${process.arch} is not known`);
  return syscall(n, command, block, ATTR_BYTES);
}
function must(command: number, block: Struct, about: string): number {
  const result = call(command, block);
  if (result < 0) throw new SystemError('bpf', about, errno());
  return result;
}

// ---------------------------------------------------------------------------------------- maps

export function mapUpdate(fd: number, key: Uint8Array, value: Uint8Array): void {
  must(COMMAND.mapUpdate, attr().u32(0, fd).pointer(8, stable(key)).pointer(16, stable(value)), 'map update');
}
/** False where there was no such key. */
export function mapDelete(fd: number, key: Uint8Array): boolean {
  const result = call(COMMAND.mapDelete, attr().u32(0, fd).pointer(8, stable(key)));
  if (result < 0 && errno() !== ENOENT) throw new SystemError('bpf', 'map delete', errno());
  return result === 0;
}
/** Fills `value`; false where there is no such key. A per-CPU map fills one slot a possible CPU. */
export function mapLookup(fd: number, key: Uint8Array, value: Uint8Array): boolean {
  const result = call(COMMAND.mapLookup, attr().u32(0, fd).pointer(8, stable(key)).pointer(16, value));
  if (result < 0 && errno() !== ENOENT) throw new SystemError('bpf', 'map lookup', errno());
  return result === 0;
}
/** All keys. `bound` ends a walk that concurrent changes keep alive. */
export function mapKeys(fd: number, keyBytes: number, bound: number): Uint8Array[] {
  const keys: Uint8Array[] = [];
  let previous: Uint8Array | undefined;
  while (keys.length < bound) {
    const next = fixedBytes(keyBytes);
    const result = call(COMMAND.mapNextKey, attr().u32(0, fd).pointer(8, previous).pointer(16, next));
    if (result < 0) {
      if (errno() === ENOENT) break;
      throw new SystemError('bpf', 'map walk', errno());
    }
    keys.push(next);
    previous = next;
  }
  return keys;
}

/** A copy at a fixed address, unless it is at one already. */
function stable(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength === bytes.buffer.byteLength) return bytes;
  const copy = fixedBytes(bytes.length);
  copy.set(bytes);
  return copy;
}

export interface MapInfo {
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly entries: number;
}
export function mapInfo(fd: number): MapInfo {
  const info = objectInfo(fd, 'map info');
  return { keyBytes: info.getUint32(8, LITTLE), valueBytes: info.getUint32(12, LITTLE), entries: info.getUint32(16, LITTLE) };
}
function objectInfo(fd: number, about: string): DataView {
  const info = new Struct(256);
  must(COMMAND.info, attr().u32(0, fd).u32(4, info.length).pointer(8, info), about);
  return info.cells;
}

/** The memory of a pinned array map that was made mappable: `entries` cells of `stride` bytes. */
export interface Cells {
  readonly buffer: ArrayBuffer;
  readonly stride: number;
  readonly entries: number;
}
/** Stays mapped for the life of the process: there is one per map, and other threads may use it. */
export function mapCells(pinPath: string): Cells {
  const fd = objectGet(pinPath);
  try {
    const { valueBytes, entries } = mapInfo(fd);
    const stride = (valueBytes + 7) & ~7;
    const bytes = stride * entries;
    return { buffer: view(mustMap(0, bytes, MAP_SHARED, fd, pinPath), bytes), stride, entries };
  } finally {
    close(fd);
  }
}

let cpus = 0;
/** Slots of a per-CPU value. */
export function possibleCpus(): number {
  if (cpus === 0) {
    const last = /(\d+)\s*$/.exec(readFileSync('/sys/devices/system/cpu/possible', 'utf8'));
    if (last === null) throw new Error('possible CPUs: /sys/devices/system/cpu/possible not understood');
    cpus = Number(last[1]) + 1;
  }
  return cpus;
}

// ---------------------------------------------------------------------------------------- pins

const cString = (text: string): Uint8Array => {
  const bytes = Buffer.from(`${text}\0`, 'utf8');
  const fixed = fixedBytes(bytes.length);
  fixed.set(bytes);
  return fixed;
};
export function objectPin(fd: number, path: string): void {
  const name = cString(path);
  must(COMMAND.pin, attr().pointer(0, name).u32(8, fd), `pin ${path}`);
}
/** A descriptor of what is pinned there. */
export function objectGet(path: string): number {
  const name = cString(path);
  return must(COMMAND.get, attr().pointer(0, name), `open ${path}`);
}

// --------------------------------------------------------------------------------------- links

export interface LinkInfo {
  readonly programId: number;
  /** 0 once the device is gone. */
  readonly ifindex: number;
  readonly attachType: number;
}
/** tcx. `first`: before the programs of others; otherwise after them. */
export function linkCreate(programFd: number, ifindex: number, attachType: number, first: boolean): number {
  const block = attr().u32(0, programFd).u32(4, ifindex).u32(8, attachType).u32(12, first ? BEFORE : 0);
  return must(COMMAND.linkCreate, block, `tcx link at device ${ifindex}`);
}
export function linkUpdate(linkFd: number, programFd: number): void {
  must(COMMAND.linkUpdate, attr().u32(0, linkFd).u32(4, programFd), 'link update');
}
export function linkDetach(linkFd: number): void {
  must(COMMAND.linkDetach, attr().u32(0, linkFd), 'link detach');
}
export function linkInfo(linkFd: number): LinkInfo {
  const info = objectInfo(linkFd, 'link info');
  const tcx = info.getUint32(0, LITTLE) === LINK_TYPE_TCX;
  return {
    programId: info.getUint32(8, LITTLE),
    ifindex: tcx ? info.getUint32(16, LITTLE) : 0,
    attachType: tcx ? info.getUint32(20, LITTLE) : 0,
  };
}
export const programId = (programFd: number): number => objectInfo(programFd, 'program info').getUint32(4, LITTLE);

/** Its name, by id; empty where it is gone. */
export function programName(id: number): string {
  const fd = call(COMMAND.programById, attr().u32(0, id));
  if (fd < 0) return '';
  const info = objectInfo(fd, 'program info');
  close(fd);
  return Buffer.from(info.buffer, 64, 16).toString('latin1').replace(/\0.*$/s, '');
}

// ------------------------------------------------------------------------------------ test runs

/** Offsets of `struct __sk_buff` that a test run takes in and gives back. */
const SKB = { bytes: 192, mark: 8, ingressIfindex: 36, ifindex: 40 } as const;

export interface TestRun {
  readonly answer: number;
  readonly mark: number;
  /** The frame afterwards; a tag that the program set beside it is not in it. */
  readonly frame: Uint8Array;
}
/** More than any program here puts in front of a frame. */
const GROWS_BYTES_MAX = 64;
/** Runs a program once over `frame` as if at device `ifindex`, received at `ingressIfindex`. */
export function testRun(
  programFd: number, frame: Uint8Array, ifindex: number, ingressIfindex: number, mark: number,
): TestRun {
  const into = new Struct(SKB.bytes).u32(SKB.mark, mark).u32(SKB.ingressIfindex, ingressIfindex).u32(SKB.ifindex, ifindex);
  const out = new Struct(SKB.bytes);
  const data = stable(frame);
  const after = fixedBytes(data.length + GROWS_BYTES_MAX);
  const block = attr().u32(0, programFd).u32(8, data.length).pointer(16, data).u32(12, after.length).pointer(24, after)
    .u32(40, into.length).u32(44, out.length).pointer(48, into).pointer(56, out);
  must(COMMAND.testRun, block, 'test run');
  return { answer: block.read32(4) | 0, mark: out.read32(SKB.mark), frame: after.subarray(0, block.read32(12)) };
}
