/**
 * Held frames as a pcapng capture (draft-ietf-opsawg-pcapng), a piece at a time.
 *
 *     section header │ interface per nic (port name, ns clock) │ enhanced packet per frame + comment
 *
 * Every block: type, total length, body, options, total length again; all padded to 32 bits, in the
 * byte order of the machine that reads the magic number (little-endian here).
 */
import type { HeldFrame, NicIndex, NicPlace } from '../ports.ts';

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_FRAME = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;
const OPT_COMMENT = 1;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_TSRESOL = 9;
const TSRESOL_NS = 9;

const padding = (length: number): number => -length & 3;

function option(code: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(4 + value.length + padding(value.length));
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt16LE(value.length, 2);
  bytes.set(value, 4);
  return bytes;
}
const text = (code: number, value: string): Buffer => option(code, Buffer.from(value, 'utf8'));
const END_OF_OPTIONS = Buffer.alloc(4);

function block(type: number, parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 12);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(length, 4);
  return Buffer.concat([head, ...parts, head.subarray(4)], length);
}

export function sectionBlock(application: string): Buffer {
  const body = Buffer.alloc(16, 0xff); // section length unknown = -1
  body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
  body.writeUInt16LE(1, 4);
  body.writeUInt16LE(0, 6);
  return block(BLOCK_SECTION, [body, text(SHB_USERAPPL, application), END_OF_OPTIONS]);
}

export function interfaceBlock(name: string): Buffer {
  const body = Buffer.alloc(8); // snaplen 0 = no limit: super-frames are longer than 64 KiB
  body.writeUInt16LE(LINKTYPE_ETHERNET, 0);
  return block(BLOCK_INTERFACE, [body, text(IF_NAME, name), option(IF_TSRESOL, Uint8Array.of(TSRESOL_NS)), END_OF_OPTIONS]);
}

interface Row {
  /** Of the interface. */
  readonly index: number;
  readonly frame: HeldFrame;
  /** ASCII. */
  readonly comment: string;
}
/** Around a frame: block type and length, body, option header, end of options, length again. */
const FRAME_OVERHEAD = 8 + 20 + 4 + 4 + 4;
const frameBlockBytes = ({ frame, comment }: Row): number =>
  FRAME_OVERHEAD + frame.bytes.length + padding(frame.bytes.length) + comment.length + padding(comment.length);

function writeFrame(into: Buffer, at: number, row: Row): number {
  const { index, frame: { arrivedNs, bytes, wireBytes }, comment } = row;
  const length = frameBlockBytes(row);
  into.writeUInt32LE(BLOCK_FRAME, at);
  into.writeUInt32LE(length, at + 4);
  into.writeUInt32LE(index, at + 8);
  into.writeUInt32LE(Number(arrivedNs >> 32n), at + 12);
  into.writeUInt32LE(Number(arrivedNs & 0xffffffffn), at + 16);
  into.writeUInt32LE(bytes.length, at + 20);
  into.writeUInt32LE(wireBytes, at + 24);
  into.set(bytes, at + 28);
  const option = at + 28 + bytes.length + padding(bytes.length);
  into.writeUInt16LE(OPT_COMMENT, option);
  into.writeUInt16LE(comment.length, option + 2);
  into.write(comment, option + 4, 'latin1');
  into.writeUInt32LE(length, at + length - 4);
  return at + length;
}

/** All in one buffer: a capture may have hundreds of thousands of small frames. */
function frameBlocks(rows: readonly Row[]): Buffer {
  const chunk = Buffer.alloc(rows.reduce((sum, row) => sum + frameBlockBytes(row), 0));
  let at = 0;
  for (const row of rows) at = writeFrame(chunk, at, row);
  return chunk;
}

/** `nowNs`: wall clock, to say how long each frame has been held. One chunk for each piece. */
export async function* heldCapture(
  nics: readonly NicPlace[], pieces: AsyncIterable<readonly HeldFrame[]>, nowNs: () => bigint, application: string,
): AsyncGenerator<Buffer, void, undefined> {
  const index = new Map<NicIndex, number>(nics.map(({ nic }, at) => [nic, at]));
  yield Buffer.concat([sectionBlock(application), ...nics.map(({ port }) => interfaceBlock(port))]);
  for await (const frames of pieces) {
    const now = nowNs();
    // A member may have left between the two looks: its frames still show, under the nic's number.
    const strangers = [...new Set(frames.map(({ nic }) => nic))].filter((nic) => !index.has(nic));
    for (const nic of strangers) index.set(nic, index.size);
    const rows = frames.map((frame): Row => ({ index: index.get(frame.nic) ?? 0, frame, comment: commentOf(frame, now) }));
    yield Buffer.concat([...strangers.map((nic) => interfaceBlock(`nic${nic}`)), frameBlocks(rows)]);
  }
}

function commentOf({ epoch, class: cls, arrivedNs }: HeldFrame, nowNs: bigint): string {
  const heldMs = Number((nowNs > arrivedNs ? nowNs - arrivedNs : 0n) / 1000n) / 1000;
  return `epoch ${epoch}, ${cls}, held ${heldMs.toFixed(3)} ms`;
}
