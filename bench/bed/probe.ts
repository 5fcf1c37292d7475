/**
 * Probe frames: traffic that says who sent it, in which flow, and as which number.
 *
 *   Ethernet | IPv4 | UDP | 'SLUICE-1' | flow u32 | seq u32 | padding          60 bytes at least
 *
 * A flow is one source to one destination; seq counts up from 0 in each flow, so order and gaps
 * show. UDP checksum 0 (none), IP checksum right: every stack and bridge carries them.
 */
const MAGIC = 0x534c5549n << 32n | 0x43452d31n; // "SLUICE-1"
const MAGIC_AT = 14 + 20 + 8;
export const PROBE_BYTES_MIN = 60;
const PORT = 4789 + 1000;

export interface ProbeAddress {
  /** Six bytes. */
  readonly mac: Uint8Array;
  readonly ip: readonly [number, number, number, number];
}

export const macBytes = (text: string): Uint8Array =>
  Uint8Array.from(text.split(':').map((part) => Number.parseInt(part, 16)));

export const ipBytes = (text: string): readonly [number, number, number, number] => {
  const [a, b, c, d] = text.split('.').map(Number);
  if (a === undefined || b === undefined || c === undefined || d === undefined) throw new Error(`not an address: ${text}`);
  return [a, b, c, d];
};

/** A template of one flow: `probe(seq)` gives the same buffer each time, with that number in it. */
export function probeFlow(from: ProbeAddress, to: ProbeAddress, flow: number, bytes = PROBE_BYTES_MIN): (seq: number) => Uint8Array {
  if (bytes < PROBE_BYTES_MIN) throw new Error(`a probe has at least ${PROBE_BYTES_MIN} bytes, not ${bytes}`);
  const frame = new Uint8Array(bytes);
  const view = new DataView(frame.buffer);
  frame.set(to.mac, 0);
  frame.set(from.mac, 6);
  view.setUint16(12, 0x0800);
  view.setUint16(14, 0x4500);
  view.setUint16(16, bytes - 14);
  view.setUint16(22, 64 << 8 | 17);
  frame.set(from.ip, 26);
  frame.set(to.ip, 30);
  view.setUint16(24, ipChecksum(view, 14, 20));
  view.setUint16(34, PORT);
  view.setUint16(36, PORT);
  view.setUint16(38, bytes - 34);
  view.setBigUint64(MAGIC_AT, MAGIC);
  view.setUint32(MAGIC_AT + 8, flow);
  return (seq) => {
    view.setUint32(MAGIC_AT + 12, seq);
    return frame;
  };
}

export interface Probe {
  readonly flow: number;
  readonly seq: number;
}

/** The probe in a frame, VLAN tags skipped; undefined where it is none of ours. */
export function parseProbe(frame: Uint8Array): Probe | undefined {
  let at = MAGIC_AT;
  while (at + 2 <= frame.length && isTag(frame, at - MAGIC_AT + 12)) at += 4;
  if (frame.length < at + 16) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getBigUint64(at) !== MAGIC) return undefined;
  return { flow: view.getUint32(at + 8), seq: view.getUint32(at + 12) };
}

function isTag(frame: Uint8Array, at: number): boolean {
  const type = ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0);
  return type === 0x8100 || type === 0x88a8;
}

/** Internet checksum over an even number of bytes. */
export function ipChecksum(view: DataView, at: number, bytes: number): number {
  let sum = 0;
  for (let i = 0; i < bytes; i += 2) sum += view.getUint16(at + i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
