/**
 * The colours the ring knows: a circular table around the newest.
 *
 *      newest - 2048 ........ committed ........ newest ........ newest + 2047
 *      too old: dropped │ may leave          │ held             │ a frame may open up to 1024 of these
 *      (dead ones never)
 *
 * A colour is *dead* when its execution was rolled back (or belongs to an earlier life of the
 * daemon): its frames are dropped whenever they arrive. The gate's cell runs ahead of our messages,
 * so a frame may carry a colour that no command has named yet; it waits under it, and its epoch
 * label comes with the command. Colours are int32 here, compared by serial arithmetic.
 *
 * Bound: fewer than 2048 colours between the oldest undecided one and the newest; the core denies
 * a cut at half of that. A command beyond it is a broken invariant and throws.
 */
import { RESIDUES } from './stamp.ts';

export const WINDOW = 4096;
const HALF = WINDOW / 2;
/** Most colours that frames alone may open beyond the newest one a command named. */
export const AHEAD_MAX = 1024;

export const slotOf = (colour: number): number => colour & (WINDOW - 1);
export const diff = (a: number, b: number): number => (a - b) | 0;

export class ColourWindow {
  /** Newest colour named by a command or carried by a frame. */
  newest: number;
  /** Newest colour a command has named. */
  named: number;
  /** Held frames up to this colour may leave. */
  committed: number;
  readonly dead = new Uint8Array(WINDOW);
  /** Held frames (class HELD) of each colour in the ring, waiting or ready. */
  readonly frames = new Int32Array(WINDOW);
  readonly bytes = new Float64Array(WINDOW);
  /** The engine's number of the epoch; NaN until a command has named it. */
  readonly epoch = new Float64Array(WINDOW).fill(Number.NaN);
  /** 1 = the first held frame was seen and is not announced yet; 2 = announced. */
  readonly output = new Uint8Array(WINDOW);
  /** Held frames that ever arrived, dropped ones too, by colour modulo RESIDUES (u32 circle). */
  readonly arrived = new Int32Array(RESIDUES);

  constructor(colour: number, epoch: number) {
    this.newest = colour | 0;
    this.named = this.newest;
    this.committed = (colour - 1) | 0;
    this.dead.fill(1);
    for (let i = 0; i < HALF; i++) this.dead[slotOf(this.newest + i)] = 0;
    this.epoch[slotOf(this.newest)] = epoch;
  }

  /** May a frame of this colour be in the ring at all? */
  admits(colour: number): boolean {
    const ahead = diff(colour, this.named);
    return ahead <= AHEAD_MAX && diff(colour, this.newest) > -HALF && this.dead[slotOf(colour)] === 0;
  }

  /** A frame carries `colour`, which is admitted. */
  see(colour: number): void {
    if (diff(colour, this.newest) > 0) this.#open(colour);
  }

  name(colour: number, epoch: number): void {
    const ahead = diff(colour, this.named);
    if (ahead > HALF || ahead <= -HALF) throw new Error(`colour ${colour >>> 0} is out of reach of ${this.named >>> 0}`);
    if (diff(colour, this.newest) > 0) this.#open(colour);
    if (ahead > 0) this.named = colour;
    this.epoch[slotOf(colour)] = epoch;
  }

  commit(colour: number): void {
    if (diff(colour, this.named) > 0) throw new Error(`colour ${colour >>> 0} is committed and was never open`);
    if (diff(colour, this.committed) > 0) this.committed = colour;
  }

  kill(colour: number): void {
    this.dead[slotOf(colour)] = 1;
  }

  /** The label of a colour; where no command has named it, counted on from the newest named one. */
  label(colour: number): number {
    const exact = this.epoch[slotOf(colour)]!;
    return Number.isNaN(exact) ? this.epoch[slotOf(this.named)]! + diff(colour, this.named) : exact;
  }

  /** Slots that come into reach are cleaned: they belonged to colours 4096 ago. */
  #open(colour: number): void {
    for (let c = (this.newest + 1) | 0; diff(c, colour) <= 0; c = (c + 1) | 0) {
      const slot = slotOf(c + HALF - 1);
      if (this.frames[slot] !== 0) throw new Error(`frames of colour ${(c - HALF - 1) >>> 0} were never decided`);
      this.dead[slot] = 0;
      this.epoch[slot] = Number.NaN;
      this.output[slot] = 0;
      this.bytes[slot] = 0;
    }
    this.newest = colour;
  }
}
