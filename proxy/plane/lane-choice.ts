/**
 * Ring or lane for the held frames of the next epoch, by those of the last ones. A lane copies nothing and its
 * gate costs something for each frame, a ring copies each byte and sends small frames at half the price: they
 * are about even at 1,400 bytes (D99), so frames that are longer on average, as of a stream whose segments
 * are still to be cut, go by lane.
 */
import { colourDiff } from '../core/types.ts';
import type { Colour } from '../core/types.ts';
import { RESIDUES } from '../ring/stamp.ts';

const MEAN_BYTES_MIN = 2000;
/** What counts of the epochs before, once another has come. */
const REMEMBERED = 3 / 4;

/**
 * A colour may have a lane while fewer epochs are in flight than the kernel counts apart (D8): what waits in a lane
 * is in its count, and not in the ring's of a colour that shares it.
 */
export const mayHaveLane = (colour: Colour, released: Colour): boolean => colourDiff(colour, released) < RESIDUES;

export type LaneMode = 'off' | 'auto' | 'on';

export class LaneChoice {
  readonly #mode: LaneMode;
  #frames = 0;
  #bytes = 0;
  #framesBefore = 0;
  #bytesBefore = 0;

  constructor(mode: LaneMode) {
    this.#mode = mode;
  }

  /** `arrived`: all frames the group ever held, and their bytes. True = by lane. */
  next({ arrived, arrivedBytes }: { readonly arrived: number; readonly arrivedBytes: number }): boolean {
    if (this.#mode !== 'auto') return this.#mode === 'on';
    this.#frames = REMEMBERED * this.#frames + Math.max(0, arrived - this.#framesBefore);
    this.#bytes = REMEMBERED * this.#bytes + Math.max(0, arrivedBytes - this.#bytesBefore);
    this.#framesBefore = arrived;
    this.#bytesBefore = arrivedBytes;
    return this.#frames > 0 && this.#bytes >= MEAN_BYTES_MIN * this.#frames;
  }
}
