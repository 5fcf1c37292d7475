/**
 * A model of what stands around the control: the kernel's cells and classifier (they outlive the
 * daemon), the hold ring (it does not), the journal's file. Written from ARCHITECTURE.md, not from
 * the real parts; where it says "drops", a frame is lost.
 *
 *   send ─► classify ─┬─ deliver now                            commands ─► queue ─┐ each at a time
 *                     └─► wire (FIFO) ─► ring: sections ─► ready ─► second key ─► out   of its own
 */
import { colour as asColour, colourDiff } from '../../proxy/core/types.ts';
import type { Colour } from '../../proxy/core/types.ts';
import type { Oracle, SentFrame } from './oracle.ts';
import { Violation } from './oracle.ts';

export interface Queued {
  readonly frame: SentFrame;
  readonly kind: 'held' | 'early' | 'late';
  readonly colour: Colour;
  /** late: receiver's colour at delivery. */
  receiver: Colour;
}
export interface Cells {
  attached: boolean;
  colour: Colour;
  commit: Colour;
  drainAll: boolean;
  readonly members: Map<string, { port: string; colour: Colour; ready: boolean; drain: boolean }>;
}
const atMost = (a: Colour, b: Colour): boolean => colourDiff(a, b) <= 0;

export class Kernel {
  readonly cells: Cells = { attached: false, colour: asColour(0), commit: asColour(0), drainAll: false, members: new Map() };
  readonly oracle: Oracle;
  ring: Ring | undefined;
  wire: Queued[] = [];
  /** Ports that members were moved away from: nothing comes in there, until one is a member's again. */
  readonly closed = new Set<string>();
  /** False from when another tool deleted the hold pair until the gate has made a new one. */
  pairThere = true;
  /** Counts the pairs there were: a ring listens at one of them. */
  pair = 0;

  constructor(oracle: Oracle) {
    this.oracle = oracle;
  }

  colourOf(member: string): Colour {
    const own = this.cells.members.get(member)?.colour ?? this.cells.colour;
    return colourDiff(own, this.cells.colour) > 0 ? own : this.cells.colour;
  }

  /** By its member's port, or by one that the sender has been moved away from and knows nothing of it. */
  send(frame: SentFrame, by?: string): void {
    const source = this.cells.members.get(frame.from);
    if (by !== undefined && this.closed.has(by)) {
      this.oracle.lost(frame);
      return;
    }
    if (!this.cells.attached || source === undefined || (by !== undefined && by !== source.port)) {
      this.oracle.left(frame);
      return;
    }
    const colour = this.colourOf(frame.from);
    const target = this.cells.members.get(frame.to);
    if (target !== undefined) {
      this.#toMember(frame, colour, target.ready);
      return;
    }
    const draining = this.cells.drainAll || source.drain;
    if (draining && this.outstanding('held', (q) => q.frame.from === frame.from) === 0) this.oracle.left(frame);
    else this.#toRing({ frame, kind: 'held', colour, receiver: colour });
  }

  #toMember(frame: SentFrame, colour: Colour, ready: boolean): void {
    const receiver = this.colourOf(frame.to);
    if (!ready || !atMost(colour, receiver) || this.outstanding('early', (q) => q.frame.to === frame.to) > 0) {
      this.#toRing({ frame, kind: 'early', colour, receiver });
      return;
    }
    if (colour !== receiver) this.#toRing({ frame, kind: 'late', colour, receiver });
    this.oracle.delivered(frame);
  }

  #toRing(queued: Queued): void {
    if (this.pairThere) this.wire.push(queued);
    else this.oracle.lost(queued.frame);
  }

  /** The gate attaches: a pair that is gone is made anew. */
  providePair(): void {
    if (!this.pairThere) this.pair += 1;
    this.pairThere = true;
  }

  isMember(name: string): boolean {
    return this.cells.members.has(name);
  }

  outstanding(kind: Queued['kind'], which: (q: Queued) => boolean): number {
    const here = (list: readonly Queued[]) => list.reduce((n, q) => n + (q.kind === kind && which(q) ? 1 : 0), 0);
    return here(this.wire) + (this.ring === undefined ? 0 : here(this.ring.queue));
  }

  /** One frame from the pair into the ring, or to nobody. */
  arrive(): void {
    const queued = this.wire.shift();
    if (queued === undefined) return;
    if (this.ring === undefined) this.oracle.lost(queued.frame);
    else this.ring.arrive(queued);
  }

  /** The release program: the second key. */
  emit(queued: Queued): void {
    const { frame, kind, colour } = queued;
    if (kind === 'early') {
      if (!this.isMember(frame.to)) return;
      const receiver = this.colourOf(frame.to);
      if (!atMost(colour, receiver)) throw new Violation(`second key: early frame ${frame.id} sent ahead of its receiver`);
      this.oracle.delivered(frame);
      if (colour !== receiver) this.#toRing({ frame, kind: 'late', colour, receiver });
      return;
    }
    const drain = this.cells.drainAll || (this.cells.members.get(frame.from)?.drain ?? false);
    if (!drain && !atMost(colour, this.cells.commit)) throw new Violation(`second key: frame ${frame.id} sent before its commit`);
    this.oracle.left(frame);
  }

  /** `ip link del`: what is on the way and what is held will never get anywhere. */
  pairLost(): void {
    this.oracle.counts.lost += this.wire.length;
    this.wire = [];
    this.pairThere = false;
    this.ring?.cutOff();
  }

  processDied(): void {
    this.oracle.counts.lost += this.wire.length + (this.ring?.queue.length ?? 0);
    this.wire = [];
    this.ring = undefined;
  }
}

