/**
 * The outside view of a run: what was asked and answered, when frames were sent, when they came
 * out. It knows nothing of colours, cells or watermarks.
 *
 *    cut(e) ├── begun ─── answered ──┤          a frame sent before `begun` is of epoch <= e,
 *      hi rises ▲            ▲ lo rises         one sent after `answered` of an epoch > e:
 *                                               lo <= its epoch <= hi
 *
 * An *execution* ends with a rollback or takeover; its frames may leave up to the epoch that the
 * engine had declared durable before they did (`allowed`). Doubt is never held against the system.
 *
 * A *ghost* is a member of the execution that a takeover ended and that goes on sending where it was:
 * nothing it says from then on may come out anywhere.
 */
export interface SentFrame {
  readonly id: number;
  readonly from: string;
  readonly to: string;
  readonly seq: number;
  readonly life: number;
  readonly sentAt: number;
  /** undefined: nothing protected its sender when it was sent. */
  readonly bound: { readonly execution: Execution; readonly lo: number; readonly hi: number } | undefined;
}
interface Execution {
  allowed: number;
  /** Frames sent from here on may leave: protection was asked to end. */
  freeFrom: number;
  /** unprotect(release): all may. */
  freeAll: boolean;
  readonly ackBegun: Map<string, number>;
  /** A rollback ended it here: nothing later of it may ever have left. */
  endedAt: number | undefined;
  /** It ended by unprotect: what was held may be gone. */
  dropped: boolean;
}
interface Transit {
  readonly frame: SentFrame;
  readonly life: number;
  readonly hi: number;
  to: { execution: Execution; lo: number };
}
const execution = (allowed: number): Execution => ({ allowed, freeFrom: Infinity, freeAll: false, ackBegun: new Map(), endedAt: undefined, dropped: false });

export class Violation extends Error {
  override readonly name = 'Violation';
}

export class Oracle {
  now = 0;
  readonly counts = { sent: 0, ghosts: 0, out: 0, delivered: 0, redelivered: 0, lost: 0, rollbacks: 0, moves: 0, crashes: 0, pairsLost: 0 };
  #execution: Execution | undefined;
  /** What the last rollback or takeover ended, and to where. */
  #ended: { readonly execution: Execution; readonly to: number } | undefined;
  readonly #lo = new Map<string, number>();
  readonly #hi = new Map<string, number>();
  readonly #leftFrom = new Map<string, { at: number; release: boolean }>();
  /** When a member was last seen to have left. */
  readonly #gone = new Map<string, number>();
  readonly #seqSent = new Map<string, number>();
  readonly #seqOut = new Map<string, number>();
  readonly #out = new Set<number>();
  readonly #excused = new Set<number>();
  #frames: SentFrame[] = [];
  #transits: Transit[] = [];
  #due: Transit[] = [];

  get watching(): boolean {
    return this.#execution !== undefined;
  }

  /** Member names whose epochs are known for certain. */
  get members(): readonly string[] {
    return this.#execution === undefined ? [] : [...this.#lo.keys()];
  }

