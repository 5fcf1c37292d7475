/**
 * Memory outside JavaScript's heap: maps of guest RAM files, and the C library's compare and copy
 * over them. The one place of the engine that handles addresses.
 *
 * A `Memory` is a map with its length; every access is checked against it, so a wrong offset is an
 * error and never a signal. A RAM file is never cut short while it is mapped (QEMU keeps its size);
 * who cuts it ends this process with SIGBUS.
 *
 * Limits: Linux, 64-bit. Every call is synchronous: for worker threads.
 */
import koffi from 'koffi';
import { closeSync, fstatSync, openSync } from 'node:fs';

const libc = koffi.load('libc.so.6');
type Call2 = (a: number, b: number) => number;
type Call3 = (a: number, b: number, c: number) => number;
type Call6 = (a: number, b: number, c: number, d: number, e: number, f: number) => number;
const mmap: Call6 = libc.func('mmap', 'uintptr_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'long']);
const munmap: Call2 = libc.func('munmap', 'int', ['uintptr_t', 'size_t']);
const memcmp: Call3 = libc.func('memcmp', 'int', ['uintptr_t', 'uintptr_t', 'size_t']);
const memcpy: Call3 = libc.func('memcpy', 'uintptr_t', ['uintptr_t', 'uintptr_t', 'size_t']);
const lseek: Call3 = libc.func('lseek', 'long', ['int', 'long', 'int']);
const flock: Call2 = libc.func('flock', 'int', ['int', 'int']);

const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
const LOCK_EX_NB = 2 | 4;

export class MemoryError extends Error {
  override readonly name = 'MemoryError';
}
const failed = (call: string, about: string): MemoryError => new MemoryError(`${call} ${about}: errno ${koffi.errno()}`);

export interface Extent {
  readonly at: number;
  readonly bytes: number;
}

const ZERO_BYTES = 65_536;
let zeros: Memory | undefined;

export class Memory {
  readonly bytes: number;
  private readonly address: number;
  private readonly fd: number | undefined;
  private readonly about: string;
  private mapped = true;

  private constructor(address: number, bytes: number, fd: number | undefined, about: string) {
    this.address = address;
    this.bytes = bytes;
    this.fd = fd;
    this.about = about;
  }

  /** Zeros, backed by the kernel only where they are touched. */
  static anonymous(bytes: number): Memory {
    return Memory.map(bytes, MAP_PRIVATE_ANONYMOUS, undefined, 'anonymous memory');
  }

  /** The file itself, not a copy. It must be at least that long. */
  static file(path: string, bytes: number): Memory {
    const fd = openSync(path, 'r+');
    try {
      const { size } = fstatSync(fd);
      if (size < bytes) throw new MemoryError(`${path} has ${size} bytes where ${bytes} are expected: is it the RAM of this guest?`);
      return Memory.map(bytes, MAP_SHARED, fd, path);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private static map(bytes: number, flags: number, fd: number | undefined, about: string): Memory {
    const address = mmap(0, bytes, PROT_READ_WRITE, flags, fd ?? -1, 0);
    // MAP_FAILED is the highest address, beyond what a double carries exactly.
    if (address >= 2 ** 63) throw failed('mmap', about);
    return new Memory(address, bytes, fd, about);
  }

  /** True when both hold the same there. */
  isSame(other: Memory, at: number, bytes: number): boolean {
    return memcmp(this.place(at, bytes), other.place(at, bytes), bytes) === 0;
  }

  isZero(at: number, bytes: number): boolean {
    if (bytes > ZERO_BYTES) throw new RangeError(`${bytes} bytes at once: at most ${ZERO_BYTES}`);
    zeros ??= Memory.anonymous(ZERO_BYTES);
    return memcmp(this.place(at, bytes), zeros.address, bytes) === 0;
  }

  copyFrom(other: Memory, at: number, bytes: number): void {
    memcpy(this.place(at, bytes), other.place(at, bytes), bytes);
  }

  /** A view without a copy. Let go of it before `unmap`. */
  view(at: number, bytes: number): Uint8Array {
    return new Uint8Array(koffi.view(BigInt(this.place(at, bytes)), bytes));
  }

  /**
   * Where the file has pages: the rest was never written and reads as zeros. To read a hole through
   * the map would make the file larger.
   */
  extents(): Extent[] {
    if (this.fd === undefined) return [{ at: 0, bytes: this.bytes }];
    const found: Extent[] = [];
    for (let end = 0; end < this.bytes; ) {
      const at = lseek(this.fd, end, SEEK_DATA);
      if (at < 0 && koffi.errno() === ENXIO) break;
      end = at < 0 ? at : lseek(this.fd, at, SEEK_HOLE);
      if (end < 0) throw failed('lseek', this.about);
      end = Math.min(end, this.bytes);
      if (end > at) found.push({ at, bytes: end - at });
    }
    return found;
  }

  unmap(): void {
    if (!this.mapped) return;
    this.mapped = false;
    munmap(this.address, this.bytes);
    if (this.fd !== undefined) closeSync(this.fd);
  }

  private place(at: number, bytes: number): number {
    if (!this.mapped || at < 0 || bytes < 0 || at + bytes > this.bytes) throw new MemoryError(`${at}+${bytes} is outside of ${this.about}`);
    return this.address + at;
  }
}

/** Takes the lock of an open file for this process's life; false when another has it. */
export function lockFile(fd: number): boolean {
  return flock(fd, LOCK_EX_NB) === 0;
}
