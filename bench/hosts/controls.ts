/**
 * Negative controls of the judges: three things done wrong on purpose, which must be seen, and the same
 * done right, which must not. Without them "0 leaked" would prove nothing.
 *
 *   right    a relay on one host's wire that changes nothing, a takeover, ghosts     nothing is seen
 *   unheld   the group is applied and never protected                               leaks
 *   orphan   frames of a host that has cut are given the epoch of who has not          orphans
 *   colour   a taken-over host's VMs speak on, and their frames are given the new
 *            generation's colour on the wire                                        old frames
 */
import { sleep, until } from '../bed/commands.ts';
import { HOSTS, judged, takeOver, type Arena, type Scene } from './chaos.ts';
import { Relay, asItIs, colourOf, coloured, type Hand } from './relay.ts';
import type { Seat } from './story.ts';

export const CONTROLS = ['right', 'unheld', 'orphan', 'colour'] as const;
export type Control = (typeof CONTROLS)[number];
export type ControlSeen = ReturnType<typeof judged>;

const HAND_HOST = 0;
const TRIES_MS = 60_000;
/** Wide enough that frames cross the wire between the cuts of two hosts. */
const APART_MS = 40;
/** m1 at h1, m2 at h2, m3 and m4 at h3; after the takeover m1 is at h3, so that m2 hears it over the wire. */
const SEATS: readonly Seat[] = [0, 1, 2, 2].map((host, i) => ({ is: i * HOSTS, tap: i * HOSTS + host }));

/** What it saw; it ends when that is what it must see, or in vain after a while. */
export async function control(arena: Arena, which: Control): Promise<ControlSeen> {
  const scene = await arena.begin(Math.random, SEATS, { isUnheld: which === 'unheld' });
  let relay: Relay | undefined;
  try {
    if (which !== 'unheld') relay = await Relay.insert(arena.cluster.bed, HAND_HOST, handOf(which, scene));
    await play(which, scene);
    return judged(scene);
  } finally {
    await relay?.remove();
    await arena.end(scene);
  }
}

/** undefined where it saw what it must. */
export function controlFault(which: Control, { leaked, orphans, old }: ControlSeen): string | undefined {
  const must = { right: leaked + orphans + old === 0, unheld: leaked > 0, orphan: orphans > 0, colour: old > 0 }[which];
  return must ? undefined : `leaked ${leaked}, orphans ${orphans}, old ${old}`;
}

async function play(which: Control, scene: Scene): Promise<void> {
  const { engine, traffic } = scene;
  if (which === 'unheld') return until('leaks are seen', () => judged(scene).leaked > 0, TRIES_MS).catch(() => undefined);
  if (which === 'orphan') engine.apartMs = APART_MS;
  engine.run();
  if (which === 'orphan') return until('orphans are seen', () => traffic.orphans > 0, TRIES_MS).catch(() => undefined);
  await until('epochs are committed', () => engine.committed > 5, TRIES_MS);
  await takeOver(scene, HAND_HOST, () => 2); // h1's sluiced is well, its VMs speak on
  if (which === 'colour') return until('old frames are seen', () => traffic.oldDelivered > 0, TRIES_MS).catch(() => undefined);
  await until('ghosts have spoken', () => traffic.ghosts > 200, TRIES_MS);
  await sleep(200);
}

function handOf(which: Control, { engine }: Scene): Hand {
  if (which === 'right') return asItIs;
  return (frame, direction) => {
    const colour = direction === 'out' ? colourOf(frame) : undefined;
    if (colour === undefined) return [{ frame, delayMs: 0 }];
    if (which === 'colour') return [{ frame: coloured(frame, engine.generation, engine.open), delayMs: 0 }];
    const least = Math.min(...engine.bounds.map(({ floor }) => floor));
    return [{ frame: coloured(frame, colour.generation, least), delayMs: 0 }];
  };
}