  sent(id: number, from: string, to: string, life: number): SentFrame {
    const lo = this.#lo.get(from);
    const bound = this.#execution === undefined || lo === undefined ? undefined : { execution: this.#execution, lo, hi: this.#hi.get(from) ?? lo };
    const frame = { id, from, to, seq: this.#nextSeq(from, to), life, sentAt: this.now, bound };
    this.counts.sent += 1;
    if (bound !== undefined) this.#frames.push(frame);
    return frame;
  }

  /** Of the execution that was ended last; undefined where none was. */
  maybeGhost(id: number, from: string, to: string, life: number): SentFrame | undefined {
    if (this.#ended === undefined) return undefined;
    this.counts.ghosts += 1;
    const { execution: x, to: endedAt } = this.#ended;
    return { id, from, to, seq: this.#nextSeq(from, to), life, sentAt: this.now, bound: { execution: x, lo: endedAt + 1, hi: Infinity } };
  }

  #nextSeq(from: string, to: string): number {
    const flow = `${from}>${to}`;
    const seq = (this.#seqSent.get(flow) ?? 0) + 1;
    this.#seqSent.set(flow, seq);
    return seq;
  }

  /** It came out at its destination, to which it is external. */
  left(frame: SentFrame): void {
    this.counts.out += 1;
    this.#once(frame);
    const { bound } = frame;
    if (bound === undefined) return;
    const { execution: x, lo } = bound;
    const gone = this.#leftFrom.get(frame.from);
    const free = x.freeAll || frame.sentAt >= x.freeFrom || (gone !== undefined && (gone.release || frame.sentAt >= gone.at));
    if (!free && lo > x.allowed) throw new Violation(`I1 output commit: frame ${frame.id} of epoch >= ${lo} left when ${x.allowed} was declared durable`);
    if (!free && x.endedAt !== undefined && lo > x.endedAt) throw new Violation(`I5 exact release: frame ${frame.id} of epoch >= ${lo} left after the rollback to ${x.endedAt}`);
  }

  /** Between two lives of the daemon nobody holds it: excused (I8). */
  lost(frame: SentFrame): void {
    this.counts.lost += 1;
    this.#excused.add(frame.id);
  }

  /** It reached a member of its group. */
  delivered(frame: SentFrame): void {
    this.counts.delivered += 1;
    this.#once(frame);
    const lo = this.#lo.get(frame.to);
    if (frame.bound === undefined || lo === undefined || this.#execution === undefined || this.#execution.dropped) return;
    if (frame.bound.execution !== this.#execution) {
      const ended = frame.bound.execution.endedAt;
      if (ended !== undefined && frame.bound.lo > ended) throw new Violation(`I2 no orphan: frame ${frame.id} of an execution that was rolled back reached ${frame.to}`);
      return;
    }
    const hi = this.#hi.get(frame.to) ?? lo;
    if (frame.bound.lo > hi) throw new Violation(`I2 no orphan: frame ${frame.id} of epoch >= ${frame.bound.lo} reached ${frame.to} in epoch <= ${hi}`);
    if (frame.bound.hi < lo) this.#transits.push({ frame, life: frame.life, hi: frame.bound.hi, to: { execution: this.#execution, lo } });
  }

  redelivered(frame: SentFrame): void {
    this.counts.redelivered += 1;
    this.#due = this.#due.filter((transit) => transit.frame !== frame);
  }

  #once(frame: SentFrame): void {
    if (this.#out.has(frame.id)) throw new Violation(`I5 exact release: frame ${frame.id} came out twice`);
    this.#out.add(frame.id);
    // Its early frames still wait at their receivers when a member's new ones pass it as a stranger's:
    // the ring does not know a frame's sender, so a leave among uneven members is no promise of order.
    if (frame.sentAt <= (this.#gone.get(frame.from) ?? -1) || (frame.bound !== undefined && this.#leftFrom.has(frame.from))) return;
    const flow = `${frame.from}>${frame.to}`;
    const last = this.#seqOut.get(flow) ?? 0;
    if (frame.seq < last) throw new Violation(`I6 per-flow order: frame ${frame.seq} (${frame.id}) of ${flow} came after ${last}`);
    this.#seqOut.set(flow, frame.seq);
  }

  /* What the engine asks: `begin…` when it does, the others with the answer. */

  beginProtect(members: readonly string[], at: number): () => void {
    return () => {
      this.ended();
      this.#execution = execution(at);
      this.#lo.clear();
      this.#hi.clear();
      this.#transits = [];
      for (const name of members) {
        this.#leftFrom.delete(name);
        this.setOpen(name, at + 1);
        this.#execution.ackBegun.set(name, at);
      }
    };
  }
  beginCut(epoch: number, member: string | undefined): () => void {
    for (const name of this.members) if (member === undefined || member === name) this.#hi.set(name, Math.max(this.#hi.get(name) ?? 0, epoch + 1));
    return () => {
      for (const name of this.members) if (member === undefined || member === name) this.setOpen(name, Math.max(this.#lo.get(name) ?? 0, epoch + 1));
    };
  }
  /** Known from the state the daemon shows when nothing is in flight. */
  setOpen(member: string, open: number): void {
    this.#lo.set(member, open);
    this.#hi.set(member, open);
  }
  setMembers(names: readonly string[]): void {
    for (const name of [...this.#lo.keys()]) {
      if (names.includes(name)) continue;
      this.#lo.delete(name);
      this.#hi.delete(name);
      this.#gone.set(name, this.now);
      this.#execution?.ackBegun.delete(name);
    }
  }
  /** What it sent before it left went the way the leave said. */
  joined(member: string, open: number): void {
    for (const frame of this.#frames) if (frame.from === member || frame.to === member) this.#excused.add(frame.id);
    this.#leftFrom.delete(member);
    this.setOpen(member, open);
    this.#execution?.ackBegun.set(member, open - 1);
  }
  beginCommit(epoch: number): void {
    const x = this.#execution;
    if (x === undefined) return;
    x.allowed = Math.max(x.allowed, epoch);
    for (const [name, acked] of x.ackBegun) x.ackBegun.set(name, Math.max(acked, epoch));
  }
  beginAck(epoch: number, members: readonly string[]): void {
    for (const name of members) this.#execution?.ackBegun.set(name, Math.max(this.#execution.ackBegun.get(name) ?? 0, epoch));
  }
  /** The commit may follow the acks of these members. */
  followAcks(members: readonly string[]): void {
    const x = this.#execution;
    if (x === undefined || members.length === 0) return;
    const least = Math.min(...members.map((name) => x.ackBegun.get(name) ?? 0));
    x.allowed = Math.max(x.allowed, least);
  }
  /** What was raised for a command that was denied is taken back. */
  snapshot(): () => void {
    const x = this.#execution;
    if (x === undefined) return () => undefined;
    const { allowed, freeFrom, freeAll, dropped } = x;
    const acks = new Map(x.ackBegun);
    const hi = new Map(this.#hi);
    const left = new Map(this.#leftFrom);
    return () => {
      Object.assign(x, { allowed, freeFrom, freeAll, dropped });
      for (const [name, acked] of acks) x.ackBegun.set(name, acked);
      for (const [name, value] of hi) this.#hi.set(name, value);
      this.#leftFrom.clear();
      for (const [name, value] of left) this.#leftFrom.set(name, value);
    };
  }
  beginUnprotect(release: boolean): void {
    if (this.#execution === undefined) return;
    this.#execution.freeAll ||= release;
    this.#execution.freeFrom = Math.min(this.#execution.freeFrom, this.now);
    this.#execution.dropped = true;
  }
  beginLeave(member: string, release: boolean): void {
    const before = this.#leftFrom.get(member);
    this.#leftFrom.set(member, { at: Math.min(this.now, before?.at ?? Infinity), release: release || (before?.release ?? false) });
  }
  ended(): void {
    for (const frame of this.#frames) this.#excused.add(frame.id);
    this.#execution = undefined;
    this.#lo.clear();
    this.#hi.clear();
    this.#transits = [];
  }

  /** A rollback or takeover to R was accepted; redeliveries of it have been made already. */
  restored(to: number, life: number): void {
    this.counts.rollbacks += 1;
    const x = this.#execution;
    if (x === undefined) return;
    for (const frame of this.#frames) {
      if (frame.bound?.execution === x && this.#out.has(frame.id) && frame.bound.lo > to && !x.dropped && !this.members.includes(frame.to) && frame.sentAt > (this.#gone.get(frame.from) ?? -1) && !this.#leftFrom.has(frame.from) && !this.#leftFrom.has(frame.to)) {
        throw new Violation(`I5 exact release: the group went back to ${to}, but frame ${frame.id} of epoch >= ${frame.bound.lo} had left`);
      }
    }
    const missed = this.#due.filter((transit) => transit.life === life && !this.#excused.has(transit.frame.id) && !this.#leftFrom.has(transit.frame.to));
    if (missed.length > 0) throw new Violation(`I3 in-transit: frame ${missed[0]?.frame.id} to ${missed[0]?.frame.to} was not delivered again by the rollback to ${to}`);
    x.endedAt = to;
    this.#ended = { execution: x, to };
    x.allowed = Math.max(x.allowed, to);
    const next = execution(to);
    for (const name of this.members) {
      next.ackBegun.set(name, to);
      this.setOpen(name, to + 1);
    }
    this.#execution = next;
    this.#transits = this.#transits.filter((transit) => transit.hi <= to && transit.to.execution === x);
    for (const transit of this.#transits) transit.to = { execution: next, lo: Math.min(transit.to.lo, to + 1) };
  }
  /** Which frames a rollback to R must deliver again; called when it is asked for. */
  beginRestore(to: number): void {
    this.#due = this.#transits.filter((transit) => !this.#excused.has(transit.frame.id) && transit.to.execution === this.#execution && transit.hi <= to && transit.to.lo > to && this.members.includes(transit.frame.to) && this.members.includes(transit.frame.from));
    this.beginCommit(to);
  }

  /** When all is quiet: what was declared durable and not lost has come out. */
  checkQuiet(committed: number, life: number, unready: readonly string[]): void {
    for (const frame of this.#frames) {
      const { bound } = frame;
      if (bound === undefined || frame.life !== life || bound.execution.dropped || unready.includes(frame.to) || this.#out.has(frame.id) || this.#excused.has(frame.id)) continue;
      if (this.#leftFrom.has(frame.from) || this.#leftFrom.has(frame.to)) continue;
      const upTo = bound.execution === this.#execution ? committed : bound.execution.endedAt;
      if (upTo !== undefined && bound.hi <= upTo) throw new Violation(`I5 exact release: frame ${frame.id} of epoch <= ${bound.hi} ${frame.from}>${frame.to} never came out, though ${upTo} is committed`);
    }
  }

  /** Frames of before a crash can only be lost now. */
  crashed(life: number): void {
    this.counts.crashes += 1;
    this.#due = [];
    this.#transits = this.#transits.filter((transit) => transit.life >= life);
  }
  forgetOld(): void {
    this.#frames = this.#frames.filter((frame) => frame.bound?.execution === this.#execution || this.now - frame.sentAt < 2000);
  }
}
