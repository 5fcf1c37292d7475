/**
 * The ledger's words in etcd's: where a group's record is, and its two writes as transactions. Pure.
 *
 *    <prefix>groups/<group>/head                        the head, as JSON
 *    <prefix>groups/<group>/ack/<generation>/<host>/<life>     an epoch
 *    <prefix>hosts/<host>                               whose name it is, under that daemon's lease
 *
 * Numbers are 16 digits, so that etcd's comparison of bytes is one of numbers. An ack's key is there
 * only while its generation is the group's newest: the swap that begins a generation makes the keys
 * of it and removes all older ones. "Its value is lower" is false of a key that is not there, so one
 * comparison asks for all three: the generation, its life, and that acks only rise. A generation that
 * an older version began has no life, nor have its keys.
 */
import type { Acked, Epoch, Head, Swap } from '../core/types.ts';
import { BY_CREATE, BY_MOD, BY_VALUE, EQUAL, LESS, textOf } from './etcd-messages.ts';
import type { Compare, KeyRange, RequestOp, TxnRequest, TxnResponse } from './etcd-messages.ts';

const DIGITS = 16;
const digits = (n: number): string => String(n).padStart(DIGITS, '0');

/** First key after all that begin with `prefix`. */
const after = (prefix: string): string => prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
export const underPrefix = (prefix: string): KeyRange => ({ key: prefix, range_end: after(prefix) });

export type Place =
  | { readonly kind: 'head'; readonly group: string }
  | ({ readonly kind: 'ack'; readonly group: string } & Omit<Acked, 'epoch'>)
  | { readonly kind: 'host'; readonly host: string };

/** Of each group one. */
export type Acks = readonly (readonly [group: string, acked: Acked])[];

/** Places that are kept: of 256 groups on many hosts; then they are found anew. */
const PLACES_MAX = 16_384;

