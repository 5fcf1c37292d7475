/** Sluice as a hold among holds: the daemon over a bed, one group, commands through REST. */
import type { Bed } from '../bed/bed.ts';
import { Engine } from '../bed/engine.ts';
import type { Hold } from './hold.ts';

export interface SluiceHold extends Hold {
  readonly engine: Engine;
}

/** `startMs`: how long the daemon may take; under emulation that is the better part of a minute. */
export async function sluiceHold(bed: Bed, startMs = 240_000): Promise<SluiceHold> {
  const daemon = bed.daemon();
  await daemon.start('live', startMs);
  const engine = new Engine(daemon.api, 'peer');
  await engine.protect(bed.groupFile('peer', { hold: { bytes: '256MiB' } }));
  return {
    engine,
    cut: async () => void (await engine.cut()),
    commit: async (epoch) => void (await engine.commit(epoch)),
    close: () => daemon.stop(),
  };
}
