/**
 * The journal: what must outlive the daemon, in one file.
 *
 *    journal   │ header │ snapshot │ line │ line │ line │ 0 0 0 0 0 0 … 0 │   fixed size, zeros ahead
 *                                                       └ next line goes here, in place
 *    journal.next   the same, or twice as large where that one filled quickly, made once that one is half used
 *
 * Lines go into space that is allocated and written already, so a sync flushes data and no
 * metadata: 0.13 ms here (0.19 when the file grows with each line). All appends that arrive in one
 * turn are one write, and share the next sync with those that come during one, whichever group they
 * are of. One alone is synced by a
 * blocking call: two hops to the thread pool cost as much as the disk, and on an idle machine four
 * times that. Several share one sync on the pool, and so does one alone for a while after a
 * blocking sync was slow, so that a slow disk delays commits and not the API. A generation that
 * begins tries the blocking one all the same, because VMs stand still for it; at most once a second,
 * so that a host's worth of groups that die together does not stop the API for a slow sync each.
 *
 *    append(durable) ─► write ─► wait for a sync that began after the write
 *    append          ─► write                     (a later durable append covers it: one file, in order)
 *
 * Full: the latest record of each group is written to journal.next, synced, renamed over journal,
 * the directory synced. A failed write or sync makes the present file suspect (a page the kernel
 * could not write may be dropped from its cache): nothing is appended to it again, a new file must
 * be made first, and until that works every append fails with `journal_failed`. So half a line
 * never stands before another. Making the new file is also tried once a second.
 *
 * It does not know what a record means. One process a directory: `lock` is held by flock.
 */
import { close, closeSync, fdatasync, fdatasyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { GroupId, Journal, JournalRecord } from '../ports.ts';
import { EdgeError } from '../ports.ts';
import type { GroupSpec, GroupState } from '../core/types.ts';
import { lockExclusively } from './ffi/flock.ts';
import { FORMAT, JournalDamage, encode, parse } from './journal-format.ts';
import type { Entry } from './journal-format.ts';
import { makeRoom, syncDirectory, writeAll } from './journal-room.ts';
import type { Room } from './journal-room.ts';
import { Turn } from './journal-turn.ts';

const aClose = promisify(close);
const aDataSync = promisify(fdatasync);

/** Size of a new journal; a larger one is made when a snapshot needs more than a quarter of it. */
const BYTES_MIN = 4 * 1024 * 1024;
/** Everybody waits while a file is replaced: one that was half full before this is followed by one of twice its size, up to GROWS_MAX times the least. A start reads it whole. */
const HALF_MS_MIN = 5000;
const GROWS_MAX = 4;
const MEND_MS = 1000;
/** A blocking sync that took longer is followed by so many on the thread pool. */
const SLOW_SYNC_MS = 1;
const POOLED_AFTER_SLOW = 100;
const BLOCKING_BEGIN_APART_MS = 1000;

export interface JournalOptions {
  /** Default 4 MiB. */
  readonly bytesMin?: number;
  /** Told once at load when a torn tail was cut off. */
  readonly onTorn?: (bytes: number) => void;
}
interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: EdgeError) => void;
}

export class JournalFile implements Journal {
  readonly #dir: string;
  readonly #options: JournalOptions;
  readonly #lock: number;
  readonly #latest = new Map<string, JournalRecord>();
  /** Specs as written in the present file, by group number: a line with the same one leaves it out. */
  readonly #specs = new Map<GroupId, GroupSpec>();
  #file: Room | undefined;
  /** undefined inside: it could not be made. */
  #spare: Promise<Room | undefined> | undefined;
  /** Where the next line goes, and its number; those of this turn, not written yet, are counted. */
  #pos = 0;
  #seq = 0;
  readonly #turn = new Turn(() => this.#flush());
  #synced = -1;
  #begunMs = 0;
  /** The present file takes no more lines. */
  #suspect = true;
  #writable = true;
  #renewing: Promise<void> | undefined;
  #waiters: Waiter[] = [];
  #syncing: Promise<void> | undefined;
  /** Syncs still to be made on the thread pool. */
  #pooled = 0;
  /** When a generation's beginning last went past the pool. */
  #pastPoolMs = -Infinity;
  #mend: NodeJS.Timeout | undefined;
  #closed = false;

  /** Takes the directory, and nobody else can until `close` or the end of the process. */
  static open(dir: string, options: JournalOptions = {}): JournalFile {
    try {
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      const lock = openSync(join(dir, 'lock'), 'a', 0o600);
      if (lockExclusively(lock)) return new JournalFile(dir, options, lock);
      closeSync(lock);
    } catch (error) {
      throw failed(`cannot use state directory ${dir}`, error, 'give a directory that this user may write (state:)');
    }
    throw new EdgeError('journal_failed', `state directory ${dir} is in use by another sluiced`, 'stop that one, or give this one a directory of its own (state:)');
  }

  private constructor(dir: string, options: JournalOptions, lock: number) {
    this.#dir = dir;
    this.#options = options;
    this.#lock = lock;
  }

  get writable(): boolean {
    return this.#writable;
  }

