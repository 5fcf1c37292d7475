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
    const cells = this.#cells;
    const cell = (name: Cell): number => cells[AT[name]]!;
    const oldest = cell('oldestMs');
    return {
      heldFrames: cell('heldFrames'), heldBytes: cell('heldBytes'),
      oldestMs: oldest === 0 ? 0 : Math.max(0, wallMs - oldest),
      occupancy: cell('occupancy'), arrived: cell('arrived'), arrivedBytes: cell('arrivedBytes'),
      releasedFrames: cell('releasedFrames'), releasedBytes: cell('releasedBytes'),
      discardedFrames: cell('discardedFrames'), overflowFrames: cell('overflowFrames'), refusedFrames: cell('refusedFrames'),
      earlyFrames: cell('earlyFrames'), lateRecorded: cell('lateRecorded'), redelivered: cell('redelivered'),
      get holdHistogram() { return [...cells.subarray(HOLD_AT, HOLD_SUM_AT)]; }, // the replies of every epoch want none of this
      get holdSumMs() { return cells[HOLD_SUM_AT]!; },
      get wireHistogram() { return [...cells.subarray(WIRE_AT, WIRE_SUM_AT)]; },
      get wireSumMs() { return cells[WIRE_SUM_AT]!; },
    };
  }
}
