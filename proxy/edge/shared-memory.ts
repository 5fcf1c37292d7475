/**
 * Memory that two processes share and that outlives both: a file on a memory file system, mapped.
 *
 *   daemon ── store ──► │ layout │ part │ part │ … ◄── load ── child        one aligned word is never torn
 *
 * It begins with the number of its layout: a file that another version left is refused, and neither
 * grown, cut nor read, because groups may be protected by what is in it.
 *
 * What is in the file when it is opened is what was left there. It is never unmapped: the views
 * live as long as the process. Removing the file takes it from later openers only.
 *
 * Who can write it can release frames, and everybody may make files below /dev/shm: one that is not
 * ours alone is refused. So is one that another daemon lives on (`claimMemory`): both would write
 * the same cells.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { EdgeError } from '../ports.ts';
import { lockExclusively } from './ffi/flock.ts';
import { MAP_SHARED, mustMap, view } from './ffi/libc.ts';

const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;

/** `make`: the file is made where it is missing. `join`: it must be there. */
export type Entry = 'make' | 'join';

/** Throws EdgeError for a link, or a file that others own or may open. */
function openOwn(path: string, entry: Entry): number {
  let fd = -1;
  try {
    fd = openSync(path, O_RDWR | O_NOFOLLOW | (entry === 'make' ? O_CREAT : 0), 0o600);
    const { uid, mode, nlink } = fstatSync(fd);
    const isFile = (mode & constants.S_IFMT) === constants.S_IFREG;
    if (isFile && uid === process.geteuid?.() && (mode & 0o077) === 0 && nlink === 1) return fd;
  } catch (error) {
    throw notOurs(path, error);
  }
  closeSync(fd);
  throw notOurs(path);
}
const notOurs = (path: string, cause?: unknown): EdgeError =>
  new EdgeError('plane_down', `${path} is not a file of ours alone${cause instanceof Error ? ` (${cause.message})` : ''}`, 'find out who made it; when the VMs of all groups are stopped, remove it, or name another pcap.memory', cause);

/** One process at a time: until what it returns is closed, or the process ends. */
export function claimMemory(path: string): number {
  const fd = openOwn(path, 'make');
  if (lockExclusively(fd)) return fd;
  closeSync(fd);
  throw new EdgeError('plane_down', `${path} is in use by another sluiced`, 'give each daemon a pcap.memory of its own, or leave that setting out');
}

/** Before the first part: what the file is, and its layout's number. */
const HEADER_BYTES = 64;
const MAGIC = 'sluice';

const header = (layout: number): Buffer => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC, 'latin1');
  bytes.writeUInt32LE(layout, 8);
  return bytes;
};

/** Throws EdgeError for a file of another layout. */
function checkLayout(path: string, fd: number, bytes: number, layout: number): void {
  const found = Buffer.alloc(HEADER_BYTES);
  readSync(fd, found, 0, HEADER_BYTES, 0);
  const { size } = fstatSync(fd);
  if (found.equals(header(layout)) && size === bytes) return;
  const what = found.toString('latin1', 0, MAGIC.length) === MAGIC ? `layout ${found.readUInt32LE(8)} in ${size} bytes` : `${size} bytes of no known layout`;
  throw new EdgeError(
    'plane_down', `${path} was left by another version of sluiced (${what}; this one has layout ${layout} in ${bytes})`,
    'unprotect with the version that made it; or, when the VMs of all groups are stopped, remove it and protect again',
  );
}

/**
 * One buffer a part, `parts` bytes each (multiples of 8), one after the other in the file. Throws
 * where there is no room or no right.
 */
export function shareMemory(path: string, parts: readonly number[], entry: Entry, layout: number): ArrayBuffer[] {
  const bytes = parts.reduce((sum, part) => sum + part, HEADER_BYTES);
  const fd = openOwn(path, entry);
  try {
    if (entry === 'make' && fstatSync(fd).size === 0) {
      ftruncateSync(fd, bytes);
      writeSync(fd, header(layout), 0, HEADER_BYTES, 0);
    }
    checkLayout(path, fd, bytes, layout);
    let at = mustMap(0, bytes, MAP_SHARED, fd, path) + HEADER_BYTES;
    return parts.map((part) => {
      at += part;
      return view(at - part, part);
    });
  } finally {
    closeSync(fd);
  }
}

export const unshareMemory = (path: string): void => rmSync(path, { force: true });