/** The hold ring of one life of the daemon. `queue` is in order of arrival. */
export class Ring {
  readonly #kernel: Kernel;
  queue: Queued[] = [];
  /** Its device is gone. */
  #deaf = false;
  /** Where it listens; -1 = it was opened where there was no pair. */
  readonly #pair: number;
  #oldest: Colour;
  #released: Colour;
  /** What was last said, and whether it is to be said again. */
  #reported: Colour;
  #again = false;
  #dead: { from: Colour; to: Colour }[] = [];
  readonly #receivers = new Map<string, Colour>();
  readonly #drains: { names: readonly string[] | undefined; release: boolean; done: (frames: number) => void }[] = [];

  constructor(kernel: Kernel, colour: Colour) {
    this.#kernel = kernel;
    this.#pair = kernel.pairThere ? kernel.pair : -1;
    this.#oldest = colour;
    this.#released = asColour(colour - 1);
    this.#reported = this.#released; // of what was before this ring it says nothing until asked
  }

  #isDead(c: Colour): boolean {
    return colourDiff(c, this.#oldest) < 0 || this.#dead.some(({ from, to }) => colourDiff(c, from) > 0 && colourDiff(c, to) < 0);
  }

  cutOff(): void {
    this.#deaf = true;
    this.#kernel.oracle.counts.lost += this.queue.length;
    this.queue = [];
  }
  /** Closed: who waits is answered. */
  end(): void {
    this.cutOff();
    for (const { done } of this.#drains.splice(0)) done(0);
  }

  arrive(queued: Queued): void {
    if (this.#deaf || this.#pair !== this.#kernel.pair) this.#kernel.oracle.lost(queued.frame);
    else if (colourDiff(queued.colour, this.#oldest) < 0) this.#kernel.oracle.lost(queued.frame);
    else if (this.#isDead(queued.colour)) this.#kernel.oracle.counts.lost += 1;
    else this.queue.push(queued);
  }
  release(c: Colour): void {
    if (colourDiff(c, this.#released) > 0) this.#released = c;
    if (atMost(c, this.#reported)) this.#again = true;
    this.queue = this.queue.filter((q) => q.kind !== 'late' || !atMost(q.receiver, c));
  }
  receiver(names: readonly string[], c: Colour): void {
    for (const name of names) this.#receivers.set(name, c);
  }
  /** Waits first for the records that were on their way when it was asked for. */
  restore(restored: Colour, next: Colour): void {
    while (this.#kernel.wire.length > 0) this.#kernel.arrive();
    this.#dead.push({ from: restored, to: next });
    this.#released = asColour(next - 1); // the dead ones between are decided too
    const lates = this.queue.filter((q) => q.kind === 'late');
    this.queue = this.queue.filter((q) => q.kind !== 'late' && !this.#isDead(q.colour));
    for (const name of this.#receivers.keys()) this.#receivers.set(name, next);
    for (const late of lates) {
      if (!atMost(late.colour, restored)) continue;
      if (colourDiff(late.receiver, restored) > 0) {
        if (this.#kernel.isMember(late.frame.to)) this.#kernel.oracle.redelivered(late.frame);
        late.receiver = next;
      }
      this.queue.push(late);
    }
  }
  drain(names: readonly string[] | undefined, release: boolean, done: (frames: number) => void): void {
    this.#drains.push({ names, release, done });
  }

  #drainOf(q: Queued): { release: boolean } | undefined {
    const of = q.kind === 'early' ? q.frame.to : q.frame.from;
    return this.#drains.find(({ names }) => names === undefined || names.includes(of));
  }
  /** As far as the ring has been told. */
  #reached(q: Queued): boolean {
    const receiver = this.#receivers.get(q.frame.to);
    return receiver !== undefined && atMost(q.colour, receiver);
  }
  #mayGo(q: Queued): boolean {
    if (q.kind === 'late') return false;
    if (this.#drainOf(q) !== undefined) return true;
    if (q.kind === 'held') return atMost(q.colour, this.#released);
    return this.#reached(q);
  }

  /** The next that may go. False = nothing may. */
  emitOne(): boolean {
    const at = this.queue.findIndex((q) => this.#mayGo(q));
    const [queued] = at < 0 ? [] : this.queue.splice(at, 1);
    if (queued !== undefined) {
      const drain = this.#drainOf(queued);
      const drop = drain !== undefined && (!drain.release || (queued.kind === 'early' && !this.#reached(queued)));
      if (drop) this.#kernel.oracle.counts.lost += 1;
      else this.#kernel.emit(queued);
    }
    this.#endDrains();
    return queued !== undefined;
  }

  #endDrains(): void {
    for (const drain of [...this.#drains]) {
      const mine = (q: Queued): boolean => q.kind !== 'late' && (drain.names === undefined || drain.names.includes(q.kind === 'early' ? q.frame.to : q.frame.from));
      if (this.queue.some(mine) || this.#kernel.wire.some(mine)) continue;
      this.#drains.splice(this.#drains.indexOf(drain), 1);
      for (const name of drain.names ?? []) this.#receivers.delete(name); // whoever is there next is told anew
      drain.done(0);
    }
  }

  /** Nothing is held of colours <= this; said when it has risen, or when asked for something older. */
  releasedFact(): Colour | undefined {
    const waits = (q: Queued): boolean => q.kind === 'held' && atMost(q.colour, this.#released);
    if (this.queue.some(waits) || this.#kernel.wire.some(waits)) return undefined;
    if (!this.#again && atMost(this.#released, this.#reported)) return undefined;
    this.#again = false;
    this.#reported = this.#released;
    return this.#released;
  }
}