  async load(): Promise<readonly JournalRecord[]> {
    for (const record of this.#read()) this.#latest.set(record.state.spec.group, record);
    try {
      await this.#renew();
    } catch (error) {
      if (!hasNoSpace(error)) throw error; // a full disk is no reason not to start: frames are held
    }
    return [...this.#latest.values()];
  }

  append(record: JournalRecord, durable: boolean): Promise<void> {
    const { id, state } = record;
    const { spec } = state;
    const before = this.#latest.get(spec.group);
    this.#latest.set(spec.group, record);
    return this.#put(this.#entryOf(record), durable, before?.state.generation !== state.generation).then(
      () => void this.#specs.set(id, spec),
      (error: unknown) => this.#takeBack(spec.group, before, error),
    );
  }

  forget(group: string): Promise<void> {
    const before = this.#latest.get(group);
    this.#latest.delete(group);
    return this.#put({ gone: group }, true, false).catch((error: unknown) => this.#takeBack(group, before, error));
  }

  #takeBack(group: string, before: JournalRecord | undefined, error: unknown): never {
    if (before === undefined) this.#latest.delete(group);
    else this.#latest.set(group, before);
    throw error;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#mend);
    await nextTurn(); // what was added in this one is written, and its sync has begun
    await this.#renewing?.catch(() => undefined);
    await this.#syncing;
    const spare = await this.#spare;
    for (const file of [this.#file, spare]) if (file !== undefined) await aClose(file.fd);
    rmSync(this.#path('journal.next'), { force: true });
    closeSync(this.#lock);
  }

  #path(name: string): string {
    return join(this.#dir, name);
  }

  #read(): readonly JournalRecord[] {
    let bytes: Buffer;
    try {
      bytes = readFileSync(this.#path('journal'));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw failed(`cannot read ${this.#path('journal')}`, error, 'make it readable for this user');
    }
    try {
      const { records, tornBytes } = parse(bytes);
      if (tornBytes > 0) this.#options.onTorn?.(tornBytes);
      return records;
    } catch (error) {
      if (!(error instanceof JournalDamage)) throw error;
      throw new EdgeError(
        'journal_failed',
        `${this.#path('journal')} is damaged: ${error.message}; what is protected stays held`,
        'restore the file from a copy; or, when the VMs of all groups are stopped, move it away and protect again',
        error,
      );
    }
  }

  #entryOf({ id, state }: JournalRecord): Entry {
    return this.#specs.get(id) === state.spec ? { id, state: { ...state, spec: undefined } } : entryWithSpec(id, state);
  }

  /** The entry is in `#latest` already, so a new file has it in its snapshot. */
  #put(entry: Entry, durable: boolean, begins: boolean): Promise<void> {
    if (this.#renewing !== undefined) return this.#renewing.catch(() => undefined).then(() => this.#put(entry, durable, begins));
    if (this.#closed) return Promise.reject(new EdgeError('journal_failed', 'the journal is closed', 'ask again when the daemon is back'));
    const file = this.#file;
    const line = lineOf(this.#seq, this.#synced, entry);
    if (line instanceof Error) return Promise.reject(line);
    const bytes = Buffer.byteLength(line);
    if (file === undefined || this.#suspect || this.#pos + bytes > file.bytes) return this.#renew();
    this.#pos += bytes;
    this.#seq += 1;
    const written = this.#turn.add(line);
    return durable ? written.then(() => this.#onDisk(begins)) : written;
  }

  /** What was written is: by a sync that began since, or in the snapshot of a new file. */
  #onDisk(begins: boolean): Promise<void> {
    if (begins) this.#maybePastPool();
    return this.#renewing ?? this.#sync();
  }

  /** A generation that begins is waited for by VMs that stand still, and comes rarely: no hops to the pool. */
  #maybePastPool(): void {
    const now = performance.now();
    if (this.#pooled === 0 || now - this.#pastPoolMs < BLOCKING_BEGIN_APART_MS) return;
    this.#pastPoolMs = now;
    this.#pooled = 0;
  }

  /** Everything that was added is written when it returns, or has been refused. */
  #flush(): void {
    const file = this.#file;
    const lines = file === undefined ? undefined : this.#turn.take();
    if (file === undefined || lines === undefined) return;
    const { bytes, settle } = lines;
    try {
      const written = writeSync(file.fd, bytes, 0, bytes.length, this.#pos - bytes.length);
      if (written !== bytes.length) {
        writeSync(file.fd, Buffer.alloc(written), 0, written, this.#pos - bytes.length); // all are refused: none may be found
        throw new Error(`only ${written} of ${bytes.length} bytes were written`);
      }
    } catch (error) {
      settle(this.#suspects(failed(`cannot write ${this.#path('journal')}`, error, 'look at the disk (dmesg)')));
      return;
    }
    settle(undefined);
    if (this.#pos > file.bytes / 2) this.#spare ??= this.#makeSpare(file);
  }

  /** Where there is no room for a larger one, one of the same size. */
  #makeSpare(present: Room): Promise<Room | undefined> {
    const next = this.#path('journal.next');
    const bytes = this.#bytesAfter(present);
    return makeRoom(next, bytes).catch((error: unknown) => {
      if (bytes === present.bytes) throw error;
      return makeRoom(next, present.bytes);
    }).catch(() => undefined);
  }
  #bytesAfter({ bytes }: Room): number {
    const most = GROWS_MAX * (this.#options.bytesMin ?? BYTES_MIN);
    return performance.now() - this.#begunMs > HALF_MS_MIN ? bytes : Math.max(bytes, Math.min(2 * bytes, most));
  }

  #suspects(error: EdgeError): EdgeError {
    this.#suspect = true;
    this.#writable = false;
    this.#mendLater();
    return error;
  }

  #sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#syncing ??= this.#syncAll();
    });
  }

  /** One sync at a time; who comes during one waits for the next. Never rejects. */
  async #syncAll(): Promise<void> {
    await Promise.resolve(); // what is appended in the same turn shares this sync
    while (this.#waiters.length > 0 && this.#file !== undefined) {
      this.#flush();
      const waiters = this.#waiters;
      this.#waiters = [];
      const upTo = this.#seq - 1;
      try {
        if (this.#suspect) throw new Error('an earlier write of this file failed');
        await this.#syncData(this.#file.fd, waiters.length);
        this.#synced = upTo;
        for (const { resolve } of waiters) resolve();
      } catch (error) {
        const why = this.#suspects(failed(`cannot sync ${this.#path('journal')}`, error, 'look at the disk (dmesg)'));
        for (const { reject } of waiters) reject(why);
      }
    }
    this.#syncing = undefined;
  }

  async #syncData(fd: number, waiters: number): Promise<void> {
    if (waiters > 1 || this.#pooled > 0) {
      this.#pooled = Math.max(0, this.#pooled - 1);
      await aDataSync(fd);
      return;
    }
    const begin = performance.now();
    fdatasyncSync(fd);
    if (performance.now() - begin > SLOW_SYNC_MS) this.#pooled = POOLED_AFTER_SLOW;
  }

  /** Makes a new file with the latest of every group and goes on in it. */
  #renew(): Promise<void> {
    this.#renewing ??= this.#makeNew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #makeNew(): Promise<void> {
    this.#flush();
    await this.#syncing;
    await nextTurn(); // who was refused by a write or sync that failed has taken its record back: it must not be in the snapshot
    this.#suspect = true;
    try {
      const lines = this.#snapshot();
      const spare = await this.#takeSpare(lines.length);
      const old = this.#file;
      this.#file = spare; // suspect until the end: no line goes into it before
      this.#pos = lines.length;
      if (old !== undefined) await aClose(old.fd);
      await writeAll(spare.fd, lines, 0);
      await aDataSync(spare.fd);
      renameSync(this.#path('journal.next'), this.#path('journal'));
      await syncDirectory(this.#dir);
    } catch (error) {
      throw this.#suspects(failed(`cannot write a new journal in ${this.#dir}`, error, hasNoSpace(error) ? 'make room on that file system' : 'look at the disk (dmesg)'));
    }
    this.#synced = this.#seq - 1;
    this.#begunMs = performance.now();
    this.#suspect = false;
    this.#writable = true;
  }

  #snapshot(): Buffer {
    const last = this.#latest.size;
    const lines = [encode(0, last, { format: FORMAT })];
    this.#specs.clear();
    for (const { id, state } of this.#latest.values()) {
      lines.push(encode(lines.length, last, entryWithSpec(id, state)));
      this.#specs.set(id, state.spec);
    }
    this.#seq = lines.length;
    return Buffer.from(lines.join(''));
  }

  async #takeSpare(need: number): Promise<Room> {
    const ready = await this.#spare;
    this.#spare = undefined;
    if (ready !== undefined && ready.bytes >= 4 * need) return ready;
    if (ready !== undefined) await aClose(ready.fd);
    return makeRoom(this.#path('journal.next'), Math.max(this.#options.bytesMin ?? BYTES_MIN, 4 * need));
  }

  #mendLater(): void {
    if (this.#closed || this.#mend !== undefined) return;
    this.#mend = setTimeout(() => {
      this.#mend = undefined;
      if (this.#suspect && !this.#closed) this.#renew().catch(() => undefined); // it reminds itself
    }, MEND_MS);
    this.#mend.unref();
  }
}

const nextTurn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

const entryWithSpec = (id: GroupId, { spec, ...state }: GroupState): Entry => ({ id, spec, state });

/** What throws here must be refused like what fails later: its record is taken back. */
function lineOf(...of: Parameters<typeof encode>): string | Error {
  try {
    return encode(...of);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

const codeOf = (error: unknown): string | undefined => (error instanceof Error && 'code' in error ? String(error.code) : undefined);

function hasNoSpace(error: unknown): boolean {
  const code = codeOf(error instanceof EdgeError ? error.cause : error);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

function failed(what: string, error: unknown, fix: string): EdgeError {
  const why = error instanceof Error ? error.message : String(error);
  return new EdgeError('journal_failed', `${what}: ${why}`, fix, error);
}
