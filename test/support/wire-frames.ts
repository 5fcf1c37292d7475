/**
 * Frames of tests of groups across hosts: numbered ones, ears that keep what came out at an end, and
 * what stands around a frame between hosts: two tags, or VXLAN's outer headers.
 */
import type { FramePort } from '../../bench/bed/frame-port.ts';
import { WIRE_EPOCH_BITS, WIRE_GBP } from '../../classifier/abi.ts';
import { macParse, macWrite } from '../../classifier/frame.ts';
import { ipv4Parse } from '../../classifier/keys.ts';

export const ALL = 'ff:ff:ff:ff:ff:ff';
export const NOBODY = '02:00:00:00:00:77';
const ETHERTYPE = 0x88b5;
/** Outer Ethernet, IPv4, UDP and VXLAN headers. */
const OUTER_BYTES = 50;
const UDP = 17;
const VXLAN_PORT = 4789;

export interface Seen {
  readonly id: number;
  readonly atUs: number;
  readonly frame: Buffer;
  /** Where it was in an envelope. */
  readonly outer?: Envelope;
}
/** Everything that ever came out at an end, in order. */
export class Ear {
  readonly seen: Seen[] = [];
  readonly #port: FramePort;
  constructor(port: FramePort) {
    this.#port = port;
  }
  hear(): this {
    this.#port.drain((frame, atUs) => {
      const opened = openEnvelope(Buffer.from(frame));
      this.seen.push({ id: idOf(opened.frame), atUs, ...opened });
    });
    return this;
  }
  count(id: number): number {
    return this.hear().seen.filter((each) => each.id === id).length;
  }
  frame(id: number): Buffer | undefined {
    return this.find(id)?.frame;
  }
  find(id: number): Seen | undefined {
    return this.hear().seen.find((each) => each.id === id);
  }
}
/** Tests' frames are of ethertype 88b5 behind any tags, and numbered. */
function idOf(frame: Buffer): number {
  let at = 12;
  while (at + 4 < frame.length && [0x8100, 0x88a8].includes(frame.readUInt16BE(at))) at += 4;
  return at + 10 <= frame.length && frame.readUInt16BE(at) === ETHERTYPE ? frame.readUInt32BE(at + 2) : 0;
}

export interface Numbered {
  readonly id: number;
  readonly frame: Buffer;
}
let ids = 0;
/** `bytes`: from its type on, behind any tags. */
export function framed(to: string, from: string, tags: readonly number[] = [], bytes = 100): Numbered {
  const head = Buffer.alloc(12);
  macWrite(macParse(to), head, 0);
  macWrite(macParse(from), head, 6);
  const body = Buffer.alloc(bytes);
  ids += 1;
  body.writeUInt16BE(ETHERTYPE, 0);
  body.writeUInt32BE(ids, 2);
  for (let i = 6; i < bytes; i += 1) body[i] = (i * 7 + ids) & 0xff;
  return { id: ids, frame: Buffer.concat([head, Buffer.from(tags), body]) };
}
export const tag = (tpid: number, tci: number): number[] => [tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff];

// ---------------------------------------------------------------------------------------- VXLAN

/** Of a frame by VXLAN. `gbp`: policy id and flags as the kernel has them; undefined = it has none. */
export interface Envelope {
  readonly from: string;
  readonly to: string;
  readonly vni: number;
  readonly gbp: number | undefined;
}
export const gbpOf = (generation: number, epoch: number): number => WIRE_GBP | (generation << WIRE_EPOCH_BITS) | (epoch & 0xfff);

