/**
 * Room for a journal: a file of a fixed size, full of zeros that are on disk, so that lines which are
 * written into it later need no new space and their sync no metadata.
 */
import { close, fsync, ftruncateSync, open, write } from 'node:fs';
import { promisify } from 'node:util';

const aOpen = promisify(open);
const aClose = promisify(close);
const aSync = promisify(fsync);

/** Zeros are written in pieces of this many bytes, each on disk before the next: a sync of the present journal waits behind one of them at most. */
const PIECE_BYTES = 1024 * 1024;

export interface Room {
  readonly fd: number;
  readonly bytes: number;
}

/** Zeros, written and on disk: from here on its space is its own. Throws where there is none, and leaves nothing in it. */
export async function makeRoom(path: string, bytes: number): Promise<Room> {
  const fd = await aOpen(path, 'w', 0o600);
  try {
    const zeros = Buffer.alloc(Math.min(bytes, PIECE_BYTES));
    for (let at = 0; at < bytes; at += zeros.length) {
      await writeAll(fd, zeros.subarray(0, bytes - at), at);
      await aSync(fd);
    }
    return { fd, bytes };
  } catch (error) {
    ftruncateSync(fd, 0); // give back what a full disk had room for
    await aClose(fd);
    throw error;
  }
}

export async function writeAll(fd: number, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += await writeSome(fd, bytes.subarray(done), at + done);
}

const writeSome = (fd: number, bytes: Buffer, at: number): Promise<number> =>
  new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, at, (error, written) => {
      if (error === null) resolve(written);
      else reject(error);
    });
  });

/** So that a name that was just given outlives the machine. */
export async function syncDirectory(path: string): Promise<void> {
  const fd = await aOpen(path, 'r');
  try {
    await aSync(fd);
  } finally {
    await aClose(fd);
  }
}
