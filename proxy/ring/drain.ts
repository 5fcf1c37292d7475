/**
 * The end of holding for some nics, or all of them: their frames leave in order, or are dropped,
 * and so do those that arrive while the drain lasts (I6: the kernel lets new frames pass only when
 * its counters say that nothing of the nic is left).
 *
 *   release   held frames of any colour become ready, in the order of colours; early ones too if
 *             their receiver has reached their colour (I2), else they are dropped
 *   discard   all are dropped, also those that were ready
 *   records   of these nics are forgotten: after a drain there is nothing to go back to
 */
import { CLASS_LATE, stampClass, stampNic } from './stamp.ts';
import { DRAIN_DISCARD, READY, earlyOf, recordOf, sectionOf } from './store.ts';
import type { DrainFate, FrameStore } from './store.ts';
import { diff } from './window.ts';

export function drain(store: FrameStore, nics: readonly number[] | undefined, fate: DrainFate): void {
  const { window, table, lists } = store;
  const chosen = new Set(nics);
  const covers = (row: number): boolean => nics === undefined || chosen.has(stampNic(table.stamp[row]!));
  const take = (row: number): boolean => {
    if (!covers(row)) return true;
    if (fate === DRAIN_DISCARD) store.discard(row);
    else lists.push(READY, row);
    return false;
  };
  const forget = (row: number): boolean => {
    if (stampClass(table.stamp[row]!) !== CLASS_LATE || !covers(row)) return true;
    store.forget(row);
    return false;
  };
  store.beginDrain(nics, fate);
  store.sift(READY, forget);
  if (fate === DRAIN_DISCARD) store.sift(READY, take);
  for (let c = (window.committed + 1) | 0; diff(c, window.newest) <= 0; c = (c + 1) | 0) {
    store.sift(sectionOf(c), take);
    store.sift(recordOf(c), forget);
  }
  for (const nic of nics ?? store.nics.subarray(0, store.nicCount)) drainEarly(store, nic, take);
}

function drainEarly(store: FrameStore, nic: number, take: (row: number) => boolean): void {
  const reached = store.reached(nic);
  store.sift(earlyOf(nic), (row) => {
    if (diff(store.table.colour[row]!, reached) <= 0) return take(row);
    store.discard(row);
    return false;
  });
}
