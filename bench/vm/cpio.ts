/**
 * An initramfs: a cpio archive in the kernel's "newc" format, written without a program and
 * without root, the same bytes for the same content.
 */

export interface ArchiveEntry {
  readonly path: string;
  readonly content?: Uint8Array;
  /** A character device's numbers. Without content and device: a directory. */
  readonly device?: readonly [major: number, minor: number];
  readonly executable?: boolean;
}

const DIRECTORY = 0o040755;
const CHARACTER = 0o020600;
const FILE = 0o100644;
const EXECUTABLE = 0o100755;

export function cpio(entries: readonly ArchiveEntry[]): Buffer {
  const parts = entries.flatMap((entry, i) => record(entry, i + 1));
  return Buffer.concat([...parts, ...record({ path: 'TRAILER!!!', content: new Uint8Array(0) }, 0)]);
}

function record(entry: ArchiveEntry, inode: number): Buffer[] {
  const content = Buffer.from(entry.content ?? []);
  const [major, minor] = entry.device ?? [0, 0];
  const name = Buffer.from(`${entry.path}\0`);
  const fields = [inode, modeOf(entry), 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [padded(Buffer.concat([header, name])), padded(content)];
}

function modeOf({ content, device, executable }: ArchiveEntry): number {
  if (device !== undefined) return CHARACTER;
  if (content === undefined) return DIRECTORY;
  return executable === true ? EXECUTABLE : FILE;
}

/** To the next multiple of four, as the format wants it of header and content. */
const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
