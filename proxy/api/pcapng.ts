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

export function frameBlock(index: number, atNs: bigint, bytes: Uint8Array, wireBytes: number, comment: string): Buffer {
  const body = Buffer.alloc(20);
  body.writeUInt32LE(index, 0);
  body.writeUInt32LE(Number(atNs >> 32n), 4);
  body.writeUInt32LE(Number(atNs & 0xffffffffn), 8);
  body.writeUInt32LE(bytes.length, 12);
  body.writeUInt32LE(wireBytes, 16);
  return block(BLOCK_FRAME, [body, bytes, Buffer.alloc(padding(bytes.length)), text(OPT_COMMENT, comment), END_OF_OPTIONS]);
}

/** `nowNs`: wall clock of the dump, to say how long each frame has been held. */
export function* heldCapture(nics: readonly NicPlace[], frames: readonly HeldFrame[], nowNs: bigint, application: string): Generator<Buffer> {
  yield sectionBlock(application);
  const index = new Map<NicIndex, number>();
  for (const [at, { nic, port }] of nics.entries()) {
    index.set(nic, at);
    yield interfaceBlock(port);
  }
  for (const frame of frames) {
    let at = index.get(frame.nic);
    if (at === undefined) {
      // The member left between the two looks: its frames still show, under the nic's number.
      at = index.size;
      index.set(frame.nic, at);
      yield interfaceBlock(`nic${frame.nic}`);
    }
    const heldMs = Number((nowNs - frame.arrivedNs) / 1000n) / 1000;
    yield frameBlock(at, frame.arrivedNs, frame.bytes, frame.wireBytes, `epoch ${frame.epoch}, ${frame.class}, held ${heldMs.toFixed(3)} ms`);
  }
}
