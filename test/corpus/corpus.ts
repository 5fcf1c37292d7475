/**
 * The corpus of odd frames: what VMs really send and what nobody should, by a seed. The same seed
 * and place give the same bytes. Hundreds of frames, each with a kind and a name of its own
 * (`kind#n`); all from the member's own MAC, none to another member: every one is the outside's
 * business (I1) and must come out as it went in (I9).
 */
import { Seeded } from './bytes.ts';
import type { CorpusFrame, CorpusPlace } from './kinds.ts';
import { linkKinds } from './link.ts';
import { networkKinds } from './network.ts';

export type { CorpusFrame, CorpusPlace } from './kinds.ts';

export function corpus(place: CorpusPlace, seed: number): CorpusFrame[] {
  const frames: CorpusFrame[] = [];
  const counts = new Map<string, number>();
  const random = new Seeded(seed);
  const add = (kind: string, bytes: Uint8Array): void => {
    const n = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, n);
    frames.push({ kind, name: `${kind}#${n}`, bytes });
  };
  linkKinds({ place, random, add });
  networkKinds({ place, random, add });
  return frames;
}
