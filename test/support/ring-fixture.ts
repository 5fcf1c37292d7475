/**
 * What the tests of the hold ring stand on: a seeded generator, and memory that behaves like the
 * kernel's ring: blocks are filled in order, one that was not given back is not filled, and every
 * frame's bytes say who it is, so that a frame in the wrong place is seen.
 */
import type { FrameSource, Intake } from '../../proxy/ring/frames.ts';

/** Numbers from a seed: xorshift, good enough to choose what to do next. */
export class Seeded {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  /** 0 <= n < below */
  below(below: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % below;
  }
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }
  pick<T>(of: readonly T[]): T {
    const found = of[this.below(of.length)];
    if (found === undefined) throw new Error('nothing to pick from');
    return found;
  }
}

export interface TestFrame {
  readonly id: number;
  readonly stamp: number;
  readonly length: number;
}

export class TestSource implements FrameSource {
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift: number;
  readonly memory: DataView;
  readonly #octets: Uint8Array;
  readonly #filled: (TestFrame[] | undefined)[];
  readonly #user: boolean[];
  #fillNext = 0;
  #takeNext = 0;
  #drops = 0;
  copied = 0;
  nowMs = 0;

  constructor(ringBlocks: number, arenaBlocks: number, blockShift: number) {
    this.ringBlocks = ringBlocks;
    this.arenaBlocks = arenaBlocks;
    this.blockShift = blockShift;
    const buffer = new ArrayBuffer((ringBlocks + arenaBlocks) << blockShift);
    this.memory = new DataView(buffer);
    this.#octets = new Uint8Array(buffer);
    this.#filled = Array.from({ length: ringBlocks }, () => undefined);
    this.#user = Array.from({ length: ringBlocks }, () => false);
  }

  /** The kernel's part: a block with these frames, or all of them dropped. */
  fill(frames: TestFrame[]): boolean {
    if (this.#user[this.#fillNext] === true) {
      this.#drops += frames.length;
      return false;
    }
    this.#user[this.#fillNext] = true;
    this.#filled[this.#fillNext] = frames;
    this.#fillNext = (this.#fillNext + 1) % this.ringBlocks;
    return true;
  }

  take(intake: Intake): number {
    const block = this.#takeNext;
    const frames = this.#filled[block];
    if (frames === undefined) return -1;
    this.#filled[block] = undefined;
    this.#takeNext = (block + 1) % this.ringBlocks;
    let at = (block << this.blockShift) + 48;
    intake.count = frames.length;
    frames.forEach((frame, i) => {
      at += 32;
      if (at + frame.length > (block + 1) << this.blockShift) throw new Error('the test overfills a block');
      this.#octets.fill(frame.id & 0xff, at, at + frame.length);
      this.memory.setUint32(at - 10, frame.id);
      intake.stamp[i] = frame.stamp;
      intake.offset[i] = at;
      intake.length[i] = frame.length;
      intake.arrivedMs[i] = this.nowMs;
      at += frame.length;
    });
    return block;
  }

  /** Who the frame at this place is; throws when its bytes were damaged. */
  identify(offset: number, length: number): number {
    const id = this.memory.getUint32(offset - 10);
    if (this.#octets[offset + length - 1] !== (id & 0xff)) throw new Error(`frame ${id} is cut short`);
    for (let i = offset; i < offset + length; i += 13) if (this.#octets[i] !== (id & 0xff)) throw new Error(`frame ${id} is damaged`);
    return id;
  }

  giveBack(block: number): void {
    if (this.#user[block] !== true || this.#filled[block] !== undefined) throw new Error(`block ${block} is given back and was not taken`);
    this.#user[block] = false;
    this.#octets.fill(0xee, block << this.blockShift, (block + 1) << this.blockShift);
  }
  copy(to: number, from: number, bytes: number): void {
    if (to < from + bytes && from < to + bytes) throw new Error('ranges overlap');
    this.copied++;
    this.#octets.copyWithin(to, from, from + bytes);
  }
  drops(): number {
    const count = this.#drops;
    this.#drops = 0;
    return count;
  }
  /** Blocks the kernel may not fill. */
  get busyBlocks(): number {
    return this.#user.filter(Boolean).length;
  }
}
