/**
 * The memory that the daemon and the plane's child share.
 *
 *   │ groups │ nics │ members │ counters of devices │ meters of groups │ losses │
 *     cells of abi.h, as the kernel programs have them in their maps
 *
 * Groups, nics and members are the daemon's cells (and the child's counters in them); the rest the
 * child alone writes. It outlives both: a restarted daemon finds there who was protected.
 */
import { CELLS, GROUPS_MAX, STATS } from '../../classifier/abi.ts';
import { shareMemory } from '../edge/shared-memory.ts';
import type { Entry } from '../edge/shared-memory.ts';
import { METER_BYTES, Meter } from '../plane/meter.ts';

/** To be raised with any change of what is where in it. */
const LAYOUT = 1;
/** Devices with counters: ports, hold devices, the bridge. A further one is refused. */
export const COUNTED_MAX = 1024;

/**
 * Frames that ended for a reason of this plane's own:
 *   notRead   no slot in a port's ring: the loop came too late
 *   starved   skipped while a port that never falls silent kept the others waiting
 *   cutOff    longer than a slot
 *   tooLong   longer than the port it should leave by, and of no kind that can be segmented
 *   notSent   the device did not take it
 */
export const LOSSES = ['notRead', 'starved', 'cutOff', 'tooLong', 'notSent'] as const;
export type Loss = (typeof LOSSES)[number];

const bytesOf = ({ stride, entries }: { readonly stride: number; readonly entries: number }): number => stride * entries;
const PARTS = [bytesOf(CELLS.groups), bytesOf(CELLS.nics), bytesOf(CELLS.members), COUNTED_MAX * STATS.size, GROUPS_MAX * METER_BYTES, 8 * LOSSES.length];

export class Shared {
  readonly groups: ArrayBuffer;
  readonly nics: ArrayBuffer;
  readonly members: ArrayBuffer;
  /** One `struct sluice_stats` a slot. */
  readonly stats: ArrayBuffer;
  readonly #meters: ArrayBuffer;
  readonly #losses: Float64Array;

  /** The daemon makes it, its child joins it: one that outlives the daemon leaves no new file. */
  constructor(path: string, entry: Entry) {
    const [groups, nics, members, stats, meters, losses] = shareMemory(path, PARTS, entry, LAYOUT);
    if (groups === undefined || nics === undefined || members === undefined || stats === undefined || meters === undefined || losses === undefined) {
      throw new Error(`${path} lacks a part`);
    }
    this.groups = groups;
    this.nics = nics;
    this.members = members;
    this.stats = stats;
    this.#meters = meters;
    this.#losses = new Float64Array(losses);
  }

  meter(id: number): Meter {
    return new Meter(this.#meters, id * METER_BYTES);
  }
  lose(why: Loss, frames: number): void {
    const at = LOSSES.indexOf(why);
    this.#losses[at] = (this.#losses[at] ?? 0) + frames;
  }
  lost(): Readonly<Record<Loss, number>> {
    return Object.fromEntries(LOSSES.map((why, at) => [why, this.#losses[at] ?? 0])) as Record<Loss, number>;
  }
}
