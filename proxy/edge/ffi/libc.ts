/**
 * The C library as the edge uses it: one declaration a call, numbers in, numbers out.
 *
 * Addresses are plain numbers: user space ends below 2^47 on the machines we run on, so a double
 * carries them exactly, and a hot call allocates nothing. A call that fails returns -1 (or null
 * for maps) and `errno()` says why; `must` turns that into an error with the call's name.
 *
 * `view` lays an ArrayBuffer over foreign memory without a copy. It stays valid only while the
 * memory is mapped: touching it after `munmap` ends the process with SIGSEGV, so whoever unmaps
 * first lets go of every view (packet-socket.ts is the only place that does both).
 */
import { readdirSync } from 'node:fs';
import koffi from 'koffi';

const lib = koffi.load('libc.so.6');

type Call1 = (a: number) => number;
type Call2 = (a: number, b: number) => number;
type Call3 = (a: number, b: number, c: number) => number;
type Call4 = (a: number, b: number, c: number, d: number) => number;
type Call5 = (a: number, b: number, c: number, d: number, e: number) => number;
type Call6 = (a: number, b: number, c: number, d: number, e: number, f: number) => number;

const int = 'int';
const address = 'uintptr_t';

export const socket: Call3 = lib.func('socket', int, [int, int, int]);
export const close: Call1 = lib.func('close', int, [int]);
export const mmap: Call6 = lib.func('mmap', address, [address, 'size_t', int, int, int, 'long']);
export const munmap: Call2 = lib.func('munmap', int, [address, 'size_t']);
export const sendmmsg: Call4 = lib.func('sendmmsg', int, [int, address, 'unsigned int', int]);
export const epollCreate: Call1 = lib.func('epoll_create1', int, [int]);
export const epollWait: Call4 = lib.func('epoll_wait', int, [int, address, int, int]);
export const eventfd: Call2 = lib.func('eventfd', int, ['unsigned int', int]);
export const clockGettime: Call2 = lib.func('clock_gettime', int, [int, address]);

const bindRaw: (fd: number, name: Uint8Array, length: number) => number = lib.func('bind', int, [int, 'const uint8_t *', int]);
const setsockoptRaw: (fd: number, level: number, name: number, value: Uint8Array, length: number) => number =
  lib.func('setsockopt', int, [int, int, int, 'const uint8_t *', int]);
const getsockoptRaw: Call5 = lib.func('getsockopt', int, [int, int, int, address, address]);
const epollCtlRaw: (ep: number, op: number, fd: number, event: Uint8Array | null) => number =
  lib.func('epoll_ctl', int, [int, int, int, 'const uint8_t *']);
const writeRaw: (fd: number, bytes: Uint8Array, length: number) => number = lib.func('write', 'long', [int, 'const uint8_t *', 'size_t']);
const ifNametoindexRaw: (name: string) => number = lib.func('if_nametoindex', 'unsigned int', ['str']);
const schedSetaffinityRaw: (pid: number, size: number, mask: Uint8Array) => number =
  lib.func('sched_setaffinity', int, [int, 'size_t', 'const uint8_t *']);
const setpriorityRaw: Call3 = lib.func('setpriority', int, [int, int, int]);
const strerrorRaw: (code: number) => string = lib.func('strerror', 'str', [int]);

export const PROT_READ_WRITE = 3;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const EAGAIN = 11;
export const EINTR = 4;
export const ENOENT = 2;
export const ENOBUFS = 105;
export const MSG_DONTWAIT = 0x40;
export const EPOLLIN = 0x1;
export const EPOLLOUT = 0x4;
export const EPOLLET = 0x8000_0000;
export const CLOCK_REALTIME = 0;

export const errno = (): number => koffi.errno();

/** The call failed: its name, what it was about, and the system's reason. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly errno: number;
  constructor(call: string, about: string, code: number) {
    super(`${call} ${about}: ${strerrorRaw(code)} (errno ${code})`);
    this.errno = code;
  }
}

/** The result of a call that must not fail. */
export function must(result: number, call: string, about: string): number {
  if (result < 0) throw new SystemError(call, about, errno());
  return result;
}

/** Maps memory; the result is its address. MAP_FAILED is all ones. */
export function mustMap(at: number, bytes: number, flags: number, fd: number, about: string): number {
  const result = mmap(at, bytes, PROT_READ_WRITE, flags, fd, 0);
  if (!Number.isSafeInteger(result)) throw new SystemError('mmap', about, errno());
  return result;
}

export const view = (at: number, bytes: number): ArrayBuffer => koffi.view(at, bytes);

/** Memory of our own for arrays the kernel reads: its address, and a view of it. Zeroed. */
export interface NativeBlock {
  readonly at: number;
  readonly bytes: number;
  readonly buffer: ArrayBuffer;
}
export function nativeBlock(bytes: number, about: string): NativeBlock {
  const at = mustMap(0, bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, about);
  return { at, bytes, buffer: view(at, bytes) };
}
/** The caller holds no view of the block any more. */
export const freeBlock = (block: NativeBlock): void => void munmap(block.at, block.bytes);

const asBytes = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);

/** An option that is an int or a struct of ints. */
export function setOption(fd: number, level: number, name: number, values: readonly number[], about: string): void {
  const bytes = asBytes(Uint32Array.from(values));
  must(setsockoptRaw(fd, level, name, bytes, bytes.length), 'setsockopt', about);
}

/** Reads an option into native memory at `value`; its length in bytes stands at `length`. */
export const getOption = (fd: number, level: number, name: number, value: number, length: number): number =>
  getsockoptRaw(fd, level, name, value, length);

export const bind = (fd: number, name: Uint8Array, about: string): void =>
  void must(bindRaw(fd, name, name.length), 'bind', about);

export function ifNametoindex(name: string): number {
  const index = ifNametoindexRaw(name);
  if (index === 0) throw new SystemError('if_nametoindex', name, errno());
  return index;
}

/** struct epoll_event is packed on x86-64 and padded elsewhere. */
export const EPOLL_EVENT_BYTES = process.arch === 'x64' ? 12 : 16;

export function epollAdd(ep: number, fd: number, events: number): void {
  const event = new Uint8Array(EPOLL_EVENT_BYTES);
  const cells = new DataView(event.buffer);
  cells.setUint32(0, events >>> 0, true);
  cells.setUint32(EPOLL_EVENT_BYTES - 8, fd, true);
  must(epollCtlRaw(ep, 1, fd, event), 'epoll_ctl', `add ${fd}`);
}

const bell = asBytes(Uint32Array.of(1, 0));
/** Adds 1 to an eventfd. It can only fail when the counter is full, and then the bell is ringing. */
export const ring = (fd: number): void => void writeRaw(fd, bell, 8);

/** Nice value of all threads there are, the pool's too: syncs wait for one. Without CAP_SYS_NICE it stays what it was: slower, not wrong. */
export const maybeHurryAll = (nice: number): boolean =>
  readdirSync('/proc/self/task').every((thread) => setpriorityRaw(0, Number(thread), nice) === 0);
/** The same of the calling thread alone. */
export const maybeHurry = (nice: number): boolean => setpriorityRaw(0, 0, nice) === 0;

/** Keeps the calling thread on one CPU. */
export function pinThread(cpu: number): void {
  const mask = new Uint8Array(128);
  mask[cpu >> 3] = 1 << (cpu & 7);
  must(schedSetaffinityRaw(0, mask.length, mask), 'sched_setaffinity', `cpu ${cpu}`);
}
