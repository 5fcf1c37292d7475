/**
 * From a journalled state to what the daemon does with the group when it starts again.
 *
 * The rings died with the process: what was held is lost, what committed and did not leave too
 * (D12). The kernel went on holding, in a colour at most one cut beyond the journal. So:
 *
 *   protected  the same epochs, in colours a gap above every one that may have been used; nothing
 *              is held, hence released = committed and every member is ready
 *   fenced     the same, and still fenced
 *   draining   the frames it waited for are gone: idle
 *   idle       idle; programs a crash left behind are taken down
 *
 *   colours    … newest │◄────────── gap ──────────►│ colour(open)      epochs keep their numbers
 */
import { COLOURS_IN_FLIGHT_MAX, EPOCHS_IN_FLIGHT_MAX, colour, epoch } from './types.ts';
import type { Effect, GroupState } from './types.ts';
import { checkState } from './invariants.ts';
import { idle } from './protection.ts';
import { colourOf, newestOpenOf, openOf, seamless } from './watermarks.ts';

/**
 * Colours skipped at a restart. A cut is journalled before it is made, so one would do; the gap
 * also covers cuts whose records a power cut took. A small part of the stamps' 14 bits.
 */
export const RESUME_GAP = COLOURS_IN_FLIGHT_MAX + EPOCHS_IN_FLIGHT_MAX;

export interface Resumed {
  readonly state: GroupState;
  readonly effects: readonly Effect[];
}

export function resume(journalled: GroupState): Resumed {
  checkState(journalled);
  if (journalled.phase === 'protected' || journalled.phase === 'fenced') return resumeProtected(journalled);
  const state = idle(journalled);
  const effects: Effect[] = journalled.phase === 'draining' ? [{ kind: 'persist', durable: true }] : [];
  effects.push({ kind: 'detach' });
  if (journalled.phase === 'draining') effects.push({ kind: 'emit', event: { type: 'unprotected', held: 'release' } });
  return { state, effects };
}

function resumeProtected(journalled: GroupState): Resumed {
  const open = openOf(journalled);
  const colourBase = colour(journalled.colourNewest + RESUME_GAP - open);
  const members = journalled.members.map((member) => ({ ...member, ready: true, joinedAt: epoch(0) }));
  const moved = { ...seamless(journalled), colourBase, members, released: journalled.committed };
  const state: GroupState = {
    ...moved,
    colourNewest: colourOf(moved, newestOpenOf(members)),
    colourReleased: colourOf(moved, journalled.committed),
  };
  checkState(state);
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: true },
    { kind: 'attach', colour: colourOf(state, open), epoch: open },
    ...(state.across === undefined || state.phase === 'fenced' ? [] : [{ kind: 'publish' as const, generation: state.generation, life: state.across.life, epoch: state.acked }]),
  ];
  return { state, effects };
}
