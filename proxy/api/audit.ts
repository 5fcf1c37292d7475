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

/** A group's name, which may be a stranger's own words, comes last: nothing before it has a line end. */
const kindOf = ({ who, from, command, group, outcome }: AuditEntry): string => `${who}\n${from}\n${command}\n${outcome}\n${group === undefined ? '' : `/${group}`}`;

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
    const kind = kindOf(entry);
    if (this.#count(kind, entry)) return;
    if (this.#repeats.size < KINDS_MAX) return this.#begin(kind, entry);
    if (done) {
      this.flush();
      return this.#begin(kind, entry);
    }
    const { who, outcome } = entry;
    const other = { who, command: OTHERS, outcome };
    if (!this.#count(kindOf(other), other)) this.#begin(kindOf(other), other);
  }

  #begin(kind: string, entry: AuditEntry): void {
    this.#repeats.set(kind, { last: entry, times: 0 });
    this.#write(entry);
  }

  /** False: the first of its kind. */
  #count(kind: string, entry: AuditEntry): boolean {
    const known = this.#repeats.get(kind);
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
