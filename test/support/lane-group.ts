import { colour } from '../../proxy/core/types.ts';
import type { Colour } from '../../proxy/core/types.ts';
import { mayHaveLane } from '../../proxy/plane/lane-choice.ts';
import { LaneWorld } from './lane-world.ts';
import type { LaneFrame } from './lane-world.ts';

/** A group over the world: its epochs are colours, `open` the newest. */
export class LaneGroup {
  readonly world: LaneWorld;
  readonly dead: LaneFrame[] = [];
  readonly sent: LaneFrame[] = [];
  readonly #first: number;
  open: number;
  committed: number;
  /** Answers that are still to come. */
  pending = 0;

  constructor(first: number, bytesMax?: number) {
    this.world = new LaneWorld(first, bytesMax);
    this.#first = first;
    this.open = first;
    this.committed = first - 1;
  }
  send(nic: number, count = 1, length?: number): LaneFrame[] {
    const frames = Array.from({ length: count }, () => this.world.send(nic, this.open, length));
    this.sent.push(...frames);
    return frames;
  }
  /** `byLane`: the new epoch's frames are such as would rather wait in a lane. */
  cut(byLane = true): void {
    this.open += 1;
    if (byLane && mayHaveLane(colour(this.open), this.released)) this.world.cells.fill(this.open);
    this.world.pump.ring.advance(this.open, this.open - this.#first + 1);
  }
  commitTo(upTo: number): void {
    this.committed = upTo;
    this.world.commit = upTo;
    this.world.pump.release(upTo, this.world.nowMs);
  }
  /** As the plane said last. */
  get released(): Colour {
    const fact = this.world.facts.findLast(({ kind }) => kind === 'released');
    return fact?.kind === 'released' ? fact.colour : colour(this.#first);
  }
  /** To this epoch; goes on three colours later. */
  rollback(to: number): void {
    this.dead.push(...this.sent.filter((frame) => frame.colour > to));
    const next = this.open + 3;
    this.open = next;
    this.committed = next - 1;
    this.world.commit = to;
    this.pending += 1;
    this.world.pump.restore(to, next, next - this.#first + 1, this.world.nowMs, () => void (this.pending -= 1));
  }
}
