/**
 * Further calls of the C library that only set-up uses: netlink sends and receives, device
 * ioctls, mount. None of them is in the frames' way.
 */
import koffi from 'koffi';
import { SystemError, errno } from './libc.ts';
import { LITTLE, Struct } from './struct.ts';

const lib = koffi.load('libc.so.6');

/** Bytes sent or received, or -1 with `errno()`. */
export const send: (fd: number, bytes: Uint8Array, length: number, flags: number) => number =
  lib.func('send', 'long', ['int', 'uint8_t *', 'size_t', 'int']);
export const receive: (fd: number, bytes: Uint8Array, length: number, flags: number) => number =
  lib.func('recv', 'long', ['int', 'uint8_t *', 'size_t', 'int']);

const ioctlRaw: (fd: number, request: number, argument: Uint8Array) => number =
  lib.func('ioctl', 'int', ['int', 'unsigned long', 'uint8_t *']);
export function ioctl(fd: number, request: number, argument: Uint8Array, about: string): number {
  const result = ioctlRaw(fd, request, argument);
  if (result < 0) throw new SystemError('ioctl', about, errno());
  return result;
}

const mountRaw: (source: string, target: string, type: string, flags: number, data: null) => number =
  lib.func('mount', 'int', ['str', 'str', 'str', 'unsigned long', 'void *']);
export function mount(type: string, target: string): void {
  if (mountRaw(type, target, type, 0, null) < 0) throw new SystemError('mount', target, errno());
}

/**
 * Calls `listener` whenever `fd` has something to read. The handle must be kept: collected, it
 * stops in silence. It does not keep the process alive.
 */
export interface Poll {
  close(): void;
}
export function pollReadable(fd: number, listener: () => void): Poll {
  const handle = koffi.node.poll(fd, { readable: true }, () => listener());
  handle.unref();
  return handle;
}

const SOL_SOCKET = 1;
const MEMBARRIER: Readonly<Record<string, number>> = { x64: 324, arm64: 283, riscv64: 283, loong64: 283, ppc64: 365, s390x: 356, arm: 389 };
const MEMBARRIER_GLOBAL = 1;
const syscall = lib.func('syscall', 'long', ['long', 'int', 'unsigned int', 'int']);
type AsyncCall = (n: number, a: number, b: number, c: number, done: (error: unknown, result: number) => void) => void;
const syscallAsync = syscall.async as AsyncCall;

/**
 * Waits, without blocking this thread, until every CPU has left what it was doing in the kernel:
 * afterwards no program runs that began before. False where the kernel has no such call.
 */
export function membarrier(): Promise<boolean> {
  const n = MEMBARRIER[process.arch];
  if (n === undefined) return Promise.resolve(false);
  return new Promise((resolve) => syscallAsync(n, MEMBARRIER_GLOBAL, 0, 0, (error, result) => resolve(!error && result === 0)));
}

const prctlRaw: (option: number, a: number, b: number, c: number, d: number) => number =
  lib.func('prctl', 'int', ['int', 'unsigned long', 'unsigned long', 'unsigned long', 'unsigned long']);
const PR_SET_PDEATHSIG = 1;
/** This process is sent `signal` when the thread that started it ends. */
export function dieWithParent(signal: number): void {
  if (prctlRaw(PR_SET_PDEATHSIG, signal, 0, 0, 0) < 0) throw new SystemError('prctl', 'PR_SET_PDEATHSIG', errno());
}

const setsockoptRaw: (fd: number, level: number, name: number, value: Uint8Array, length: number) => number =
  lib.func('setsockopt', 'int', ['int', 'int', 'int', 'uint8_t *', 'unsigned int']);
const SO_ATTACH_FILTER = 26;
/** What this socket hears: a classic BPF program, a struct sock_filter of four numbers an instruction. */
export function attachFilter(fd: number, program: readonly (readonly [code: number, jumpTrue: number, jumpFalse: number, value: number])[]): void {
  const code = new Struct(8 * program.length);
  program.forEach(([op, jumpTrue, jumpFalse, value], i) => {
    code.cells.setUint16(8 * i, op, LITTLE);
    code.cells.setUint8(8 * i + 2, jumpTrue);
    code.cells.setUint8(8 * i + 3, jumpFalse);
    code.u32(8 * i + 4, value);
  });
  const fprog = new Struct(16).pointer(8, code);
  fprog.cells.setUint16(0, program.length, LITTLE);
  if (setsockoptRaw(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog, fprog.length) < 0) throw new SystemError('setsockopt', 'SO_ATTACH_FILTER', errno());
}

const getsockoptRaw: (fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number =
  lib.func('getsockopt', 'int', ['int', 'int', 'int', 'uint8_t *', 'uint8_t *']);
const SO_PEERCRED = 17;
/** Of whoever connected this unix socket, as they were then; undefined for any other socket. */
export function peerCredentials(fd: number): { readonly pid: number; readonly uid: number } | undefined {
  const value = new Uint8Array(12);
  const length = new Uint8Array(new Uint32Array([value.length]).buffer);
  if (getsockoptRaw(fd, SOL_SOCKET, SO_PEERCRED, value, length) < 0) return undefined;
  const [pid = 0, uid = 0] = new Int32Array(value.buffer);
  return pid === 0 ? undefined : { pid, uid: uid >>> 0 };
}

const connectRaw: (fd: number, address: Uint8Array, length: number) => number = lib.func('connect', 'int', ['int', 'const uint8_t *', 'unsigned int']);
const AF_UNIX = 1;
const PATH_BYTES_MAX = 107;
/** "@name" is a name without a file, as service managers write it. */
export function connectUnix(fd: number, path: string): boolean {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (name.length > PATH_BYTES_MAX) return false;
  const address = new Uint8Array(2 + name.length + 1); // a path ends with a zero byte, an abstract name with its length
  address[0] = AF_UNIX;
  address.set(name, 2);
  return connectRaw(fd, address, 2 + name.length + (path.startsWith('@') ? 0 : 1)) === 0;
}
