/**
 * The hold ring against a model that keeps plain lists of plain frames and does what the comments
 * of proxy/ring say in the most naive way. After every operation both must have the same frames
 * ready in the same order, with undamaged bytes, and the same counts. On the way, whatever the
 * model says: nothing that was rolled back is ever ready again (I5), and the frames of one source
 * leave in the order in which they came (I6).
 */
import { expect, test } from 'vitest';
import { Intake } from '../../proxy/ring/frames.ts';
import { HoldRing } from '../../proxy/ring/hold-ring.ts';
import { CLASS_EARLY, CLASS_HELD, CLASS_LATE, packStamp } from '../../proxy/ring/stamp.ts';
import { Seeded, TestSource } from '../support/ring-fixture.ts';
import { tour, tourOf } from '../../proxy/ring/tour.ts';
import type { Place } from '../../proxy/ring/tour.ts';
import type { TestFrame } from '../support/ring-fixture.ts';

const NICS = [1, 2, 3, 4095];
const BYTES_MAX = 40_000;
const FRAMES_MAX = 300;

interface Row {
  readonly id: number;
  readonly cls: number;
  readonly nic: number;
  readonly colour: number; // counted without wrap
  readonly length: number;
  due: number;
}

/** Colours here are plain growing numbers; only the stamps wrap. */
class Model {
  ready: Row[] = [];
  waiting: Row[] = [];
  early = new Map<number, Row[]>(NICS.map((nic) => [nic, []]));
  records: Row[] = [];
  dead = new Set<number>();
  committed: number;
  newest: number;
  named: number;
  next: number;
  receivers = new Map<number, number>();
  drains = new Map<number, 1 | 2>();
  goneHeld = 0;
  goneEarly = 0;

  constructor(colour: number) {
    this.named = this.newest = this.next = colour;
    this.committed = colour - 1;
    for (let c = colour - 2048; c < colour; c++) this.dead.add(c);
  }

  get all(): Row[] {
    return [...this.ready, ...this.waiting, ...[...this.early.values()].flat(), ...this.records];
  }
  room(row: Row): boolean {
    return this.all.length < FRAMES_MAX && this.all.reduce((sum, { length }) => sum + length, 0) + row.length <= BYTES_MAX;
  }
  lose(row: Row): void {
    if (row.cls === CLASS_HELD) this.goneHeld++;
    if (row.cls === CLASS_EARLY) this.goneEarly++;
  }

  append(row: Row): void {
    if (this.dead.has(row.colour) || row.colour > this.named + 1024) {
      this.lose(row);
      return;
    }
    this.newest = Math.max(this.newest, row.colour);
    if (row.cls === CLASS_LATE) {
      this.appendLate(row);
      return;
    }
    const drain = this.drains.get(row.nic);
    if (drain === 2 || !this.room(row)) {
      this.lose(row);
      return;
    }
    if (row.cls === CLASS_HELD) {
      if (drain === 1 || row.colour <= this.committed) this.ready.push(row);
      else this.waiting.push(row);
    } else if (drain === 1) {
      if (row.colour <= (this.receivers.get(row.nic) ?? this.named)) this.ready.push(row);
      else this.lose(row);
    } else {
      this.early.get(row.nic)!.push(row);
      this.moveEarly(row.nic);
    }
  }
  appendLate(row: Row): void {
    const undone = row.due < this.next && this.dead.has(row.due);
    const again = undone && row.due - row.colour < 15;
    if (undone) row.due = this.next;
    if ((!again && row.due <= this.committed) || !this.room(row)) return;
    this.newest = Math.max(this.newest, row.due);
    (again ? this.ready : this.records).push(row);
  }
  moveEarly(nic: number): void {
    const queue = this.early.get(nic)!;
    while (queue.length > 0 && this.receivers.has(nic) && queue[0]!.colour <= this.receivers.get(nic)!) this.ready.push(queue.shift()!);
  }
  receiver(nic: number, colour: number): void {
    this.receivers.set(nic, Math.max(colour, this.receivers.get(nic) ?? colour));
    this.moveEarly(nic);
  }
  release(colour: number): void {
    this.committed = Math.max(this.committed, colour);
    const leave = this.waiting.filter((row) => row.colour <= this.committed).sort((a, b) => a.colour - b.colour || a.id - b.id);
    this.waiting = this.waiting.filter((row) => row.colour > this.committed);
    this.ready.push(...leave);
    this.records = this.records.filter(({ due }) => due > this.committed);
  }
  discard(rows: Row[], which: (row: Row) => boolean): Row[] {
    rows.filter(which).forEach((row) => { this.lose(row); });
    return rows.filter((row) => !which(row));
  }
  restore(restored: number, next: number): void {
    for (let c = restored + 1; c < next; c++) this.dead.add(c);
    const isDead = (row: Row): boolean => this.dead.has(row.colour);
    this.waiting = this.discard(this.waiting, isDead);
    this.ready = this.discard(this.ready, isDead);
    this.ready.filter(({ cls }) => cls === CLASS_LATE).forEach((row) => { row.due = next; });
    const again = this.records.filter((row) => !isDead(row) && row.due > restored && row.due < next);
    again.sort((a, b) => a.due - b.due); // stable: otherwise as they became records
    this.records = this.records.filter((row) => !isDead(row) && row.due >= next);
    again.forEach((row) => { row.due = next; });
    this.ready.unshift(...again);
    this.next = next;
    this.seenNics.forEach((nic) => {
      this.early.set(nic, this.discard(this.early.get(nic)!, isDead));
      if (this.receivers.has(nic)) this.receiver(nic, next);
    });
    this.named = this.newest = Math.max(next, this.newest);
    this.release(next - 1);
  }
  /** In order of appearance, as the ring has them. */
  seenNics: number[] = [];
  drain(nics: number[], fate: 1 | 2): void {
    nics.forEach((nic) => this.drains.set(nic, fate));
    const covers = (row: Row): boolean => nics.includes(row.nic);
    this.records = this.records.filter((row) => !covers(row));
    this.ready = this.ready.filter((row) => row.cls !== CLASS_LATE || !covers(row));
    const held = this.waiting.filter(covers).sort((a, b) => a.colour - b.colour || a.id - b.id);
    if (fate === 2) {
      this.ready = this.discard(this.ready, covers);
      held.forEach((row) => { this.lose(row); });
    } else {
      this.ready.push(...held);
    }
    this.waiting = this.waiting.filter((row) => !covers(row));
    for (const nic of nics) {
      for (const row of this.early.get(nic)!) {
        if (fate === 1 && row.colour <= (this.receivers.get(nic) ?? this.named)) this.ready.push(row);
        else this.lose(row);
      }
      this.early.set(nic, []);
    }
  }
  pop(count: number): Row[] {
    const sent = this.ready.splice(0, count);
    for (const row of sent) {
      if (row.cls === CLASS_LATE && row.due > this.committed) this.records.push({ ...row, id: row.id });
    }
    return sent;
  }
}

