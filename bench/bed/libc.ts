/**
 * The libc calls of the test bed: raw sockets, taps, namespaces and the wall clock.
 *
 * The bed measures Sluice from outside, so it shares no code with it: this binding is its own.
 * Native memory (message vectors, receive buffers) is mapped once per port, its address known, and
 * never unmapped before the process ends: a view over unmapped memory would kill it.
 *
 * Times are microseconds of the wall clock as a double (resolution 0.25 us until the year 2255):
 * the kernel stamps captured frames with the same clock, so the two compare directly.
 *
 * Limits: Linux with 64-bit little-endian structs (x86-64, arm64). Every call is synchronous.
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

const sys = {
  open: libc.func('int open(const char *path, int flags)') as (path: string, flags: number) => number,
  close: libc.func('int close(int fd)') as (fd: number) => number,
  read: libc.func('long read(int fd, void *to, size_t n)') as (fd: number, to: bigint, bytes: number) => number,
  write: libc.func('long write(int fd, const void *from, size_t n)') as (fd: number, from: Uint8Array, bytes: number) => number,
  socket: libc.func('int socket(int f, int t, int p)') as (family: number, type: number, protocol: number) => number,
  bind: libc.func('int bind(int fd, const void *a, uint32_t n)') as (fd: number, address: Uint8Array, bytes: number) => number,
  send: libc.func('long send(int fd, const void *from, size_t n, int flags)') as (fd: number, from: Uint8Array, bytes: number, flags: number) => number,
  recvmmsg: libc.func('int recvmmsg(int fd, void *v, uint32_t n, int flags, void *t)') as (fd: number, vector: bigint, n: number, flags: number, timeout: null) => number,
  sendmmsg: libc.func('int sendmmsg(int fd, void *v, uint32_t n, int flags)') as (fd: number, vector: bigint, n: number, flags: number) => number,
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, const void *v, uint32_t n)') as (fd: number, level: number, name: number, value: Uint8Array, bytes: number) => number,
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, void *v, void *n)') as (fd: number, level: number, name: number, value: Uint8Array, bytes: Uint8Array) => number,
  ioctl: libc.func('int ioctl(int fd, unsigned long request, void *argument)') as (fd: number, request: number, argument: Uint8Array | null) => number,
  ioctlValue: libc.func('ioctl', 'int', ['int', 'unsigned long', 'unsigned long']) as (
    fd: number,
    request: number,
    argument: number,
  ) => number,
  setns: libc.func('int setns(int fd, int type)') as (fd: number, type: number) => number,
  ifNametoindex: libc.func('if_nametoindex', 'uint32', ['str']) as (name: string) => number,
  clockGettime: libc.func('int clock_gettime(int c, void *to)') as (clock: number, to: Uint8Array) => number,
};
const mmap = libc.func('void *mmap(void *a, size_t n, int prot, int flags, int fd, int64_t o)') as (
  address: null,
  bytes: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
) => bigint;

export const { read, write, recvmmsg, sendmmsg, send, ifNametoindex } = sys;

export const EAGAIN = 11;
export const ENOBUFS = 105;
export const MSG_DONTWAIT = 0x40;

/** An operating error of a libc call: the call, its errno. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly errno: number;
  constructor(call: string, errno: number) {
    super(`${call}: errno ${errno}`);
    this.errno = errno;
  }
}

export const errno = (): number => koffi.errno();

/** The result of a call, or SystemError where it is negative. */
export function must(call: string, result: number): number {
  if (result < 0) throw new SystemError(call, koffi.errno());
  return result;
}

const clock = new BigInt64Array(2);
const clockBytes = new Uint8Array(clock.buffer);

/** Wall clock, microseconds. */
export function nowUs(): number {
  sys.clockGettime(0, clockBytes);
  return Number(clock[0]) * 1e6 + Number(clock[1]) / 1e3;
}

/** Zeroed memory at a known address, for the life of the process. */
export interface NativeMemory {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

export function nativeMemory(bytes: number): NativeMemory {
  const address = mmap(null, bytes, 3 /* READ|WRITE */, 0x22 /* PRIVATE|ANONYMOUS */, -1, 0);
  if (address === 0xffff_ffff_ffff_ffffn || address === 0n) throw new SystemError('mmap', koffi.errno());
  const buffer = koffi.view(address, bytes);
  return { address, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

export const close = (fd: number): void => void sys.close(fd);
export const open = (path: string, flags: number): number => must(`open ${path}`, sys.open(path, flags));
export const socket = (family: number, type: number, protocol: number): number =>
  must('socket', sys.socket(family, type, protocol));
export const bindSocket = (fd: number, address: Uint8Array): number =>
  must('bind', sys.bind(fd, address, address.length));

export function setOption(fd: number, level: number, name: number, value: number | Uint8Array): void {
  const bytes = typeof value === 'number' ? new Uint8Array(Int32Array.of(value).buffer) : value;
  must(`setsockopt ${level}/${name}`, sys.setsockopt(fd, level, name, bytes, bytes.length));
}

export function getOption(fd: number, level: number, name: number, bytes: number): DataView {
  const value = new Uint8Array(bytes);
  const length = new Uint8Array(Int32Array.of(bytes).buffer);
  must(`getsockopt ${level}/${name}`, sys.getsockopt(fd, level, name, value, length));
  return new DataView(value.buffer);
}

export const ioctl = (fd: number, request: number, argument: Uint8Array): number =>
  must(`ioctl ${request.toString(16)}`, sys.ioctl(fd, request, argument));
export const ioctlValue = (fd: number, request: number, argument: number): number =>
  must(`ioctl ${request.toString(16)}`, sys.ioctlValue(fd, request, argument));

const CLONE_NEWNET = 0x4000_0000;
const O_CLOEXEC = 0x80000;

/**
 * Runs `job` in a network namespace and comes back. Sockets and taps opened there stay there.
 * `job` must be synchronous: the namespace is the thread's.
 */
export function inNamespace<T>(path: string, job: () => T): T {
  const home = open('/proc/self/ns/net', O_CLOEXEC);
  const there = open(path, O_CLOEXEC);
  try {
    must('setns', sys.setns(there, CLONE_NEWNET));
    return job();
  } finally {
    must('setns back', sys.setns(home, CLONE_NEWNET));
    close(there);
    close(home);
  }
}
