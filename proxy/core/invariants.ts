/**
 * What is true of every group after every step, in production too.
 *
 *     released <= committed <= acked <= sealed = min(members' sealed)      open = sealed + 1
 *     colour(any member's open) <= colourNewest       colourReleased <= colour(committed)
 *
 * A broken one is a fault of this program, not of its input: it throws, the process ends, the
 * kernel goes on holding (I8). An operating error is a value and never comes through here.
 * `checkState` looks at one state, `checkStep` at the way from one to the next.
 */
import { COLOURS_IN_FLIGHT_MAX, MEMBER_LEAD_MAX, colourDiff } from './types.ts';
import type { Effect, GroupState, MemberState, Step } from './types.ts';
import { colourOf, least, localOf, newestOpenOf } from './watermarks.ts';

export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

function must(holds: boolean, what: string, about: unknown): void {
  if (!holds) throw new InvariantError(`${what}: ${JSON.stringify(about)}`);
}

export function checkState(state: GroupState): void {
  const { released, committed, acked, sealed, members } = state;
  must(isCount(released) && isCount(committed) && isCount(acked) && isCount(sealed) && isCount(state.generation), 'whole numbers', state);
  must(released <= committed, 'released <= committed', state);
  must(committed <= acked, 'committed <= acked', state);
  must(acked <= sealed, 'acked <= sealed', state);
  const local = localOf(state);
  must(members.length > 0 && members.length === local.length, 'as many members as the spec names', state);
  must(members.every(({ name }, i) => name === local[i]?.name), 'members in the order of the spec', state);
  must(sealed === least(members, 'sealed'), 'the group has sealed what all its members have', state);
  must(acked === least(members, 'acked'), 'the group is acked as far as all its members are', state);
  for (const member of members) checkMember(state, member);
  must(colourDiff(state.colourNewest, colourOf(state, newestOpenOf(members))) >= 0, 'no open epoch beyond the newest colour', state);
  if (state.phase === 'idle') return;
  must(state.generation >= 1, 'a protected group has a generation', state);
  must(colourDiff(colourOf(state, committed), state.colourReleased) >= 0, 'no colour released beyond the commit', state);
  must(colourDiff(state.colourNewest, state.colourReleased) <= COLOURS_IN_FLIGHT_MAX, 'colours in flight are bounded', state);
  if (state.seam !== undefined) must(colourDiff(colourOf(state, state.seam.epoch), state.seam.colour) > 0, 'a seam raises the base', state);
}

const isCount = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;

function checkMember(state: GroupState, member: MemberState): void {
  must(member.acked <= member.sealed, 'a member acks what it sealed', member);
  must(member.acked >= state.committed, 'nothing is committed that a member has not acked', member);
  must(member.sealed - state.sealed <= MEMBER_LEAD_MAX, 'the lead of a member is bounded', member);
  must(state.phase !== 'idle' || (member.ready && member.sealed === state.sealed), 'an idle group is level', member);
  must(member.ready || member.joinedAt > state.released, 'a member is ready once its joining is released', member);
}

/** And what tells other hosts that they may. */
const MOVES_FRAMES: ReadonlySet<Effect['kind']> = new Set([
  'publish',
  'attach', 'detach', 'reattach', 'cutGroup', 'cutMember', 'release', 'restore', 'drainMember', 'drain', 'announce', 'closeWire',
]);

/** `command`: facts may move frames on what is in the journal already. */
export function checkStep(before: GroupState | undefined, step: Step, command: boolean): void {
  const { state, effects, reply } = step;
  if (reply.outcome !== 'accepted') {
    must(state === before && effects.length === 0, 'what is not accepted changes nothing', reply);
    return; // the state was looked at when it came to be
  }
  if (state !== undefined) checkState(state);
  const persists = effects.findIndex(({ kind }) => kind === 'persist');
  must(persists <= 0, 'persist stands first', effects);
  const moves = effects.findIndex(({ kind }) => MOVES_FRAMES.has(kind));
  if (command) must(moves < 0 || persists === 0 || effects[0]?.kind === 'forget', 'persist stands before what moves frames', effects);
  const isInLedger = !command && state?.across !== undefined; // what a view of it lets go (D83)
  const frees = effects.some(({ kind }) => (kind === 'release' && !isInLedger) || kind === 'restore' || kind === 'drain' || kind === 'detach' || kind === 'publish');
  const first = effects[0];
  if (frees && state !== undefined) must(first?.kind === 'persist' && first.durable, 'what lets frames go is durable first', effects);
  if (before !== undefined && state !== undefined) checkProgress(before, state);
}

function checkProgress(before: GroupState, after: GroupState): void {
  must(after.generation >= before.generation, 'the generation never falls', after);
  must(colourDiff(after.colourNewest, before.colourNewest) >= 0, 'a colour is never used again', after);
  const holds = ({ phase }: GroupState): boolean => phase === 'protected' || phase === 'fenced';
  if (!holds(before) || !holds(after)) return;
  must(after.committed >= before.committed, 'a commit is never taken back', after);
  must(after.released >= before.released, 'a release is never taken back', after);
  const raised = after.colourBase !== before.colourBase;
  if (raised) must(colourDiff(colourOf(after, newestOpenOf(after.members)), before.colourNewest) > 0, 'a new execution has a new colour', after);
}
