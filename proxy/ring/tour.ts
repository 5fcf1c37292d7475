/**
 * A tour of everything in the ring, in pieces, while the ring goes on (a capture of what is held).
 *
 *   ready │ sections by colour │ early queues by nic │ records by due colour
 *                 ▲ place: this list, after this row
 *
 * A place is plain data that anyone may keep; it holds nothing back. Frames that come, go or move
 * between two pieces may be missed: they were not held all the while. A row that was given to
 * another frame meanwhile shows it by stamp and arrival (a free row's stamp is 0); the tour then
 * goes on with the next list. Colours and nics that came after the beginning are not visited.
 */
import { stampClass } from './stamp.ts';
import { READY, earlyOf, recordOf, sectionOf } from './store.ts';
import type { FrameStore } from './store.ts';

/** Colours that can have frames: half of the window. */
const COLOURS = 2048;

export interface Place {
  readonly newest: number;
  readonly nicCount: number;
  readonly list: number;
  /** The last row visited of that list, and how it is known again; -1 = none yet. */
  readonly row: number;
  readonly stamp: number;
  readonly arrivedMs: number;
}

export const tourOf = (store: FrameStore): Place => ({ newest: store.window.newest, nicCount: store.nicCount, list: 0, row: -1, stamp: 0, arrivedMs: 0 });

function listAt({ newest, nicCount }: Place, store: FrameStore, at: number): number {
  if (at === 0) return READY;
  const oldest = newest - COLOURS + 1;
  if (at <= COLOURS) return sectionOf((oldest + at - 1) | 0);
  if (at <= COLOURS + nicCount) return earlyOf(store.nics[at - COLOURS - 1]!);
  return recordOf((oldest + at - COLOURS - nicCount - 1) | 0);
}

/** Visits frames until `visit` returns false (that one comes again) or all were; then undefined. */
export function tour(store: FrameStore, from: Place, visit: (row: number, cls: number) => boolean): Place | undefined {
  const { table, lists } = store;
  const known = from.row >= 0 && table.stamp[from.row] === from.stamp && table.arrivedMs[from.row] === from.arrivedMs;
  let list = from.row >= 0 && !known ? from.list + 1 : from.list;
  let last = known ? from.row : -1;
  for (; list <= 2 * COLOURS + from.nicCount; list++) {
    let row = last >= 0 ? table.next[last]! : lists.head[listAt(from, store, list)]!;
    for (; row >= 0; row = table.next[row]!) {
      if (!visit(row, stampClass(table.stamp[row]!))) return placeAt(from, store, list, last);
      last = row;
    }
    last = -1;
  }
  return undefined;
}

const placeAt = (from: Place, { table }: FrameStore, list: number, row: number): Place => ({
  ...from, list, row, stamp: row < 0 ? 0 : table.stamp[row]!, arrivedMs: row < 0 ? 0 : table.arrivedMs[row]!,
});
