/**
 * What the daemon says to the plane's child, and how messages lie in the stream between them.
 *
 *   daemon ──► child   hold requests and switch requests, in one order
 *   child ──► daemon   answers and facts
 *   stream             │ length 4 │ message, as node:v8 writes it │ length 4 │ …
 *
 * A `put` is applied before whatever was said after it; a cell in shared memory is seen at once. So
 * who needs both in order asks `passed` between them.
 */
import { deserialize, serialize } from 'node:v8';
import type { Hook, TableName } from '../../classifier/plan.ts';
import type { Request } from '../plane/protocol.ts';

export interface PortWanted {
  readonly ifindex: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
}

export type SwitchRequest =
  | { readonly op: 'put'; readonly table: TableName; readonly key: Uint8Array; readonly value: number }
  | { readonly op: 'remove'; readonly table: TableName; readonly key: Uint8Array }
  | { readonly op: 'hook' | 'unhook'; readonly hook: Hook }
  | { readonly op: 'count'; readonly ifindex: number; readonly slot: number }
  | { readonly op: 'uncount'; readonly ifindex: number }
  | { readonly op: 'fix' | 'unfix'; readonly ifindex: number; readonly mac: string }
  /** The group's hold device, by which decisions name its queue. */
  | { readonly op: 'hold'; readonly id: number; readonly ifindex: number }
  /** Out of every port but one, as the host's own. */
  | { readonly op: 'announce'; readonly except: number; readonly frame: Uint8Array }
  /** These ports are switched from now on, and no others; answered with the ifindexes that are open. */
  | { readonly op: 'ports'; readonly call: number; readonly ports: readonly PortWanted[] }
  /** Answered when everything said before has been done. */
  | { readonly op: 'passed'; readonly call: number }
  /** Answered when every frame that was at a port before has been decided. */
  | { readonly op: 'catchUp'; readonly call: number };

export type ToChild = Request | SwitchRequest;

/** Longest message: a piece of a capture and its rows. Beyond it the stream is broken. */
const MESSAGE_BYTES_MAX = 64 << 20;

export function packed(message: unknown): Buffer {
  const body = serialize(message);
  const bytes = Buffer.allocUnsafe(4 + body.length);
  bytes.writeUInt32LE(body.length);
  body.copy(bytes, 4);
  return bytes;
}

/** Cuts a stream into messages. */
export class Unpacker {
  #bytes: Buffer = Buffer.alloc(0);

  add(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
  }
  /** The next whole message; undefined = more bytes are needed. */
  next(): unknown {
    if (this.#bytes.length < 4) return undefined;
    const length = this.#bytes.readUInt32LE();
    if (length > MESSAGE_BYTES_MAX) throw new Error(`a message of ${length} bytes`);
    if (this.#bytes.length < 4 + length) return undefined;
    const body = this.#bytes.subarray(4, 4 + length);
    this.#bytes = this.#bytes.subarray(4 + length);
    return deserialize(body);
  }
}
