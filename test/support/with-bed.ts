import { Bed } from '../../bench/bed/bed.ts';

/** A bed of two members (veth) without addresses, so that nothing speaks but the test; closed whatever `job` does. */
export async function withBed(job: (bed: Bed) => Promise<void>): Promise<void> {
  const bed = await Bed.create({ members: ['veth', 'veth'], addresses: false });
  try {
    await job(bed);
  } finally {
    await bed.close();
  }
}
