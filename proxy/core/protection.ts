/**
 * The life of a protection: protect, takeover, unprotect, and the two facts.
 *
 *            protect, takeover                 unprotect(release)             fact drained
 *    idle ──────────────────────► protected ─────────────────────► draining ──────────────► idle
 *      ▲                             │    ▲                            │ unprotect(discard)
 *      └─── unprotect(discard) ──────┘    └ takeover (restores)        └─────────────────► idle
 *
 * Every way into `protected` takes colours above all that were ever used. The generation only
 * rises and outlives the protection: it is what fences an engine that comes back too late (I7).
 */
import { NUMBER_MAX, colour, colourDiff, epoch, generation } from './types.ts';
import type { Effect, Epoch, Generation, GroupSpec, GroupState, HeldFate, Reply } from './types.ts';
import { applyRestore, decideRestore } from './epochs.ts';
import { draining } from './membership.ts';
import { movedTo, sameSpec } from './spec.ts';
import { ACCEPTED, IGNORED, colourOf, deny, levelled, openOf, readied, seamless, serialMax } from './watermarks.ts';
import type { Change, CommandOf, FactOf } from './watermarks.ts';

export const fenced = (state: GroupState, given: Generation): Reply =>
  deny(
    'fenced',
    given < state.generation
      ? `generation ${given} is over, the group is at ${state.generation}: this engine was replaced`
      : `the group is at generation ${state.generation}: only a takeover raises it`,
  );

/** Numbers from outside stay where sums with a colour are exact. */
const countable = (n: number): Reply =>
  n <= NUMBER_MAX ? ACCEPTED : deny('bad_request', `${n} is beyond what can be counted: use at most ${NUMBER_MAX}`);

export function decideProtect(state: GroupState, { generation: given }: CommandOf<'protect'>): Reply {
  if (given !== undefined && given < state.generation) return fenced(state, given);
  if (state.phase === 'idle') return countable(given ?? state.generation + 1);
  if (state.phase === 'protected' && given === state.generation) return IGNORED;
  return deny('already_protected', `group ${state.spec.group} is ${state.phase} in generation ${state.generation}`);
}

/** All watermarks at `at`, in colours of their own, nothing of an earlier protection remembered. */
export function begun(state: GroupState, raised: Generation, at: Epoch): GroupState {
  const { spec, colourNewest } = state;
  const colourBase = colour(colourNewest - at);
  return {
    spec,
    phase: 'protected',
    generation: raised,
    released: at,
    committed: at,
    acked: at,
    sealed: at,
    colourBase,
    colourNewest: colour(colourNewest + 1),
    colourReleased: colourNewest,
    members: levelled(state, at, at),
    ...(state.across === undefined ? {} : { across: state.across }),
  };
}

const attach = (state: GroupState): Effect => ({ kind: 'attach', colour: colourOf(state, openOf(state)), epoch: openOf(state) });

export function applyProtect(state: GroupState, { generation: given }: CommandOf<'protect'>): Change {
  const next = begun(state, given ?? generation(state.generation + 1), epoch(0));
  const effects: readonly Effect[] = [{ kind: 'persist', durable: true }, attach(next), { kind: 'emit', event: { type: 'protected' } }];
  return { state: next, effects, onFailure: 'back' };
}

export function decideTakeover(state: GroupState, takeover: CommandOf<'takeover'>): Reply {
  const { phase } = state;
  // Who names other ports is not the one whose takeover it was: it must not believe it has the group (I7).
  const moved = movedBy(state, takeover);
  const isThere = typeof moved !== 'string' && sameSpec(moved, state.spec);
  const again = isThere && state.takeover?.generation === takeover.generation && state.takeover.epoch === takeover.epoch;
  if (again && phase === 'protected' && takeover.generation === state.generation) return IGNORED;
  if (takeover.generation <= state.generation) {
    return deny('fenced', `the group is at generation ${state.generation}: a takeover needs a higher one`);
  }
  if (phase === 'draining') return draining(state);
  const counts = countable(Math.max(takeover.generation, takeover.epoch));
  if (counts.outcome === 'denied') return counts;
  if (typeof moved === 'string') return deny('bad_request', moved);
  return phase === 'idle' ? ACCEPTED : decideRestore(state, takeover.epoch);
}

