/**
 * Who commanded what, and what came of it: one entry a command, before its answer leaves.
 *
 *     command of an operator (apply, join, protect, takeover …) ─────────────► written, each
 *     of every epoch (cut, ack, commit), ignored, refused ─┬─ first of its kind ─► written
 *                                                          └─ repeat ─► counted ─► one line a period
 *
 * So an engine at 100 epochs a second, a stranger who tries 100,000 tokens, or the holder of a token
 * who asks for a group of another name each time, writes a few lines a period and not the disk full.
 * A kind is who, from where, what, which group and outcome. Kinds are bounded: beyond KINDS_MAX in a
 * period, refusals are counted by who and outcome alone. A repeated command that changed nothing
 * (`ignored`) counts like a refusal. No body, no query, no header gets here, so no secret does. Reads
 * are not audited, but for refused ones and for captures of held frames.
 */
const PERIOD_MS = 10_000;
const KINDS_MAX = 512;

export interface AuditEntry {
  readonly who: string;
  /** undefined on the unix socket. */
  readonly from?: string | undefined;
  readonly command: string;
  readonly group?: string | undefined;
  readonly member?: string | undefined;
  readonly generation?: number | undefined;
  readonly epoch?: number | undefined;
  readonly outcome: string;
  /** How many of this kind since the last line about it, this one included; absent = 1. */
  readonly times?: number;
}

const EVERY_EPOCH = /^POST .*\/(cut|ack|commit)$/;

/** Stands for the command where too many kinds were refused in a period. */
const OTHERS = 'others';

const kindOf = ({ who, from, command, group, outcome }: AuditEntry): string => JSON.stringify([who, from, command, group, outcome]);

export class Audit {
  readonly #write: (entry: AuditEntry) => void;
  readonly #repeats = new Map<string, { last: AuditEntry; times: number }>();
  readonly #timer: NodeJS.Timeout;

  constructor(write: (entry: AuditEntry) => void, periodMs = PERIOD_MS) {
    this.#write = write;
    this.#timer = setInterval(() => this.flush(), periodMs).unref();
  }

  record(entry: AuditEntry): void {
    const done = entry.outcome === 'accepted' || entry.outcome === 'sent';
    if (done && !EVERY_EPOCH.test(entry.command)) return this.#write(entry);
    if (this.#count(entry)) return;
    if (this.#repeats.size < KINDS_MAX) return this.#begin(entry);
    if (done) {
      this.flush();
      return this.#begin(entry);
    }
    const { who, outcome } = entry;
    const other = { who, command: OTHERS, outcome };
    if (!this.#count(other)) this.#begin(other);
  }

  #begin(entry: AuditEntry): void {
    this.#repeats.set(kindOf(entry), { last: entry, times: 0 });
    this.#write(entry);
  }

  /** False: the first of its kind. */
  #count(entry: AuditEntry): boolean {
    const known = this.#repeats.get(kindOf(entry));
    if (known === undefined) return false;
    known.last = entry;
    known.times += 1;
    return true;
  }

  flush(): void {
    for (const { last, times } of this.#repeats.values()) if (times > 0) this.#write({ ...last, times });
    this.#repeats.clear();
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }
}
