/**
 * The ledger on etcd.
 *
 *    publish ─► wanted, one a group ─► at most ACKS_PER_TXN groups a transaction, TXNS_MAX under way
 *                    ▲   all together; where one is refused, each by itself, so that it stops no other
 *                    └── late or failed, or the store forgot it: wanted again, unless a newer one is
 *
 *    range (at revision r) ─► watch from r + 1 ─► the newest of each key ─► views
 *         ▲                      │ broke: again from the last revision seen, at the next endpoint
 *         └── compacted ─────────┘
 *
 *    heartbeat ─► our name under our lease ─► comes back by the watch
 *                  └ is another daemon's ─► onClash: no ack is written, the daemon must not go on
 *
 * A watch that is silent may be well or dead (a paused member, a cut network): our own heartbeat
 * comes back by it every HEARTBEAT_MS, and where it hasn't for SILENCE_MS the watch is broken off.
 * Older revisions count for nothing (etcd-records.ts), also over a restart of the watch; a restart of the daemon begins with a linearizable read. So a host is never shown an
 * older head than it was shown before, but by a store that went back: brought back from a backup, it
 * answers with a revision below one that it had answered before the question, and all is read anew
 * (D84). Two daemons of one name would ack for each other's members:
 * a name belongs to one owner while its lease lives, and every ack asks for that too. Bounds: one ack wanted a
 * group, one heartbeat and COMMANDS_MAX commands under way; further ones wait, TURN_MS at most.
 */
import { randomInt } from 'node:crypto';
import type { Acked, LedgerView, Swap } from '../core/types.ts';
import { EdgeError } from '../ports.ts';
import type { Ledger } from '../ports.ts';
import { CALL_MS, EtcdGrpc } from './etcd-grpc.ts';
import type { EtcdConfig } from './etcd-grpc.ts';
import type { EtcdTls } from './etcd-tls.ts';
import { Keys, ownerIn, underPrefix } from './etcd-keys.ts';
import type { Acks } from './etcd-keys.ts';
import { DELETED, LEASE_ALIVE, LEASE_GRANT, LEASE_REVOKE, RANGE, STATUS, textOf, TXN, WATCH } from './etcd-messages.ts';
import type { Event, Header, KeyValue, Method } from './etcd-messages.ts';
import { Records } from './etcd-records.ts';
import { StoreSize } from './etcd-size.ts';

/** etcd takes 128 operations in a transaction by default. */
const ACKS_PER_TXN = 100;
const TXNS_MAX = 4;
/** Reads and swaps under way; with acks, heartbeat and watch the connection of all calls (etcd-grpc.ts). */
const COMMANDS_MAX = 4;
const TURN_MS = 2000;
const AGAIN_MS = 20;
const HEARTBEAT_MS = 500;
const SILENCE_MS = 1500;
/** A host that is not heard of for so long is gone from the ledger. */
export const LEASE_S = 3;
/** Our own numbers of leases: etcd's do not fit a safe integer. One that exists already is refused. */
const LEASE_ID_MAX = 2 ** 48 - 1;
const LISTENS_AGAIN_MS = 50;

export interface EtcdLedgerOptions extends EtcdConfig {
  readonly self: string;
  /** This daemon among all there could be: the same in its next life on the same state, never another's. */
  readonly owner: string;
  readonly prefix: string;
  /** It could not be reached, or can be again; once a change. */
  readonly onState?: (ok: boolean, why: string) => void;
  /** A key whose value no host wrote: it counts as missing, its group commits nothing. */
  readonly onOdd?: (key: string) => void;
  /** A host's lease ran out, or it is there again. */
  readonly onHost?: (host: string, isAlive: boolean) => void;
  /** etcd's file has grown large (etcd-size.ts). */
  readonly onFilling?: (bytes: number) => void;
  /** The store answered with a revision below an earlier one: it was brought back from a backup. */
  readonly onWentBack?: (was: number, is: number) => void;
  /** Another daemon has this host's name. */
  readonly onClash?: (owner: string) => void;
}

