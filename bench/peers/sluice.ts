/** Sluice as a hold among holds: the daemon over a bed, one group, commands through REST. */
import type { Bed } from '../bed/bed.ts';
import { Engine } from '../bed/engine.ts';
import type { Hold } from './hold.ts';

export interface SluiceHold extends Hold {
  readonly engine: Engine;
}

/** Under emulation the daemon takes the better part of a minute to start, on a loaded machine two. */
const START_MS_MAX = 240_000;

/** `groupFile`: of a group named "peer"; all members of the bed unless told. */
export async function sluiceHold(bed: Bed, groupFile = bed.groupFile('peer', { hold: { bytes: '256MiB' } }), startMs = START_MS_MAX): Promise<SluiceHold> {
  const daemon = bed.daemon();
  await daemon.start('live', startMs);
  const engine = new Engine(daemon.api, 'peer');
  await engine.protect(groupFile);
  return {
    engine,
    cut: async () => void (await engine.cut()),
    commit: async (epoch) => void (await engine.commit(epoch)),
    close: () => daemon.stop(),
  };
}
