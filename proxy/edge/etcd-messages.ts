/**
 * What is said to etcd and what it answers: of its gRPC API (etcd 3.4 and later, api/etcdserverpb/rpc.proto
 * and mvccpb/kv.proto) the calls that a ledger makes, and of their messages the fields that it uses. What
 * else an answer has is skipped unread.
 *
 * Keys and values are bytes. Ours are text, so questions have them as such; an answer may have anybody's,
 * and one that is no text must not cost the others theirs: `textOf` reads it as far as it goes. Numbers of
 * 64 bits are ours or count something, so they are safe integers.
 */
import { configure, Root, util } from '../doors/protobuf.ts';

export interface KeyRange {
  readonly key: string;
  /** The first key beyond; absent = the one key. */
  readonly range_end?: string;
}
export interface KeyValue {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly mod_revision: number;
}
export interface Compare {
  readonly key: string;
  readonly target: number;
  readonly result: number;
  readonly create_revision?: number;
  readonly mod_revision?: number;
  readonly value?: string;
}
export interface RequestOp {
  readonly request_range?: KeyRange;
  readonly request_put?: { readonly key: string; readonly value: string; readonly lease?: number };
  readonly request_delete_range?: KeyRange;
  readonly request_txn?: TxnRequest;
}
export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure?: readonly RequestOp[];
}
export interface Header {
  readonly revision: number;
}
export interface RangeResponse {
  readonly header: Header | null;
  readonly kvs: readonly KeyValue[];
}
export interface TxnResponse {
  readonly header: Header | null;
  readonly succeeded: boolean;
  readonly responses: readonly { readonly response_range: RangeResponse | null; readonly response_txn: TxnResponse | null }[];
}
export interface WatchRequest {
  readonly create_request: KeyRange & { readonly start_revision: number };
}
export interface Event {
  readonly type: number;
  readonly kv: KeyValue | null;
}
export interface WatchResponse {
  readonly canceled: boolean;
  readonly compact_revision: number;
  readonly events: readonly Event[];
}
interface Lease {
  readonly ID: number;
}

export const EQUAL = 0;
export const LESS = 2;
export const BY_CREATE = 1;
export const BY_MOD = 2;
export const BY_VALUE = 3;
export const DELETED = 1;

/** One that was not sent is an empty list. */
export const textOf = (bytes: Uint8Array): string => bytes.length === 0 ? '' : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');

/** name -> [type, number]; `[]type` is a list of them. */
type Fields = Readonly<Record<string, readonly [type: string, id: number]>>;
const MESSAGES: Readonly<Record<string, Fields>> = {
  Header: { revision: ['int64', 3] },
  KeyValue: { key: ['bytes', 1], mod_revision: ['int64', 3], value: ['bytes', 5] },
  KeyRange: { key: ['string', 1], range_end: ['string', 2] },
  RangeResponse: { header: ['Header', 1], kvs: ['[]KeyValue', 2] },
  Put: { key: ['string', 1], value: ['string', 2], lease: ['int64', 3] },
  Compare: { result: ['int32', 1], target: ['int32', 2], key: ['string', 3], create_revision: ['int64', 5], mod_revision: ['int64', 6], value: ['string', 7] },
  RequestOp: { request_range: ['KeyRange', 1], request_put: ['Put', 2], request_delete_range: ['KeyRange', 3], request_txn: ['TxnRequest', 4] },
  ResponseOp: { response_range: ['RangeResponse', 1], response_txn: ['TxnResponse', 4] },
  TxnRequest: { compare: ['[]Compare', 1], success: ['[]RequestOp', 2], failure: ['[]RequestOp', 3] },
  TxnResponse: { header: ['Header', 1], succeeded: ['bool', 2], responses: ['[]ResponseOp', 3] },
  WatchCreate: { key: ['string', 1], range_end: ['string', 2], start_revision: ['int64', 3] },
  WatchRequest: { create_request: ['WatchCreate', 1] },
  Event: { type: ['int32', 1], kv: ['KeyValue', 2] },
  WatchResponse: { canceled: ['bool', 4], compact_revision: ['int64', 5], events: ['[]Event', 11] },
  LeaseGrant: { TTL: ['int64', 1], ID: ['int64', 2] },
  Lease: { ID: ['int64', 1] },
  LeaseAlive: { TTL: ['int64', 3] },
  Nothing: {},
  Status: { dbSize: ['int64', 3] },
};

export interface Method<Q, A> {
  /** As HTTP/2 names it. */
  readonly path: string;
  readonly encode: (question: Q) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => A;
}

// Numbers, not objects of two halves: nothing that is read here is larger than a safe integer.
Reflect.set(util, 'Long', undefined);
configure();
const root = Root.fromJSON({
  nested: Object.fromEntries(Object.entries(MESSAGES).map(([name, fields]) => [name, {
    fields: Object.fromEntries(Object.entries(fields).map(([field, [type, id]]) =>
      [field, type.startsWith('[]') ? { rule: 'repeated', type: type.slice(2), id } : { type, id }])),
  }])),
});

function method<Q extends object, A>(path: string, question: string, answer: string): Method<Q, A> {
  const asked = root.lookupType(question);
  const told = root.lookupType(answer);
  return {
    path: `/etcdserverpb.${path}`,
    encode: (one) => asked.encode(one).finish(),
    decode: (bytes) => {
      const decoded: unknown = told.decode(bytes);
      return decoded as A; // its fields are those of the table above
    },
  };
}

export const RANGE = method<KeyRange, RangeResponse>('KV/Range', 'KeyRange', 'RangeResponse');
export const TXN = method<TxnRequest, TxnResponse>('KV/Txn', 'TxnRequest', 'TxnResponse');
export const WATCH = method<WatchRequest, WatchResponse>('Watch/Watch', 'WatchRequest', 'WatchResponse');
export const LEASE_GRANT = method<Lease & { readonly TTL: number }, object>('Lease/LeaseGrant', 'LeaseGrant', 'Nothing');
export const LEASE_ALIVE = method<Lease, { readonly TTL: number }>('Lease/LeaseKeepAlive', 'Lease', 'LeaseAlive');
export const LEASE_REVOKE = method<Lease, object>('Lease/LeaseRevoke', 'Lease', 'Nothing');
export const STATUS = method<object, { readonly dbSize: number }>('Maintenance/Status', 'Nothing', 'Status');
