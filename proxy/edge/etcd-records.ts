/**
 * What is known of each group's record in etcd: the newest of each key, by the store's revision.
 *
 *    head  r 17      ack g/h1/life  r 18      ack g/h2/life  r 21 ─► view: the head, and the acks of its life
 *
 * An older revision never replaces a newer one, whatever comes how often. Acks go with their
 * generation; the head never goes, and if somebody removes it, nothing is released for it.
 */
import type { Acked, Epoch, Head, LedgerView } from '../core/types.ts';
import { readEpoch, readHead } from './etcd-keys.ts';
import type { Place } from './etcd-keys.ts';
import { textOf } from './etcd-messages.ts';
import type { KeyValue } from './etcd-messages.ts';

interface GroupRecord {
  head: { readonly value: Head; readonly revision: number } | undefined;
  /** generation/host/life -> ack. */
  readonly acks: Map<string, { readonly acked: Acked; readonly revision: number }>;
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

  /** Is it newer than what is known? */
  put(place: HeadPlace | AckPlace, kv: KeyValue): boolean {
    const record = this.#record(place.group);
    return place.kind === 'head' ? this.#putHead(record, kv, kv.mod_revision) : this.#putAck(record, place, kv, kv.mod_revision);
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
    const mine = [...record.acks.values()].filter(({ acked }) => acked.generation === head.generation && acked.life === head.life);
    const acks: Record<string, Epoch> = Object.fromEntries(mine.map(({ acked }) => [acked.host, acked.epoch]));
    return { head, revision: record.head?.revision ?? 0, acks };
  }

  #record(group: string): GroupRecord {
    const known = this.#records.get(group) ?? { head: undefined, acks: new Map<string, { acked: Acked; revision: number }>(), headRevision: 0 };
    this.#records.set(group, known);
    return known;
  }

  #putHead(record: GroupRecord, kv: KeyValue, revision: number): boolean {
    if (revision <= record.headRevision) return false;
    const value = readHead(textOf(kv.value));
    record.headRevision = revision;
    record.head = value === undefined ? undefined : { value, revision };
    if (value === undefined) {
      this.#onOdd(textOf(kv.key));
      return true;
    }
    const isOver = ({ generation, life }: Acked): boolean => generation < value.generation || (generation === value.generation && life !== value.life);
    for (const [key, { acked }] of record.acks) if (isOver(acked)) record.acks.delete(key);
    return true;
  }

  #putAck(record: GroupRecord, { generation, life, host }: AckPlace, kv: KeyValue, revision: number): boolean {
    const key = `${generation}/${host}/${life ?? ''}`;
    if (revision <= (record.acks.get(key)?.revision ?? 0) || generation < (record.head?.value.generation ?? 0)) return false;
    const epoch = readEpoch(textOf(kv.value));
    if (epoch === undefined) this.#onOdd(textOf(kv.key));
    else record.acks.set(key, { acked: { host, generation, life, epoch }, revision });
    return true;
  }
}
