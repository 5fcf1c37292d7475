/**
 * What can be said for sure about frames that are not in the ring: on their way, or lost?
 *
 *   ReleaseProgress  up to which colour every held frame has left (D8). A colour is clean when it
 *                    is committed, none of it is here, and as many frames of its residue (colour
 *                    modulo 64) arrived as the kernel sent. Frames can be lost before us (a full
 *                    ring) or become several (a super-frame of a kind the ring cannot express is
 *                    segmented on the way): then the counts never agree, and when neither of them
 *                    has moved for QUIET they are taken as agreed.
 *   NicBalance       the same for each nic's queue (D5): what is neither here nor out and does not
 *                    move for QUIET is lost (or was too many), and is added to the `gone` cells.
 *                    Too early would let a frame overtake one on its way: QUIET is 20 ms, or twice the time
 *                    in which the ring hands a block over where that is more (`quietMs`).
 *
 * A conclusion from silence needs a breath that found the ring empty (`scanned`). The reported
 * colour only rises. Pure: time comes in.
 */
import type { FrameStore } from '../ring/store.ts';
import { NICS_MAX, RESIDUES } from '../ring/stamp.ts';
import { diff, slotOf } from '../ring/window.ts';
import type { GroupCells } from './cells.ts';

const QUIET_MS = 20;
/** `settleMs`: a frame on its way to the ring is here by then. */
export const quietMsOf = (settleMs: number): number => Math.max(QUIET_MS, 2 * settleMs);

export class ReleaseProgress {
  /** Newest colour known clean. */
  reported: number;
  /** It waits for a residue to fall silent: look again within `quietMs`. */
  waiting = false;
  readonly #store: FrameStore;
  readonly #cells: GroupCells;
  readonly #quietMs: number;
  readonly #base = new Int32Array(RESIDUES);
  readonly #trace = new Int32Array(RESIDUES);
  readonly #sinceMs = new Float64Array(RESIDUES);

  /** Made before the ring is bound, so that no frame it will see is counted already. */
  constructor(store: FrameStore, cells: GroupCells, quietMs: number) {
    this.#store = store;
    this.#cells = cells;
    this.#quietMs = quietMs;
    this.reported = store.window.committed;
    for (let r = 0; r < RESIDUES; r++) this.#base[r] = cells.heldIn(r);
  }

  /** The newest clean colour if it has risen since the last call, else undefined. */
  maybeRisen(nowMs: number, scanned: boolean): number | undefined {
    const { window } = this.#store;
    const before = this.reported;
    this.waiting = false;
    for (let c = (before + 1) | 0; diff(c, window.committed) <= 0; c = (c + 1) | 0) {
      const slot = slotOf(c);
      if (window.frames[slot] !== 0) break;
      if (window.dead[slot] === 0 && !this.#complete(c & (RESIDUES - 1), nowMs, scanned)) break;
      this.reported = c;
    }
    return this.reported === before ? undefined : this.reported;
  }

  #complete(residue: number, nowMs: number, scanned: boolean): boolean {
    const sent = this.#cells.heldIn(residue);
    const arrived = this.#store.window.arrived[residue]!;
    const missing = (sent - this.#base[residue]! - arrived) | 0;
    if (missing === 0) return true;
    const trace = (Math.imul(sent, 31) + arrived) | 0;
    if (trace !== this.#trace[residue]) {
      this.#trace[residue] = trace;
      this.#sinceMs[residue] = nowMs;
    } else if (scanned && nowMs - this.#sinceMs[residue]! >= this.#quietMs) {
      this.#base[residue] = this.#base[residue]! + missing;
      return true;
    }
    this.waiting = true;
    return false;
  }
}

export class NicBalance {
  /** Some nic's counts do not agree with what is here: look again within `quietMs`. */
  waiting = true;
  readonly #store: FrameStore;
  readonly #cells: GroupCells;
  readonly #quietMs: number;
  readonly #missed: (frames: number) => void;
  /** When lanes last had frames. */
  #lanesMs = Number.NEGATIVE_INFINITY;
  readonly #members = new Int32Array(256);
  readonly #trace = new Int32Array(NICS_MAX);
  readonly #sinceMs = new Float64Array(NICS_MAX);

  /** `missed`: hears of frames that were lost on their way here. */
  constructor(store: FrameStore, cells: GroupCells, quietMs: number, missed: (frames: number) => void = () => undefined) {
    this.#store = store;
    this.#cells = cells;
    this.#quietMs = quietMs;
    this.#missed = missed;
  }

  /** Tells the kernel of frames that ended here. Before anything else looks at the cells. */
  flush(): void {
    const store = this.#store;
    if (store.gone === 0) return;
    for (let i = 0; i < store.nicCount; i++) {
      const nic = store.nics[i]!;
      const held = store.goneHeld[nic]!;
      const early = store.goneEarly[nic]!;
      if (held === 0 && early === 0) continue;
      this.#cells.addGone(nic, held, early);
      store.goneHeld[nic] = 0;
      store.goneEarly[nic] = 0;
    }
    store.gone = 0;
  }

  /** Nothing of this nic is anywhere. */
  empty(nic: number): boolean {
    const { heldByNic, earlyByNic } = this.#store;
    return heldByNic[nic] === 0 && earlyByNic[nic] === 0 && this.#cells.heldMissing(nic) === 0 && this.#cells.earlyMissing(nic) === 0;
  }

  /** `lanesEmpty`: frames that wait in lanes are not here, and not lost; nor are those that have just left them. */
  check(nowMs: number, scanned: boolean, lanesEmpty = true): void {
    if (!lanesEmpty) this.#lanesMs = nowMs;
    const held = nowMs - this.#lanesMs >= this.#quietMs;
    const count = this.#cells.nics(this.#members);
    for (let i = 0; i < count; i++) this.#store.meet(this.#members[i]!);
    this.waiting = lanesEmpty && !held;
    for (let i = 0; i < this.#store.nicCount; i++) {
      if (!this.#balanced(this.#store.nics[i]!, nowMs, scanned, held)) this.waiting = true;
    }
  }

  #balanced(nic: number, nowMs: number, scanned: boolean, mayHeld: boolean): boolean {
    const store = this.#store;
    const held = mayHeld ? (this.#cells.heldMissing(nic) - store.heldByNic[nic]!) | 0 : 0;
    const early = (this.#cells.earlyMissing(nic) - store.earlyByNic[nic]!) | 0;
    if (held === 0 && early === 0) return true;
    const here = Math.imul(store.heldByNic[nic]!, 7) + store.earlyByNic[nic]!;
    const trace = (Math.imul(this.#cells.trace(nic), 31) + here) | 0;
    if (trace !== this.#trace[nic]) {
      this.#trace[nic] = trace;
      this.#sinceMs[nic] = nowMs;
      return false;
    }
    if (!scanned || nowMs - this.#sinceMs[nic]! < this.#quietMs) return false;
    this.#cells.addGone(nic, held, early);
    this.#missed(Math.max(0, held) + Math.max(0, early));
    return true;
  }
}