export class Keys {
  readonly prefix: string;
  /** The same keys come with every ack. */
  readonly #places = new Map<string, Place>();

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  group(group: string): string {
    return `${this.prefix}groups/${group}/`;
  }
  head(group: string): string {
    return `${this.group(group)}head`;
  }
  host(host: string): string {
    return `${this.prefix}hosts/${host}`;
  }
  #acks(group: string): string {
    return `${this.group(group)}ack/`;
  }
  #ack(group: string, { generation, life, host }: Omit<Acked, 'epoch'>): string {
    return `${this.#acks(group)}${digits(generation)}/${host}${life === undefined ? '' : `/${life}`}`;
  }

  /** What a key is of; undefined = not one of ours, as we would have written it. */
  placeOf(key: string): Place | undefined {
    const known = this.#places.get(key);
    if (known !== undefined) return known;
    if (this.#places.size >= PLACES_MAX) this.#places.clear();
    const place = this.#read(key);
    if (place !== undefined) this.#places.set(key, place);
    return place;
  }
  #read(key: string): Place | undefined {
    const [what, name = '', kind, number = '', host, life] = key.slice(this.prefix.length).split('/');
    if (what === 'hosts') return this.host(name) === key ? { kind: 'host', host: name } : undefined;
    if (what !== 'groups') return undefined;
    if (kind === 'head') return this.head(name) === key ? { kind, group: name } : undefined;
    if (kind !== 'ack' || host === undefined || life === '' || readEpoch(number) === undefined) return undefined;
    const of = { generation: Number(number) as Acked['generation'], life, host };
    return this.#ack(name, of) === key ? { kind, group: name, ...of } : undefined;
  }

  /** All of them, or none where one is refused. The store does it in two thirds of the time of `eachAckTxn`. */
  allAcksTxn(acks: Acks, mine: Compare): TxnRequest {
    const each = acks.map((one) => this.#ackTxn(one));
    return { compare: [mine, ...each.flatMap(({ compare }) => compare)], success: each.flatMap(({ success }) => success) };
  }
  /** Each a transaction of its own in the larger one: one that is refused stops no other. */
  eachAckTxn(acks: Acks, mine: Compare): TxnRequest {
    return { compare: [mine], success: acks.map((one) => ({ request_txn: this.#ackTxn(one) })) };
  }
  #ackTxn([group, acked]: Acks[number]): TxnRequest {
    const key = this.#ack(group, acked);
    const value = digits(acked.epoch);
    return { compare: [{ key, target: BY_VALUE, result: LESS, value }], success: [{ request_put: { key, value } }] };
  }

  swapTxn(group: string, { revision, witness, head, begins }: Swap): TxnRequest {
    const compare: Compare[] = [{ key: this.head(group), target: BY_MOD, result: EQUAL, mod_revision: revision }];
    if (witness !== undefined) compare.push({ key: this.#ack(group, witness), target: BY_VALUE, result: EQUAL, value: digits(witness.epoch) });
    const success: RequestOp[] = [{ request_put: { key: this.head(group), value: JSON.stringify(head) } }];
    if (begins.length > 0) success.push({ request_delete_range: { key: this.#acks(group), range_end: `${this.#acks(group)}${digits(head.generation)}/` } });
    for (const host of begins) success.push({ request_put: { key: this.#ack(group, { host, generation: head.generation, life: head.life }), value: digits(head.start) } });
    return { compare, success };
  }

  /**
   * The name is ours, or nobody's and ours from now on. Under a lease: it goes when its host is not
   * heard of any more. Where it is another daemon's, nothing is written and its owner is read.
   */
  claimTxn(host: string, owner: string, lease: number): TxnRequest {
    const key = this.host(host);
    const put = { request_put: { key, value: owner, lease } };
    const ifFree = { compare: [{ key, target: BY_CREATE, result: EQUAL, create_revision: 0 }], success: [put], failure: [{ request_range: { key } }] };
    return { compare: [this.ownedBy(host, owner)], success: [put], failure: [{ request_txn: ifFree }] };
  }
  /** Holds while the host's name is this owner's: acks under a name that is not ours are not written. */
  ownedBy(host: string, owner: string): Compare {
    return { key: this.host(host), target: BY_VALUE, result: EQUAL, value: owner };
  }
}

/** The other owner that a claim found, where it found one. */
export function ownerIn({ succeeded, responses }: TxnResponse): string | undefined {
  const inner = succeeded ? undefined : responses[0]?.response_txn;
  const kv = inner === undefined || inner === null || inner.succeeded ? undefined : inner.responses[0]?.response_range?.kvs[0];
  return kv === undefined ? undefined : textOf(kv.value);
}

/** undefined = not one that a host wrote. */
export const readEpoch = (value: string): Epoch | undefined => (/^\d{16}$/.test(value) && Number.isSafeInteger(Number(value)) ? (Number(value) as Epoch) : undefined);

/** undefined = not one that a host wrote; whoever may write there may be a hand or another version. */
export function readHead(value: string): Head | undefined {
  try {
    const head: unknown = JSON.parse(value);
    return isHead(head) ? head : undefined;
  } catch {
    return undefined;
  }
}

const isCount = (n: unknown): boolean => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0;
const isLine = (line: unknown): boolean => line === undefined || (typeof line === 'object' && line !== null && 'root' in line && typeof line.root === 'string' && isLife(line.root) && 'life' in line && typeof line.life === 'string' && isLife(line.life));
const isLife = (name: unknown): boolean => name === undefined || (typeof name === 'string' && /^[0-9a-f]{1,32}$/.test(name));
const oneOf = (given: unknown, ...these: readonly string[]): boolean => typeof given === 'string' && these.includes(given);

function isHead(head: unknown): head is Head {
  if (typeof head !== 'object' || head === null) return false;
  const of = head as Readonly<Record<string, unknown>>;
  const numbers = [of['serial'], of['generation'], of['from'], of['start']].every(isCount);
  const words = oneOf(of['phase'], 'idle', 'protected', 'deleted') && oneOf(of['begun'], 'protect', 'takeover') && oneOf(of['held'], 'release', 'discard') && [of['life'], of['fromLife']].every(isLife) && isLine(of['line']);
  const spec = of['spec'];
  return numbers && words && typeof spec === 'object' && spec !== null && 'members' in spec && Array.isArray(spec.members) && spec.members.every(isMember)
    && 'group' in spec && typeof spec.group === 'string' && 'hold' in spec && 'wire' in spec;
}

const isMember = (member: unknown): boolean =>
  typeof member === 'object' && member !== null && 'name' in member && typeof member.name === 'string' && 'host' in member && typeof member.host === 'string' && 'nics' in member && Array.isArray(member.nics);
