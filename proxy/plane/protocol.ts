/**
 * What the main thread and the hold worker say to each other.
 *
 *   main ──► worker   requests with a `call` over a MessagePort, and an order that keeps their place;
 *                     the others as orders in shared memory (orders.ts). The eventfd is the
 *                     doorbell, because the worker sleeps in the kernel and not in its event loop.
 *   worker ──► main   answers (to requests with a `call`) and facts, over the same port
 *   shared memory     orders; counters (meter.ts)
 */
import type { MessagePort } from 'node:worker_threads';
import type { GroupId, HeldEpoch, HoldOptions, NicIndex, PlaneFact } from '../ports.ts';
import type { Place } from '../ring/tour.ts';
import type { Refusal } from './lane-supply.ts';

export interface WorkerOptions {
  readonly port: MessagePort;
  readonly bellFd: number;
  /** See orders.ts. */
  readonly orders: SharedArrayBuffer;
  /** CPU the loop stays on: frames released from one CPU keep the order of their flow (I6). */
  readonly cpu: number;
  /** Pinned maps. */
  readonly pins: { readonly groups: string; readonly nics: string; readonly lanes: string; readonly queues: string };
  /** A group may come to have lanes. */
  readonly mayHaveLanes: boolean;
}

export type Request =
  | { readonly op: 'open'; readonly call: number; readonly id: GroupId; readonly options: HoldOptions; readonly meter: SharedArrayBuffer | ArrayBuffer }
  | { readonly op: 'close'; readonly call: number; readonly id: GroupId }
  | { readonly op: 'advance'; readonly id: GroupId; readonly colour: number; readonly epoch: number }
  | { readonly op: 'release'; readonly id: GroupId; readonly colour: number; readonly askedAtMs: number }
  | { readonly op: 'restore'; readonly call: number; readonly id: GroupId; readonly restored: number; readonly next: number; readonly epoch: number }
  | { readonly op: 'receiver'; readonly id: GroupId; readonly nics: readonly NicIndex[]; readonly colour: number }
  | { readonly op: 'drain'; readonly call: number; readonly id: GroupId; readonly nics: readonly NicIndex[] | undefined; readonly fate: 1 | 2 }
  /** Its lanes are queues of this device from here on; 0 = it has none any more. Answered by a Refusal, or nothing. */
  | { readonly op: 'lanes'; readonly call: number; readonly id: GroupId; readonly ifindex: number }
  | { readonly op: 'held'; readonly call: number; readonly id: GroupId }
  | { readonly op: 'dump'; readonly call: number; readonly id: GroupId; readonly from: Place | undefined; readonly bytesMax: number };

/** A request that is answered, before it has its number. */
export type Asked = Request extends infer R ? (R extends { call: number } ? Omit<R, 'call'> : never) : never;

/** A piece of a dump. Rows of five numbers: epoch, nic, class, arrival (wall clock, ms), bytes. */
export interface Dump {
  readonly rows: Float64Array<ArrayBuffer>;
  /** Of all its frames, one after the other. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where the next piece begins; undefined = this was the last. */
  readonly next: Place | undefined;
}
export const DUMP_ROW = 5;

export type Answer = number | readonly number[] | readonly HeldEpoch[] | Dump | Refusal | undefined;

export type Message =
  | { readonly op: 'answer'; readonly call: number; readonly value: Answer }
  | { readonly op: 'failed'; readonly call: number; readonly message: string; readonly fix: string }
  | { readonly op: 'fact'; readonly fact: PlaneFact };

/** Monotonic clock that all threads share; float64 milliseconds. */
export function clockMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
