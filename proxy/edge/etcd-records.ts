/**
 * What is known of each group's record in etcd: the newest of each key, by the store's revision.
 *
 *    head  r 17      ack g/h1/life  r 18      ack g/h2/life  r 21 ─► view: the head, and the acks of its life
 *
 * An older revision never replaces a newer one, whatever comes how often. Acks go with their
 * generation; the head never goes, and if somebody removes it, nothing is released for it.
 */
import type { Epoch, Head, LedgerView } from '../core/types.ts';
import { readEpoch, readHead } from './etcd-keys.ts';
import type { Place } from './etcd-keys.ts';
import { textOf } from './etcd-messages.ts';
import type { KeyValue } from './etcd-messages.ts';

interface GroupRecord {
  head: { readonly value: Head; readonly revision: number } | undefined;
  /** By their keys in the store, each of one host, generation and life. */
  readonly acks: Map<string, { readonly of: AckPlace; epoch: Epoch; revision: number }>;
  /** Of the last thing that was said of the head, its removal included. */
  headRevision: number;
}
type HeadPlace = Extract<Place, { kind: 'head' }>;
type AckPlace = Extract<Place, { kind: 'ack' }>;

export class Records {
  readonly #records = new Map<string, GroupRecord>();
  readonly #onOdd: (key: string) => void;

  /** `onOdd`: a key whose value no host wrote; it counts as missing. */
  constructor(onOdd: (key: string) => void) {
    this.#onOdd = onOdd;
  }

  get groups(): IterableIterator<string> {
    return this.#records.keys();
  }
  /** The store went back: its revisions count anew. */
  clear(): void {
    this.#records.clear();
  }

  /** Is it newer than what is known? `key`: as text. */
  put(place: HeadPlace | AckPlace, key: string, kv: KeyValue): boolean {
    const record = this.#record(place.group);
    return place.kind === 'head' ? this.#putHead(record, key, kv) : this.#putAck(record, place, key, kv);
  }
  removeHead({ group }: HeadPlace, kv: KeyValue): void {
    const record = this.#record(group);
    record.head = undefined;
    record.headRevision = Math.max(record.headRevision, kv.mod_revision);
  }

  viewOf(group: string): LedgerView {
    const record = this.#records.get(group);
    const head = record?.head?.value;
    if (record === undefined || head === undefined) return { head: undefined, revision: 0, acks: {} };
    const acks = Object.create(null) as Record<string, Epoch>; // a host may be named `__proto__`
    for (const { of, epoch } of record.acks.values()) if (of.generation === head.generation && of.life === head.life) acks[of.host] = epoch;
    return { head, revision: record.head?.revision ?? 0, acks };
  }

  #record(group: string): GroupRecord {
    let record = this.#records.get(group);
    if (record === undefined) {
      record = { head: undefined, acks: new Map(), headRevision: 0 };
      this.#records.set(group, record);
    }
    return record;
  }

  #putHead(record: GroupRecord, key: string, { mod_revision: revision, value: bytes }: KeyValue): boolean {
    if (revision <= record.headRevision) return false;
    const value = readHead(textOf(bytes));
    record.headRevision = revision;
    record.head = value === undefined ? undefined : { value, revision };
    if (value === undefined) {
      this.#onOdd(key);
      return true;
    }
    const isOver = ({ generation, life }: AckPlace): boolean => generation < value.generation || (generation === value.generation && life !== value.life);
    for (const [ack, { of }] of record.acks) if (isOver(of)) record.acks.delete(ack);
    return true;
  }

  #putAck(record: GroupRecord, place: AckPlace, key: string, { mod_revision: revision, value }: KeyValue): boolean {
    const known = record.acks.get(key);
    if (revision <= (known?.revision ?? 0) || place.generation < (record.head?.value.generation ?? 0)) return false;
    const epoch = readEpoch(textOf(value));
    if (epoch === undefined) this.#onOdd(key);
    else if (known === undefined) record.acks.set(key, { of: place, epoch, revision });
    else Object.assign(known, { epoch, revision });
    return true;
  }
}