/** `dst`: MAC of the device that takes it in. */
export function envelope({ from, to, vni, gbp }: Envelope, dst: string, frame: Buffer): Buffer {
  const out = Buffer.alloc(OUTER_BYTES);
  macWrite(macParse(dst), out, 0);
  macWrite(macParse(NOBODY), out, 6);
  out.writeUInt16BE(0x0800, 12);
  out.writeUInt16BE(0x4500, 14);
  out.writeUInt16BE(OUTER_BYTES - 14 + frame.length, 16);
  out.writeUInt16BE((64 << 8) | UDP, 22);
  out.writeUInt32BE(ipv4Parse(from), 26);
  out.writeUInt32BE(ipv4Parse(to), 30);
  out.writeUInt16BE(headerSum(out.subarray(14, 34)), 24);
  out.writeUInt16BE(50_000, 34);
  out.writeUInt16BE(VXLAN_PORT, 36);
  out.writeUInt16BE(OUTER_BYTES - 34 + frame.length, 38);
  out[42] = gbp === undefined ? 0x08 : 0x88;
  out[43] = ((gbp ?? 0) >> 16) & 0xff;
  out.writeUInt16BE((gbp ?? 0) & 0xffff, 44);
  out.writeUInt32BE(vni * 256, 46);
  return Buffer.concat([out, frame]);
}
function headerSum(header: Buffer): number {
  let sum = 0;
  for (let at = 0; at < header.length; at += 2) sum += header.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function openEnvelope(frame: Buffer): { frame: Buffer; outer?: Envelope } {
  const isIn = frame.length > OUTER_BYTES && frame.readUInt16BE(12) === 0x0800 && frame[23] === UDP && frame.readUInt16BE(36) === VXLAN_PORT;
  if (!isIn) return { frame };
  const address = (at: number): string => [...frame.subarray(at, at + 4)].join('.');
  const hasPolicy = ((frame[42] ?? 0) & 0x80) !== 0;
  const gbp = hasPolicy ? ((frame[43] ?? 0) << 16) | frame.readUInt16BE(44) : undefined;
  return { frame: frame.subarray(OUTER_BYTES), outer: { from: address(26), to: address(30), vni: frame.readUIntBE(46, 3), gbp } };
}

/**
 * What a host is sent by VXLAN, a sentence each: m1 at h1 and m4 at h3 are elsewhere, m2 and m3 are
 * here, at h2. One that is right, and others that differ from it in one thing.
 */
export interface VxlanRow {
  readonly what: string;
  readonly from: string;
  readonly vni: number;
  readonly gbp: number | undefined;
  readonly to: string;
  readonly src: string;
  readonly tags: readonly number[];
  /** By which counter it is lost; undefined = it is delivered. */
  readonly lost: 'unknown' | 'stale' | 'foreign' | 'elsewhere' | 'skewed' | undefined;
}
export interface VxlanScene {
  /** m1 … m4. */
  readonly mac: (member: number) => string;
  readonly road: (host: number) => string;
  readonly vni: number;
  readonly generation: number;
  readonly open: number;
}
export function vxlanRows({ mac, road, vni, generation, open }: VxlanScene): readonly VxlanRow[] {
  const right: VxlanRow = { what: 'as m1\'s host sends it', from: road(1), vni, gbp: gbpOf(generation, open), to: mac(2), src: mac(1), tags: [], lost: undefined };
  const but = (what: string, lost: VxlanRow['lost'], change: Partial<VxlanRow>): VxlanRow => ({ ...right, what, lost, ...change });
  return [
    right,
    but('a broadcast', undefined, { to: ALL }),
    but('no policy id', 'unknown', { gbp: undefined }),
    but('a policy id without the flag', 'unknown', { gbp: gbpOf(generation, open) & 0xffff }),
    but('a flag more', 'unknown', { gbp: gbpOf(generation, open) | 0x80000 }),
    but('another VNI', 'unknown', { vni: vni + 1 }),
    but('the next generation', 'stale', { gbp: gbpOf(generation + 1, open) }),
    but('the generation before', 'stale', { gbp: gbpOf((generation + 15) & 0xf, open) }),
    but('from a host of the group where its member does not live', 'foreign', { from: road(3) }),
    but('from a host of no group', 'foreign', { from: '10.78.1.77' }),
    but('a member who lives here', 'foreign', { src: mac(3) }),
    but('a source of no group', 'foreign', { src: NOBODY }),
    but('in another VLAN', 'foreign', { tags: tag(0x8100, 9) }),
    but('to a link-local address', 'foreign', { to: '01:80:c2:00:00:0e' }),
    but('to a member elsewhere', 'elsewhere', { to: mac(4) }),
    but('to nobody', 'elsewhere', { to: NOBODY }),
    but('too far ahead', 'skewed', { gbp: gbpOf(generation, open + 1025) }),
    but('too far behind', 'skewed', { gbp: gbpOf(generation, open + 4096 - 16) }),
  ];
}
