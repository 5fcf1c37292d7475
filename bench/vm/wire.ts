/**
 * The wire: every frame that a group's guests send, at their taps, and every frame of theirs that
 * leaves the host, at the outsider; both with the kernel's own times.
 *
 * A frame's key is a hash of its bytes without its checksums, which a device may fill in on the way.
 * Only frames for the outside count as sent: not to a member's own MAC. Memory grows with the
 * frames, a hundred bytes each; a capture that the kernel had no room for throws at the end.
 */
import { createHash } from 'node:crypto';
import { namespacePath } from '../bed/commands.ts';
import { PacketPort } from '../bed/packet-port.ts';
import type { VmBed } from './bed.ts';
import type { WireFrame } from './explain.ts';

const DRAIN_MS = 4;
const ETH_RARP = 0x8035;
const ETH_IPV6 = 0x86dd;
const ICMPV6 = 58;
const ADVERTISEMENT = 136;
const ETH_ARP = 0x0806;
const ETH_IPV4 = 0x0800;

export class Wire {
  readonly sent: WireFrame[] = [];
  readonly seen: WireFrame[] = [];
  readonly #guests: readonly PacketPort[];
  readonly #outside: PacketPort;
  readonly #macs: ReadonlySet<string>;
  readonly #timer: NodeJS.Timeout;

  constructor(bed: VmBed) {
    const namespace = namespacePath(bed.bed.host);
    this.#macs = new Set(bed.group.guests.flatMap(({ nics }) => nics.map(({ mac }) => mac.replaceAll(':', ''))));
    const taps = bed.group.guests.flatMap(({ sides }) => sides.flatMap(({ ports }) => ports));
    this.#guests = taps.map((device) => new PacketPort({ namespace, device }));
    this.#outside = bed.bed.outside();
    this.#timer = setInterval(() => this.drain(), DRAIN_MS);
  }

  drain(): void {
    for (const port of this.#guests) port.drain((frame, atUs) => this.#note(this.sent, frame, atUs));
    this.#outside.drain((frame, atUs) => this.#note(this.seen, frame, atUs));
  }

  /** Takes what is left and closes. Throws where the kernel dropped frames: the oracle would be blind. */
  finish(): void {
    this.drain();
    const missed = [...this.#guests, this.#outside].map((port) => port.missed()).reduce((a, b) => a + b, 0);
    this.close();
    if (missed > 0) throw new Error(`the capture missed ${missed} frames`);
  }

  /** Ends the capture; a second time is nothing. */
  close(): void {
    clearInterval(this.#timer);
    for (const port of [...this.#guests, this.#outside]) port.close();
  }

  #note(into: WireFrame[], bytes: Uint8Array, atUs: number): void {
    const frame = Buffer.from(bytes);
    if (this.#macs.has(frame.toString('hex', 0, 6)) || !this.#macs.has(frame.toString('hex', 6, 12))) return;
    into.push({ key: keyOf(frame), text: textOf(frame), atUs, announcement: isAnnouncement(frame) });
  }
}

function isAnnouncement(frame: Buffer): boolean {
  const type = frame.readUInt16BE(12);
  if (type === ETH_IPV6) return frame[20] === ICMPV6 && frame[54] === ADVERTISEMENT && frame[38] === 0xff;
  return type === ETH_RARP || (type === ETH_ARP && frame.subarray(28, 32).equals(frame.subarray(38, 42)));
}

function textOf(frame: Buffer): string {
  const type = frame.readUInt16BE(12);
  const transport = 14 + ((frame[14] ?? 0) & 15) * 4;
  if (type !== ETH_IPV4 || frame[23] !== 6 || frame.length < transport + 20) return `ethertype ${type.toString(16)}, ${frame.length} bytes`;
  const [from, to] = [frame.readUInt16BE(transport), frame.readUInt16BE(transport + 2)];
  const [seq, ack] = [frame.readUInt32BE(transport + 4), frame.readUInt32BE(transport + 8)];
  const flags = frame[transport + 13] ?? 0;
  return `TCP ${from} to ${to} seq ${seq} ack ${ack} flags ${flags.toString(16)} ip id ${frame.readUInt16BE(18)}, ${frame.length} bytes`;
}

function keyOf(frame: Buffer): string {
  if (frame.length >= 34 && frame.readUInt16BE(12) === ETH_IPV4) {
    frame.writeUInt16BE(0, 24);
    const transport = 14 + ((frame[14] ?? 0) & 15) * 4;
    const checksum = transport + ({ 6: 16, 17: 6 }[frame[23] ?? 0] ?? Number.NaN);
    if (checksum + 2 <= frame.length) frame.writeUInt16BE(0, checksum);
  }
  return createHash('sha1').update(frame).digest('base64');
}