export class EtcdLedger implements Ledger {
  readonly self: string;
  readonly #etcd: EtcdGrpc;
  readonly #keys: Keys;
  readonly #options: EtcdLedgerOptions;
  readonly #records: Records;
  /** Those whose lease lives, and when their heartbeat was last heard. */
  readonly #hosts = new Map<string, number>();
  readonly #wanted = new Map<string, Acked>();
  readonly #flying = new Set<string>();
  /** The newest of each group that was decided, to be said again to a store that went back. */
  readonly #said = new Map<string, Acked>();
  #txns = 0;
  #pumping: NodeJS.Immediate | undefined;
  #commands = 0;
  readonly #turns: (() => void)[] = [];
  #listeners: ((group: string, view: LedgerView) => void)[] = [];
  /** Up to here the watch has told. */
  #revision = 0;
  /** All is to be read before the watch goes on. */
  #anew = true;
  /** Newest that the store has answered with. */
  #newest = 0;
  #lease: number | undefined;
  #heardMs = 0;
  #ok = true;
  #closed = false;
  /** The first reading has ended, well or not. */
  #tried: () => void = () => undefined;
  #watching = new AbortController();
  #timers: NodeJS.Timeout[] = [];
  readonly #size: StoreSize;
  /** Transactions made, for those who want to know the load. */
  readonly counts = { ackTxns: 0, acks: 0, failures: 0, watches: 0 };

  constructor(options: EtcdLedgerOptions) {
    this.self = options.self;
    this.#options = options;
    this.#etcd = new EtcdGrpc(options);
    this.#keys = new Keys(options.prefix);
    this.#records = new Records((key) => options.onOdd?.(key));
    this.#size = new StoreSize(async () => (await this.#etcd.call(STATUS, {})).dbSize, (bytes) => options.onFilling?.(bytes));
  }