/** Compared after every operation, so cheaply. */
function same(what: string, ours: number[], models: number[]): void {
  if (ours.length !== models.length || ours.some((n, i) => n !== models[i])) expect(ours, what).toEqual(models);
}

class Run {
  tours = 0;
  #traveller: Place | undefined;
  readonly source = new TestSource(6, 6, 13);
  readonly ring: HoldRing;
  readonly model: Model;
  readonly intake = new Intake(512);
  readonly #seeded: Seeded;
  readonly #batch = new Int32Array(4096);
  readonly #lastColour = new Map<number, number>();
  readonly #lastSent = new Map<number, number>();
  #id = 0;
  #order = 0;
  sent = 0;

  constructor(seed: number, colour: number) {
    this.#seeded = new Seeded(seed);
    this.ring = new HoldRing({ framesMax: FRAMES_MAX, bytesMax: BYTES_MAX, colour: colour >>> 0, epoch: 1 }, this.source);
    this.model = new Model(colour);
  }

  row(): Row {
    const { model } = this;
    const random = this.#seeded;
    const nic = random.pick(NICS);
    const cls = random.pick([CLASS_HELD, CLASS_HELD, CLASS_HELD, CLASS_EARLY, CLASS_LATE]);
    const last = this.#lastColour.get(nic * 4 + cls) ?? model.named;
    const least = Math.max(last, model.named - 6);
    const most = Math.max(least, model.named + random.below(3));
    const colour = cls === CLASS_LATE ? model.named - random.below(5) : random.between(least, most);
    this.#lastColour.set(nic * 4 + cls, colour);
    const lead = cls === CLASS_LATE ? random.pick([1, 1, 2, 3, 4, 15]) : 0;
    return { id: this.#id++, cls, nic, colour, length: random.between(14, 500), due: colour + lead };
  }

  arrive(): void {
    const rows = Array.from({ length: this.#seeded.between(0, 12) }, () => this.row());
    const frames = rows.map((row): TestFrame => ({ id: row.id, stamp: packStamp(row.cls, row.nic, row.due - row.colour, row.colour) | 0, length: row.length }));
    if (!this.source.fill(frames)) return;
    const block = this.source.take(this.intake);
    if (block < 0) throw new Error('the block that was filled cannot be taken');
    this.ring.accept(block, this.intake);
    for (const row of rows) {
      this.model.append(row);
    }
    const { nics, nicCount } = this.ring.store;
    this.model.seenNics = [...nics.subarray(0, nicCount)];
  }

  cut(): void {
    const colour = this.model.named + 1;
    if (colour - this.model.committed > 30) return;
    this.ring.advance(colour >>> 0, ++this.#order);
    this.model.named = colour;
    this.model.newest = Math.max(colour, this.model.newest);
  }
  receive(): void {
    const nic = this.#seeded.pick(NICS);
    const colour = this.model.named - this.#seeded.below(4);
    this.ring.receiver(nic, colour >>> 0);
    this.model.receiver(nic, colour);
  }
  release(): void {
    const colour = Math.min(this.model.named - 1, this.model.committed + this.#seeded.below(5));
    this.ring.release(colour >>> 0);
    this.model.release(colour);
  }
  rollback(): void {
    const { committed, named, newest } = this.model;
    const restored = this.#seeded.between(committed, Math.max(committed, named - 1));
    const next = newest + 1;
    this.ring.restore(restored >>> 0, next >>> 0, ++this.#order);
    this.model.restore(restored, next);
  }
  drain(): void {
    const nics = [this.#seeded.pick(NICS)];
    const fate = this.#seeded.pick([1, 2] as const);
    this.ring.drain(nics, fate);
    this.model.drain(nics, fate);
    this.pop(10_000);
    this.ring.store.endDrain(nics);
    this.model.drains.clear();
  }
  pop(most: number): void {
    const count = Math.min(this.ring.readyFrames, this.#seeded.between(0, most));
    this.ring.pop(count);
    for (const row of this.model.pop(count)) {
      this.sent++;
      if (this.model.dead.has(row.colour)) throw new Error(`I5: frame ${row.id} of a dead colour was sent`);
      if (row.cls === CLASS_LATE) continue;
      const key = row.nic * 4 + row.cls;
      const last = this.#lastSent.get(key) ?? -1;
      if (row.id <= last) throw new Error(`I6: frame ${row.id} left after ${last}`);
      this.#lastSent.set(key, row.id);
    }
  }

  step(): void {
    const what = this.#seeded.below(100);
    if (what < 45) this.arrive();
    else if (what < 60) this.cut();
    else if (what < 70) this.release();
    else if (what < 80) this.receive();
    else if (what < 82) this.rollback();
    else if (what < 83) this.drain();
    else this.pop(30);
    this.ring.store.blocks.relieve(4);
    this.compare();
  }

  /** One piece of a tour, of at most so many frames. */
  visit(from: Place, most: number, here: number[]): Place | undefined {
    const { table } = this.ring.store;
    let left = most;
    return tour(this.ring.store, from, (row) => left-- > 0 && here.push(this.source.identify(table.offset[row]!, table.length[row]!)) > 0);
  }
  /** Another that goes on while frames come and go: it shows only what is there, and it ends. */
  travel(all: readonly Row[]): void {
    const seen: number[] = [];
    this.#traveller = this.visit(this.#traveller ?? tourOf(this.ring.store), 3, seen);
    if (this.#traveller === undefined) this.tours++;
    const there = new Set(all.map(({ id }) => id));
    for (const id of seen) if (!there.has(id)) throw new Error(`the tour shows frame ${id}, which is gone`);
  }

  compare(): void {
    const { ring, model, source } = this;
    const { table } = ring.store;
    const count = ring.peek(this.#batch, this.#batch.length);
    const ready = [...this.#batch.subarray(0, count)].map((row) => source.identify(table.offset[row]!, table.length[row]!));
    same('ready', ready, model.ready.map(({ id }) => id));
    const here: number[] = [];
    const most = this.#seeded.between(1, 60);
    for (let at: Place | undefined = tourOf(ring.store); at !== undefined; ) at = this.visit(at, most, here);
    const all = model.all;
    this.travel(all);
    same('here', here.sort((a, b) => a - b), all.map(({ id }) => id).sort((a, b) => a - b));
    const held = all.filter(({ cls }) => cls === CLASS_HELD);
    const bytesOf = (rows: Row[]): number => rows.reduce((sum, { length }) => sum + length, 0);
    const sum = (cells: Int32Array): number => cells.reduce((a, b) => a + b, 0);
    const { store } = ring;
    same('counts',
      [store.heldFrames, store.heldBytes, store.storedBytes, ring.held().reduce((n, { frames }) => n + frames, 0), table.live, sum(store.goneHeld), sum(store.goneEarly)],
      [held.length, bytesOf(held), bytesOf(all), held.length, all.length, model.goneHeld, model.goneEarly]);
  }

  /** Everything out: no block, no row stays behind. */
  finish(): void {
    for (const nic of NICS) {
      this.ring.receiver(nic, this.model.newest >>> 0);
      this.model.receiver(nic, this.model.newest);
    }
    const next = this.model.newest + 1;
    this.ring.advance(next >>> 0, ++this.#order);
    this.model.named = this.model.newest = next;
    this.ring.release((next - 1) >>> 0);
    this.model.release(next - 1);
    while (this.ring.readyFrames > 0) this.pop(100);
    this.compare();
    expect(this.source.busyBlocks).toBe(0);
    expect(this.ring.store.table.live).toBe(0);
  }
}

const STEPS = 4000;
const starts: [string, number][] = [
  ['at the beginning', 1],
  ['across 2^14', 2 ** 14 - 150],
  ['across 2^31', 2 ** 31 - 150],
  ['across 2^32, where 14 bits wrap too', 2 ** 32 - 150],
];
for (const [where, colour] of starts) {
  for (const seed of [0x51ce, Date.now() & 0x7fff_ffff]) {
    test(`${STEPS} operations ${where}, seed ${seed}`, () => {
      const run = new Run(seed, colour);
      for (let i = 0; i < STEPS; i++) run.step();
      run.finish();
      expect(run.sent).toBeGreaterThan(STEPS / 4);
      expect(run.source.copied).toBeGreaterThan(0);
      expect(run.tours).toBeGreaterThan(10);
    });
  }
}
