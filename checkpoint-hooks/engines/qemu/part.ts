/**
 * One member's part of a checkpoint, as a file.
 *
 *     0        8       12      16     20      24       28 … 64   then                         then
 *     SLUICEP1 state   pages   ramKiB  crc32  sequence zeros     state | page numbers (u32)   4096 bytes each
 *
 * `state` is what QEMU wrote of the machine without its RAM. `sequence` is the checkpoint it belongs
 * to: a part of another one, however it came here, is not restored with the rest. The checksum covers all behind the
 * header. Little-endian; the file is exactly as long as its header says, or it is damaged.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writevSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { PAGE_BYTES } from './pages.ts';

const MAGIC = 'SLUICEP1';
const HEADER_BYTES = 64;
/** Pieces in one writev: the kernel's bound is 1024. */
const PIECES_MAX = 512;

/** A part or a checkpoint that is not what it should be. Nothing is restored from it. */
export class Damaged extends Error {
  override readonly name = 'Damaged';
}

/** What a part is of. */
export interface PartOf {
  readonly ramBytes: number;
  readonly sequence: number;
}

/** Where one is, or shall be. */
export interface PartPath {
  readonly path: string;
  readonly sequence: number;
}

export interface Part {
  readonly state: Uint8Array;
  readonly pages: Uint32Array;
  /** The pages' bytes in the order of `pages`. */
  readonly bytes: Uint8Array;
}

const bytesOf = (numbers: Uint32Array): Uint8Array => new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);

/** Written and on the disk when it returns. `pieces`: the pages' bytes, in any number of views. */
export function writePart(path: string, of: PartOf, state: Uint8Array, pages: Uint32Array, pieces: readonly Uint8Array[]): number {
  // An empty piece has no address, and zlib takes that for the wish to begin its checksum again.
  const body = [state, bytesOf(pages), ...pieces].filter(({ length }) => length > 0);
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC);
  header.writeUInt32LE(state.length, 8);
  header.writeUInt32LE(pages.length, 12);
  header.writeUInt32LE(of.ramBytes / 1024, 16);
  header.writeUInt32LE(body.reduce((crc, piece) => crc32(piece, crc), 0), 20);
  header.writeUInt32LE(of.sequence, 24);
  const fd = openSync(path, 'wx', 0o600);
  try {
    const bytes = writeAll(fd, [header, ...body]);
    fsyncSync(fd);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function writeAll(fd: number, pieces: readonly Uint8Array[]): number {
  let total = 0;
  for (let at = 0; at < pieces.length; at += PIECES_MAX) {
    const some = pieces.slice(at, at + PIECES_MAX);
    const want = some.reduce((sum, { length }) => sum + length, 0);
    const wrote = writevSync(fd, some);
    if (wrote !== want) throw new Error(`the disk took ${wrote} of ${want} bytes: is it full?`);
    total += wrote;
  }
  return total;
}

export function readPart(path: string, { ramBytes, sequence }: PartOf): Part {
  const file = readFileSync(path);
  if (file.length < HEADER_BYTES || file.toString('latin1', 0, 8) !== MAGIC) throw new Damaged(`${path} is no part of a checkpoint`);
  const [stateBytes, pageCount, ramKiB, crc, of] = [8, 12, 16, 20, 24].map((at) => file.readUInt32LE(at)) as [number, number, number, number, number];
  if (of !== sequence) throw new Damaged(`${path} is a part of checkpoint ${of}, not ${sequence}: the members would come up at different epochs`);
  if (ramKiB * 1024 !== ramBytes) throw new Damaged(`${path} is of a guest with ${ramKiB} KiB, not ${ramBytes / 1024}`);
  const pagesAt = HEADER_BYTES + stateBytes;
  const bytesAt = pagesAt + pageCount * 4;
  if (file.length !== bytesAt + pageCount * PAGE_BYTES) throw new Damaged(`${path} has ${file.length} bytes, its header says otherwise`);
  if (crc32(file.subarray(HEADER_BYTES)) !== crc) throw new Damaged(`${path} does not match its checksum`);
  const pages = new Uint32Array(pageCount);
  bytesOf(pages).set(file.subarray(pagesAt, bytesAt));
  if (pages.some((page) => page * PAGE_BYTES >= ramBytes)) throw new Damaged(`${path} has pages outside of the guest`);
  return { state: file.subarray(HEADER_BYTES, pagesAt), pages, bytes: file.subarray(bytesAt) };
}
