/** Messages of rtnetlink: how one is put together, and how a reply is taken apart. */
import { LITTLE, fixedBytes } from './ffi/struct.ts';

const MESSAGE_BYTES = 1 << 12;
const AF_BRIDGE = 7;
const NTF_MASTER = 0x04;

export const TYPE = { error: 2, done: 3, newLink: 16, delLink: 17, getLink: 18, newNeigh: 28, delNeigh: 29, getNeigh: 30, newQdisc: 36 } as const;
export const FLAG = { request: 1, ack: 4, dump: 0x300, excl: 0x200, replace: 0x100, create: 0x400 } as const;

/** A message under construction: header, fixed part, attributes. */
export class Message {
  readonly #bytes = fixedBytes(MESSAGE_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #end = 16;

  constructor(type: number, flags: number) {
    this.#view.setUint16(4, type, LITTLE);
    this.#view.setUint16(6, FLAG.request | flags, LITTLE);
  }
  /** struct ifinfomsg. `change` names the flags that count. */
  link(ifindex: number, flags = 0, change = 0): this {
    this.#view.setInt32(this.#end + 4, ifindex, LITTLE);
    this.#view.setUint32(this.#end + 8, flags, LITTLE);
    this.#view.setUint32(this.#end + 12, change, LITTLE);
    this.#end += 16;
    return this;
  }
  /** struct ndmsg of a forwarding entry. */
  neighbour(ifindex: number, state: number): this {
    this.#bytes[this.#end] = AF_BRIDGE;
    this.#view.setInt32(this.#end + 4, ifindex, LITTLE);
    this.#view.setUint16(this.#end + 8, state, LITTLE);
    this.#bytes[this.#end + 10] = NTF_MASTER;
    this.#end += 12;
    return this;
  }
  /** struct tcmsg. */
  traffic(ifindex: number, handle: number, parent: number): this {
    this.#view.setInt32(this.#end + 4, ifindex, LITTLE);
    this.#view.setUint32(this.#end + 8, handle, LITTLE);
    this.#view.setUint32(this.#end + 12, parent, LITTLE);
    this.#end += 20;
    return this;
  }
  bytes(type: number, value: Uint8Array): this {
    const length = 4 + value.length;
    this.#view.setUint16(this.#end, length, LITTLE);
    this.#view.setUint16(this.#end + 2, type, LITTLE);
    this.#bytes.set(value, this.#end + 4);
    this.#end += (length + 3) & ~3;
    return this;
  }
  text(type: number, value: string): this {
    return this.bytes(type, Buffer.from(`${value}\0`));
  }
  u32(type: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, LITTLE);
    return this.bytes(type, bytes);
  }
  nest(type: number, fill: (m: this) => void): this {
    const start = this.#end;
    this.#end += 4;
    fill(this);
    this.#view.setUint16(start, this.#end - start, LITTLE);
    this.#view.setUint16(start + 2, type, LITTLE);
    return this;
  }
  finish(sequence: number): Uint8Array {
    this.#view.setUint32(0, this.#end, LITTLE);
    this.#view.setUint32(8, sequence, LITTLE);
    return this.#bytes.subarray(0, this.#end);
  }
}

export interface Reply {
  readonly type: number;
  readonly body: DataView;
}
/** The messages of one reply that answer `sequence`. */
export function* replies(buffer: Uint8Array, length: number, sequence: number): Generator<Reply> {
  const view = new DataView(buffer.buffer, buffer.byteOffset, length);
  for (let at = 0; at + 16 <= length; ) {
    const size = view.getUint32(at, LITTLE);
    if (size < 16 || at + size > length) throw new Error('netlink: a reply that ends too early');
    if (view.getUint32(at + 8, LITTLE) === sequence) {
      yield { type: view.getUint16(at + 4, LITTLE), body: new DataView(buffer.buffer, buffer.byteOffset + at + 16, size - 16) };
    }
    at += (size + 3) & ~3;
  }
}
export function attributes(body: DataView, from: number): Map<number, DataView> {
  const found = new Map<number, DataView>();
  for (let at = from; at + 4 <= body.byteLength; ) {
    const length = body.getUint16(at, LITTLE);
    if (length < 4 || at + length > body.byteLength) break;
    found.set(body.getUint16(at + 2, LITTLE) & 0x3fff, new DataView(body.buffer, body.byteOffset + at + 4, length - 4));
    at += (length + 3) & ~3;
  }
  return found;
}
