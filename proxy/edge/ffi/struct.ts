/**
 * C structs that point to memory of ours.
 *
 * An address is a number: it keeps nothing alive, and what it was taken of may be collected before
 * the call that gets it, as soon as optimised code has no more use for the bytes. So a struct holds
 * what it points to, and it is itself an argument of the call: both live until the call is back.
 */
import { endianness } from 'node:os';
import koffi from 'koffi';

export const LITTLE = endianness() === 'LE';

/** A block of memory at a fixed address, as bytes. Zeroed. */
export const fixedBytes = (length: number): Uint8Array => new Uint8Array(new ArrayBuffer(length));

/** Zeroed bytes at a fixed address; its offsets are those of the C struct. Pass it to the call itself, not a view of it. */
export class Struct extends Uint8Array {
  static get [Symbol.species](): Uint8ArrayConstructor {
    return Uint8Array; // a part of it is bytes
  }
  readonly cells: DataView;
  /** A field of the object that the call is given, so that it is as alive as that. */
  readonly held: Uint8Array[] = [];

  constructor(bytes: number) {
    super(new ArrayBuffer(bytes));
    this.cells = new DataView(this.buffer);
  }
  u32(at: number, value: number): this {
    this.cells.setUint32(at, value >>> 0, LITTLE);
    return this;
  }
  u64(at: number, value: number): this {
    this.cells.setBigUint64(at, BigInt(value), LITTLE);
    return this;
  }
  /** The address of `target`, which must be at a fixed one; null of nothing. */
  pointer(at: number, target: Uint8Array | undefined): this {
    const isNull = target === undefined || target.length === 0;
    if (!isNull) this.held.push(target);
    this.cells.setBigUint64(at, isNull ? 0n : koffi.address(target), LITTLE);
    return this;
  }
  read32(at: number): number {
    return this.cells.getUint32(at, LITTLE);
  }
}
