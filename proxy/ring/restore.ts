/**
 * A rollback, as the ring performs it (I5, I3). The group is at `restored` again and goes on in
 * `next`; what was between is dead for ever, wherever its frames still are.
 *
 *   colours        … restored │ dead ............ │ next …
 *   held           leave      │ discarded         │
 *   early          leave      │ discarded         │   every receiver is at `next` now
 *   record c → d   by c and d, its frame's colour and its due (the receiver's) colour:
 *                  d <= restored             the receiver's state contains it: forgotten
 *                  c <= restored < d         in transit across the line: sent again, due at next
 *                  c > restored              its sender never sent it: forgotten
 *
 *   ready, new     records found here │ what was ready and lives │ early frames │ held sections
 *
 * A restore to the same `next` is a repeat and does nothing. Afterwards everything below `next` counts as committed: the living part may leave, the dead part
 * is dropped on arrival.
 */
import { CLASS_LATE, stampClass } from './stamp.ts';
import { READY, earlyOf, recordOf, sectionOf } from './store.ts';
import type { FrameStore } from './store.ts';
import { diff, slotOf } from './window.ts';

export function restore(store: FrameStore, restored: number, next: number): void {
  const { window } = store;
  if (next === store.next) return; // an exact repeat: done already
  if (diff(restored, window.committed) < 0) throw new Error(`restore to colour ${restored >>> 0}, which is behind a release`);
  if (diff(next, restored) <= 0) throw new Error(`restore goes on in ${next >>> 0}, which is not after ${restored >>> 0}`);
  const before = window.committed;
  const last = window.newest;
  for (let c = (restored + 1) | 0; diff(c, next) < 0; c = (c + 1) | 0) {
    window.kill(c);
    store.discardAll(sectionOf(c));
  }
  store.next = next;
  siftReady(store, next);
  const wasReady: number[] = [];
  store.sift(READY, (row) => wasReady.push(row) < 0);
  for (let c = (before + 1) | 0; diff(c, last) <= 0; c = (c + 1) | 0) resend(store, c, restored, next);
  for (const row of wasReady) store.lists.push(READY, row);
  for (let i = 0; i < store.nicCount; i++) restoreNic(store, store.nics[i]!, next);
  for (let c = (before + 1) | 0; diff(c, restored) <= 0; c = (c + 1) | 0) store.lists.append(READY, sectionOf(c));
}

/** Of what was ready, early frames and records of dead colours go no more. */
function siftReady(store: FrameStore, next: number): void {
  store.sift(READY, (row) => {
    if (store.window.dead[slotOf(store.table.colour[row]!)] !== 0) {
      store.discard(row);
      return false;
    }
    if (stampClass(store.table.stamp[row]!) === CLASS_LATE) store.table.due[row] = next;
    return true;
  });
}

/** The records due at colour `due`. Those that stay due at `next` or later were made after it. */
function resend(store: FrameStore, due: number, restored: number, next: number): void {
  const list = recordOf(due);
  if (diff(due, restored) <= 0) {
    store.forgetAll(list);
    return;
  }
  store.sift(list, (row) => {
    if (store.window.dead[slotOf(store.table.colour[row]!)] !== 0) {
      store.discard(row);
      return false;
    }
    if (diff(due, next) >= 0) return true;
    store.table.due[row] = next;
    store.lists.push(READY, row);
    return false;
  });
}

function restoreNic(store: FrameStore, nic: number, next: number): void {
  store.sift(earlyOf(nic), (row) => {
    if (store.window.dead[slotOf(store.table.colour[row]!)] === 0) return true;
    store.discard(row);
    return false;
  });
  if (store.receiverKnown[nic] !== 0) store.receiver(nic, next);
}