const movedBy = ({ spec }: GroupState, { members }: CommandOf<'takeover'>): GroupSpec | string => (members === undefined ? spec : movedTo(spec, members));

const reattachFirst = (effect: Effect): readonly Effect[] => (effect.kind === 'restore' ? [{ kind: 'reattach' }, effect] : [effect]);

/** Its members are moved before anything is released or delivered again: it goes to the new side. */
export function applyTakeover(before: GroupState, takeover: CommandOf<'takeover'>): Change {
  const spec = movedBy(before, takeover);
  const state = typeof spec === 'string' ? before : { ...before, spec };
  if (state.phase === 'protected') {
    const change = applyRestore(state, takeover.epoch, takeover.generation);
    return takeover.members === undefined ? change : { ...change, effects: change.effects.flatMap(reattachFirst) };
  }
  const begins = { generation: takeover.generation, epoch: takeover.epoch };
  const next = { ...begun(state, takeover.generation, takeover.epoch), takeover: begins };
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: true },
    attach(next),
    { kind: 'announce' },
    { kind: 'emit', event: { type: 'taken-over', epoch: takeover.epoch } },
  ];
  return { state: next, effects, onFailure: 'back' };
}

/** The generation was compared already. */
export function decideUnprotect(state: GroupState, { held }: CommandOf<'unprotect'>): Reply {
  return state.phase === 'draining' && held === 'release' ? IGNORED : ACCEPTED;
}

/** An idle group is level: what a member was ahead is over, its colours stay used. */
export function idle(state: GroupState): GroupState {
  return { ...seamless(state), phase: 'idle', members: levelled(state, state.sealed, state.acked) };
}

export function toIdle(state: GroupState, held: HeldFate): Change {
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: true },
    { kind: 'detach' },
    { kind: 'emit', event: { type: 'unprotected', held } },
  ];
  return { state: idle(state), effects, onFailure: 'forward' };
}

export function applyUnprotect(state: GroupState, { held }: CommandOf<'unprotect'>): Change {
  if (held === 'discard') return toIdle(state, held);
  return { state: { ...state, phase: 'draining' }, effects: [{ kind: 'persist', durable: true }, { kind: 'drain' }], onFailure: 'forward' };
}

/**
 * The epoch up to which nothing is held, by a fact about a colour. A colour of before the last
 * rollback means what it meant then, and nothing of the discarded epochs is held (seam). One of
 * before an earlier rollback reads lower than it was, which only delays `released`.
 */
function releasedEpoch(state: GroupState, fact: FactOf<'released'>): number {
  const { seam, colourBase, committed } = state;
  const now = colourDiff(fact.colour, colourOf(state, committed)) + committed;
  if (seam === undefined || colourDiff(fact.colour, colour(colourBase + seam.epoch)) >= 0) return now;
  const past = colourDiff(fact.colour, seam.colour);
  return past >= 0 ? seam.epoch : seam.epoch + past;
}

function releasedBy(state: GroupState, fact: FactOf<'released'>): GroupState {
  const released = epoch(Math.max(state.released, Math.min(releasedEpoch(state, fact), state.committed)));
  const bounded = colourDiff(fact.colour, colourOf(state, state.committed)) > 0 ? colourOf(state, state.committed) : fact.colour;
  return { ...state, released, colourReleased: serialMax(state.colourReleased, bounded) };
}

export function decideReleased(state: GroupState, fact: FactOf<'released'>): Reply {
  if (state.phase === 'idle' || colourDiff(fact.colour, state.colourNewest) > 0) return IGNORED;
  const next = releasedBy(state, fact);
  return next.released === state.released && next.colourReleased === state.colourReleased ? IGNORED : ACCEPTED;
}

export function applyReleased(state: GroupState, fact: FactOf<'released'>): Change {
  const next = releasedBy(state, fact);
  const follow = readied(next);
  const rose = next.released > state.released;
  const emit: readonly Effect[] = rose ? [{ kind: 'emit', event: { type: 'released', epoch: next.released } }] : [];
  return { state: follow.state, effects: [...follow.effects, ...emit], onFailure: 'forward' };
}