  /** Reads what is there, and follows it until `close`; what can't be reached now is tried again for ever. */
  async start(): Promise<void> {
    const first = new Promise<void>((resolve) => (this.#tried = resolve));
    void this.#follow();
    await first;
    await this.#beat();
    this.#timers.push(setInterval(() => void this.#beat(), HEARTBEAT_MS).unref());
  }

  get ok(): boolean {
    return this.#ok;
  }
  get hosts(): ReadonlyMap<string, number> {
    return this.#hosts;
  }
  /** Size of etcd's file as it last said; undefined = not asked yet. */
  get storeBytes(): number | undefined {
    return this.#size.bytes;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#watching.abort();
    if (this.#lease !== undefined) await this.#etcd.call(LEASE_REVOKE, { ID: this.#lease }).catch(() => undefined);
    this.#etcd.close();
  }

  /** Other certificates from now on: they were renewed. */
  show(tls: EtcdTls | undefined): void {
    this.#etcd.show(tls);
    this.#watching.abort(); // the watch goes on over a connection that shows them
  }

  onView(listener: (group: string, view: LedgerView) => void): void {
    this.#listeners = [...this.#listeners, listener];
    for (const group of this.#records.groups) listener(group, this.#records.viewOf(group));
  }

  async read(group: string): Promise<LedgerView> {
    const { kvs } = await this.#inTurn(RANGE, underPrefix(this.#keys.group(group)));
    const news = kvs.filter((kv) => this.#put(kv) !== undefined);
    if (news.length > 0) this.#tell(group); // to the watch it will be nothing new
    return this.#records.viewOf(group);
  }

  async swap(group: string, swap: Swap): Promise<boolean> {
    const { succeeded } = await this.#inTurn(TXN, this.#keys.swapTxn(group, swap));
    return succeeded;
  }

  /** Commands of many groups at once wait here and not at etcd, where their deadlines would run, and acks come before them. */
  async #inTurn<Q, A extends object>(method: Method<Q, A>, question: Q): Promise<A> {
    const askedMs = performance.now();
    if (this.#commands >= COMMANDS_MAX) await new Promise<void>((resolve) => this.#turns.push(resolve));
    else this.#commands += 1;
    try {
      if (performance.now() - askedMs > TURN_MS) throw new EdgeError('ledger_down', `more commands wait for etcd than it does in ${TURN_MS} ms`, 'ask again; when it stays so, look at etcd: frames stay held');
      return await this.#call(method, question);
    } finally {
      const next = this.#turns.shift(); // takes over this one's place
      if (next === undefined) this.#commands -= 1;
      else next();
    }
  }

  publish(group: string, acked: Omit<Acked, 'host'>): void {
    const before = this.#wanted.get(group);
    if (before?.generation === acked.generation && before.life === acked.life && before.epoch >= acked.epoch) return;
    this.#wanted.set(group, { ...acked, host: this.self });
    this.#pumping ??= setImmediate(() => this.#pump()); // those of one turn share a transaction
  }

  /** Of a life that is over, as far as was heard: nobody waits for it, and a store that went back may not know that it is. One that was not heard of yet is not. */
  #isOver(group: string, { generation, life }: Acked): boolean {
    const { head } = this.#records.viewOf(group);
    return head !== undefined && (head.generation > generation || (head.generation === generation && head.life !== life));
  }

  #pump(): void {
    this.#pumping = undefined;
    if (this.#anew) return; // what the store knows is read first
    while (this.#txns < TXNS_MAX && !this.#closed) {
      const batch = [...this.#wanted].filter(([group]) => !this.#flying.has(group)).slice(0, ACKS_PER_TXN);
      if (batch.length === 0) return;
      for (const [group] of batch) {
        this.#wanted.delete(group);
        this.#flying.add(group);
      }
      void this.#write(batch);
    }
  }

  /** Written, or refused because it is fenced or old: either way nobody wants it any more. */
  async #write(batch: Acks): Promise<void> {
    this.#txns += 1;
    this.counts.ackTxns += 1;
    try {
      if (!(await this.#say(batch))) {
        void this.#beat(); // the name's lease had run out: it is taken anew, or is another's by now
        throw new EdgeError('ledger_down', 'the lease of this host\'s name had run out', 'nothing: it is taken anew');
      }
      this.counts.acks += batch.length;
      for (const [group, acked] of batch) this.#said.set(group, acked);
    } catch {
      for (const [group, acked] of batch) if (!this.#wanted.has(group) && !this.#isOver(group, acked)) this.#wanted.set(group, acked);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    } finally {
      this.#txns -= 1;
      for (const [group] of batch) this.#flying.delete(group);
      this.#pump();
    }
  }

  /** Together where none is refused, which is nearly always; else one by one. False: the name is not ours. */
  async #say(batch: Acks): Promise<boolean> {
    const mine = this.#keys.ownedBy(this.self, this.#options.owner);
    const { succeeded: all } = await this.#call(TXN, this.#keys.allAcksTxn(batch, mine));
    if (all) return true;
    const { succeeded } = await this.#call(TXN, this.#keys.eachAckTxn(batch, mine));
    return succeeded;
  }

  async #call<Q, A extends object>(method: Method<Q, A>, question: Q): Promise<A> {
    const newest = this.#newest;
    try {
      const answer: A & { readonly header?: Header | null } = await this.#etcd.call(method, question, CALL_MS);
      if (method.path === TXN.path) this.#be(true, ''); // it writes: reads and leases are answered by one that is full, too
      if (answer.header !== undefined) this.#noteRevision(answer.header?.revision ?? Number.NaN, newest);
      return answer;
    } catch (error) {
      this.counts.failures += 1;
      this.#be(false, error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Reads and writes are linearizable: an answer is at least as new as every one that came before it was asked for. */
  #noteRevision(is: number, was: number): void {
    const isKnown = is >= was || this.#newest < was; // an answer asked for at the same time has said it already
    if (isKnown || !Number.isSafeInteger(is)) {
      this.#newest = Math.max(this.#newest, is || 0);
      return;
    }
    this.#newest = is;
    for (const [group, acked] of this.#said) if (!this.#wanted.has(group)) this.#wanted.set(group, acked);
    for (const [group, acked] of this.#wanted) if (this.#isOver(group, acked)) this.#wanted.delete(group);
    this.#records.clear();
    this.#anew = true;
    this.#watching.abort();
    this.#options.onWentBack?.(was, is);
  }

  #be(ok: boolean, why: string): void {
    if (ok === this.#ok || this.#closed) return;
    this.#ok = ok;
    this.#options.onState?.(ok, why);
  }

  /** What is gone from the store while nobody watched is taken out here. */
  async #readAll(): Promise<void> {
    const { header, kvs } = await this.#call(RANGE, underPrefix(this.#keys.prefix));
    const there = new Set(kvs.map(({ key }) => textOf(key)));
    for (const host of [...this.#hosts.keys()]) if (!there.has(this.#keys.host(host))) this.#forgetHost(host);
    for (const kv of kvs) this.#put(kv);
    this.#revision = header?.revision ?? 0;
    this.#anew = false;
    for (const group of this.#records.groups) this.#tell(group);
    this.#pump();
  }

  async #follow(): Promise<void> {
    while (!this.#closed) {
      try {
        if (this.#anew) await this.#readAll();
        this.#tried();
        await this.#watch();
      } catch (error) {
        if (!(error instanceof EdgeError)) throw error;
        this.#tried();
      }
      await new Promise((resolve) => setTimeout(resolve, LISTENS_AGAIN_MS));
    }
  }

  async #watch(): Promise<void> {
    this.counts.watches += 1;
    this.#watching = new AbortController();
    this.#heardMs = performance.now();
    const request = { create_request: { ...underPrefix(this.#keys.prefix), start_revision: this.#revision + 1 } };
    if (this.#anew) return; // it went back since it was read
    for await (const { canceled, compact_revision: compacted, events } of this.#etcd.stream(WATCH, request, this.#watching.signal)) {
      if (this.#anew) return; // what is still in the buffer is of the store that is gone
      if (compacted > 0 && canceled) return this.#readAll();
      if (canceled) return;
      this.#take(events);
    }
  }

  #take(events: readonly Event[]): void {
    const groups = new Set<string>();
    for (const { type, kv } of events) {
      if (kv === null) continue;
      const group = type === DELETED ? this.#remove(kv) : this.#put(kv);
      this.#revision = Math.max(this.#revision, kv.mod_revision);
      if (group !== undefined) groups.add(group);
    }
    for (const group of groups) this.#tell(group);
  }

  /** The group whose record it is, where it is newer than what is known. */
  #put(kv: KeyValue): string | undefined {
    const key = textOf(kv.key);
    const place = this.#keys.placeOf(key);
    if (place === undefined) return undefined;
    if (place.kind === 'host') return this.#heard(place.host);
    return this.#records.put(place, key, kv) ? place.group : undefined;
  }

  #remove(kv: KeyValue): string | undefined {
    const place = this.#keys.placeOf(textOf(kv.key));
    if (place?.kind === 'host') this.#forgetHost(place.host);
    if (place?.kind !== 'head') return undefined;
    this.#records.removeHead(place, kv);
    return place.group;
  }

  #heard(host: string): undefined {
    const isNew = !this.#hosts.has(host);
    this.#hosts.set(host, performance.now());
    if (host === this.self) this.#heardMs = performance.now();
    if (isNew && host !== this.self) this.#options.onHost?.(host, true);
  }
  #forgetHost(host: string): void {
    if (this.#hosts.delete(host) && host !== this.self) this.#options.onHost?.(host, false);
  }

  #tell(group: string): void {
    const view = this.#records.viewOf(group);
    for (const listener of this.#listeners) listener(group, view);
  }

  #beating = false;
  async #beat(): Promise<void> {
    if (performance.now() - this.#heardMs > SILENCE_MS) {
      this.#etcd.avoid(this.#etcd.endpoint);
      this.#watching.abort();
    }
    if (this.#beating || this.#closed) return;
    this.#beating = true;
    try {
      this.#lease = await this.#keepLease();
      const { owner } = this.#options;
      const other = ownerIn(await this.#call(TXN, this.#keys.claimTxn(this.self, owner, this.#lease)));
      if (other !== undefined) this.#options.onClash?.(other);
      await this.#size.look();
    } catch (error) {
      if (!(error instanceof EdgeError)) throw error;
      if (/lease not found/.test(error.message)) this.#lease = undefined;
    } finally {
      this.#beating = false;
    }
  }

  /** The one we have where it lives, else a new one. */
  async #keepLease(): Promise<number> {
    if (this.#lease !== undefined) {
      const { TTL } = await this.#call(LEASE_ALIVE, { ID: this.#lease });
      if (TTL > 0) return this.#lease;
    }
    const ID = randomInt(1, LEASE_ID_MAX);
    await this.#call(LEASE_GRANT, { TTL: LEASE_S, ID });
    return ID;
  }
}
