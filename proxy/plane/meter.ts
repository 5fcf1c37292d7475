/**
 * Counters of one group in shared memory: the hold loop writes, anyone reads without asking. Each
 * cell is one aligned float64, so a read is never torn; two cells may be a breath apart.
 *
 *   │ gauges and counts (CELLS) │ hold histogram, sum │ wire histogram, sum │
 */
import { HOLD_BUCKETS_MS, WIRE_BUCKETS_MS } from '../ports.ts';
import type { HoldCounters } from '../ports.ts';

const CELLS = [
  'heldFrames', 'heldBytes', 'oldestMs', 'occupancy', 'arrived', 'arrivedBytes', 'releasedFrames', 'releasedBytes',
  'discardedFrames', 'overflowFrames', 'refusedFrames', 'earlyFrames', 'lateRecorded', 'redelivered',
] as const;
type Cell = (typeof CELLS)[number];

const HOLD_AT = CELLS.length;
const HOLD_SUM_AT = HOLD_AT + HOLD_BUCKETS_MS.length + 1;
const WIRE_AT = HOLD_SUM_AT + 1;
const WIRE_SUM_AT = WIRE_AT + WIRE_BUCKETS_MS.length + 1;
export const METER_BYTES = 8 * (WIRE_SUM_AT + 1);

const AT: Readonly<Record<Cell, number>> = {
  heldFrames: 0, heldBytes: 1, oldestMs: 2, occupancy: 3, arrived: 4, arrivedBytes: 5, releasedFrames: 6, releasedBytes: 7,
  discardedFrames: 8, overflowFrames: 9, refusedFrames: 10, earlyFrames: 11, lateRecorded: 12, redelivered: 13,
};

function bucketOf(bounds: Float64Array, value: number): number {
  let i = 0;
  while (i < bounds.length && value > bounds[i]!) i++;
  return i;
}

export class Meter {
  readonly memory: SharedArrayBuffer | ArrayBuffer;
  readonly #cells: Float64Array;
  readonly #hold = Float64Array.from(HOLD_BUCKETS_MS);
  readonly #wire = Float64Array.from(WIRE_BUCKETS_MS);

  /** `at`: where it begins in a memory of several. */
  constructor(memory: SharedArrayBuffer | ArrayBuffer = new SharedArrayBuffer(METER_BYTES), at = 0) {
    this.memory = memory;
    this.#cells = new Float64Array(memory, at, METER_BYTES / 8);
  }

  clear(): this {
    this.#cells.fill(0);
    return this;
  }

  set(cell: Cell, value: number): void {
    this.#cells[AT[cell]] = value;
  }
  add(cell: Cell, value: number): void {
    this.#cells[AT[cell]] = this.#cells[AT[cell]]! + value;
  }

  held(ms: number): void {
    const at = HOLD_AT + bucketOf(this.#hold, ms);
    this.#cells[at] = this.#cells[at]! + 1;
    this.#cells[HOLD_SUM_AT] = this.#cells[HOLD_SUM_AT]! + ms;
  }
  onWire(ms: number): void {
    const at = WIRE_AT + bucketOf(this.#wire, ms);
    this.#cells[at] = this.#cells[at]! + 1;
    this.#cells[WIRE_SUM_AT] = this.#cells[WIRE_SUM_AT]! + ms;
  }

  /** `oldestMs` is kept as the wall-clock time of arrival (0 = none) and read as an age. */
  read(wallMs: number): HoldCounters {
    return new Reading(this.#cells, wallMs);
  }
}

/** As it was at one moment, but for the histograms: those are read when they are asked for, which the replies of every epoch do not. */
class Reading implements HoldCounters {
  readonly #cells: Float64Array;
  readonly heldFrames: number;
  readonly heldBytes: number;
  readonly oldestMs: number;
  readonly occupancy: number;
  readonly arrived: number;
  readonly arrivedBytes: number;
  readonly releasedFrames: number;
  readonly releasedBytes: number;
  readonly discardedFrames: number;
  readonly overflowFrames: number;
  readonly refusedFrames: number;
  readonly earlyFrames: number;
  readonly lateRecorded: number;
  readonly redelivered: number;

  constructor(cells: Float64Array, wallMs: number) {
    const oldest = cells[AT.oldestMs]!;
    this.#cells = cells;
    this.heldFrames = cells[AT.heldFrames]!;
    this.heldBytes = cells[AT.heldBytes]!;
    this.oldestMs = oldest === 0 ? 0 : Math.max(0, wallMs - oldest);
    this.occupancy = cells[AT.occupancy]!;
    this.arrived = cells[AT.arrived]!;
    this.arrivedBytes = cells[AT.arrivedBytes]!;
    this.releasedFrames = cells[AT.releasedFrames]!;
    this.releasedBytes = cells[AT.releasedBytes]!;
    this.discardedFrames = cells[AT.discardedFrames]!;
    this.overflowFrames = cells[AT.overflowFrames]!;
    this.refusedFrames = cells[AT.refusedFrames]!;
    this.earlyFrames = cells[AT.earlyFrames]!;
    this.lateRecorded = cells[AT.lateRecorded]!;
    this.redelivered = cells[AT.redelivered]!;
  }
  get holdHistogram(): number[] {
    return [...this.#cells.subarray(HOLD_AT, HOLD_SUM_AT)];
  }
  get holdSumMs(): number {
    return this.#cells[HOLD_SUM_AT]!;
  }
  get wireHistogram(): number[] {
    return [...this.#cells.subarray(WIRE_AT, WIRE_SUM_AT)];
  }
  get wireSumMs(): number {
    return this.#cells[WIRE_SUM_AT]!;
  }
}
