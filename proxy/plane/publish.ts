/** What the ring of a group has and did, into its counters. */
import type { HoldRing } from '../ring/hold-ring.ts';
import type { Meter } from './meter.ts';

export interface Published {
  readonly occupancy: number;
  /** By the kernel, for want of room in the ring. */
  readonly dropped: number;
  /** Wall-clock time of 0 on the scale of arrival times. */
  readonly originMs: number;
}

export function publish(meter: Meter, ring: HoldRing, { occupancy, dropped, originMs }: Published): void {
  const { store } = ring;
  const { tally } = store;
  meter.set('heldFrames', store.heldFrames);
  meter.set('heldBytes', store.heldBytes);
  const oldest = ring.oldestArrivedMs();
  meter.set('oldestMs', Number.isNaN(oldest) ? 0 : originMs + oldest);
  meter.set('occupancy', occupancy);
  meter.set('arrived', tally.arrived);
  meter.set('arrivedBytes', tally.arrivedBytes);
  meter.set('releasedFrames', tally.released);
  meter.set('releasedBytes', tally.releasedBytes);
  meter.set('discardedFrames', tally.discarded);
  meter.set('overflowFrames', tally.overflow + dropped);
  meter.set('refusedFrames', tally.refused);
  meter.set('earlyFrames', tally.early);
  meter.set('lateRecorded', tally.recorded);
  meter.set('redelivered', tally.redelivered);
}
