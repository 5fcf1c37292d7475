/**
 * A cursor over the Ethernet header of one frame: set on a frame, read, set on the next. Nothing
 * is allocated; a MAC is a number (48 bits fit a double exactly).
 *
 *   0        6        12     14          16
 *   | dst    | src    | type | …                       untagged, or the tag is beside the frame
 *   | dst    | src    | 8100 | tci       | type | …    the tag is in the data
 *
 * It sees what the kernel programs see and no more: addresses, type and the outer tag; between
 * hosts two tags (wireTags), which are taken off before the frame is read.
 */
import { VLAN_OTHER } from './abi.ts';

export const HEADER_BYTES = 14;
const TAG_BYTES = 4;
export const TYPE_8021Q = 0x8100;
export const TYPE_8021AD = 0x88a8;

/** A VLAN tag that the kernel took out of the frame. */
export interface OuterTag {
  readonly tpid: number;
  readonly tci: number;
}

export class FrameCursor {
  #bytes: Uint8Array = new Uint8Array(0);
  #tag: OuterTag | undefined;

  /** `tag`: where the tag was taken out of the data. The cursor keeps a reference, not a copy. */
  set(bytes: Uint8Array, tag?: OuterTag): this {
    this.#bytes = bytes;
    this.#tag = tag;
    return this;
  }

  /** Without a whole header there are no addresses; everything below then reads zeros. */
  get hasHeader(): boolean {
    return this.#bytes.length >= HEADER_BYTES;
  }
  get dst(): number {
    return macAt(this.#bytes, 0);
  }
  get src(): number {
    return macAt(this.#bytes, 6);
  }
  /** The type field behind the addresses, which may be that of a tag. */
  get type(): number {
    return u16At(this.#bytes, 12);
  }
  get isMulticast(): boolean {
    return ((this.#bytes[0] ?? 0) & 1) === 1;
  }
  /** 01:80:c2:00:00:0x, which a bridge does not forward. */
  get isLinkLocal(): boolean {
    return this.dst - (this.dst % 16) === LINK_LOCAL;
  }

  /** 0 = untagged or priority-tagged; VLAN_OTHER = an outer tag other than 802.1Q. */
  get vlan(): number {
    if (this.#tag !== undefined) return this.#tag.tpid === TYPE_8021Q ? this.#tag.tci & 0xfff : VLAN_OTHER;
    if (this.type === TYPE_8021AD) return VLAN_OTHER;
    if (this.type !== TYPE_8021Q) return 0;
    return this.#bytes.length < HEADER_BYTES + 2 ? VLAN_OTHER : u16At(this.#bytes, HEADER_BYTES) & 0xfff;
  }
  /** It ends before the type behind its tag. The kernel takes no such frame from a device, and cannot take the tag off. */
  get isTagTorn(): boolean {
    if (this.#tag !== undefined || (this.type !== TYPE_8021Q && this.type !== TYPE_8021AD)) return false;
    return this.#bytes.length < HEADER_BYTES + TAG_BYTES;
  }
}

const LINK_LOCAL = 0x0180_c200_0000;

function u16At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
function macAt(bytes: Uint8Array, at: number): number {
  return u16At(bytes, at) * 0x1_0000_0000 + u16At(bytes, at + 2) * 0x1_0000 + u16At(bytes, at + 4);
}

/** "02:00:00:00:00:01" as a number. Throws on anything else. */
export function macParse(text: string): number {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) throw new Error(`not a MAC address: ${text}`);
  return Number.parseInt(text.replaceAll(':', ''), 16);
}
/** Six bytes, at `at` of `into`. */
export function macWrite(mac: number, into: Uint8Array, at: number): void {
  for (let i = 5, rest = mac; i >= 0; i -= 1, rest = Math.floor(rest / 256)) into[at + i] = rest % 256;
}

/** What a frame between hosts carries: the outer 802.1ad id, and the 16 bits of the tag behind it. */
export interface SeenTags {
  readonly vlan: number;
  /** Absent: no 802.1Q tag stands there. */
  readonly inner?: number;
}
/** Undefined where the outer tag is not an 802.1ad one. */
export function wireTags(bytes: Uint8Array, tag?: OuterTag): SeenTags | undefined {
  let at = HEADER_BYTES - 2;
  if (tag === undefined) {
    if (bytes.length < at + 4 || u16At(bytes, at) !== TYPE_8021AD) return undefined;
    tag = { tpid: TYPE_8021AD, tci: u16At(bytes, at + 2) };
    at += 4;
  }
  if (tag.tpid !== TYPE_8021AD) return undefined;
  const vlan = tag.tci & 0xfff;
  return bytes.length < at + 4 || u16At(bytes, at) !== TYPE_8021Q ? { vlan } : { vlan, inner: u16At(bytes, at + 2) };
}

/** The id of an 802.1ad tag, the first or behind one 802.1Q tag, which a switch may take off. */
export function wireId(bytes: Uint8Array, tag?: OuterTag): number | undefined {
  let at = HEADER_BYTES - 2;
  const next = (): OuterTag | undefined => {
    if (bytes.length < at + 4) return undefined;
    at += 4;
    return { tpid: u16At(bytes, at - 4), tci: u16At(bytes, at - 2) };
  };
  let seen = tag ?? next();
  if (seen?.tpid === TYPE_8021Q) seen = next();
  return seen?.tpid === TYPE_8021AD ? seen.tci & 0xfff : undefined;
}

/**
 * The frame without its two outer tags; a third one then stands in the data. Undefined where too
 * little is left for a header and the tag it announces.
 */
export function untagged(bytes: Uint8Array, tag?: OuterTag): Uint8Array | undefined {
  const tagBytes = tag === undefined ? 8 : 4;
  if (bytes.length < HEADER_BYTES + tagBytes) return undefined;
  const rest = new Uint8Array(bytes.length - tagBytes);
  rest.set(bytes.subarray(0, HEADER_BYTES - 2));
  rest.set(bytes.subarray(HEADER_BYTES - 2 + tagBytes), HEADER_BYTES - 2);
  const type = u16At(rest, HEADER_BYTES - 2);
  const isTag = type === TYPE_8021Q || type === TYPE_8021AD;
  return isTag && rest.length < HEADER_BYTES + 4 ? undefined : rest;
}
