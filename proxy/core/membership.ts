/**
 * Who is in a group: apply, delete, join, leave.
 *
 * Idle, anything goes. Under protection only what loses no held frame:
 *
 *   join    the new member starts in the group's open epoch, `ready: false`. Frames to it that were
 *           held as frames to an outsider are still on their way to it, so new ones queue behind
 *           them until `released` reaches the newest epoch that was open at the join (I6).
 *   leave   says what becomes of its held frames; a laggard's leaving may raise the group's sealed
 *           and acked (then the group cut, and with `commit: acks` the commit, follow).
 *   apply   new members join; foreignSource, intraPath and commit may change; members and nics may
 *           not go this way (`member_held`), and the ring's size not at all.
 */
import { colour, epoch, generation } from './types.ts';
import type { Effect, GroupSpec, GroupState, MemberSpec, MemberState, Reply } from './types.ts';
import { groupCut, memberOf, noSuchMember } from './epochs.ts';
import { isAcross, lostMembers, newMembers, sameAddresses, sameHold, sameNics, sameSpec, specFault } from './spec.ts';
import { ACCEPTED, IGNORED, deny, followAcks, levelled, newestOpenOf, withMembers } from './watermarks.ts';
import type { Change, CommandOf } from './watermarks.ts';

/** Shared by all commands that need a quiet or a protected group, and not one in between. */
export const draining = (state: GroupState): Reply =>
  deny('not_protected', `protection of group ${state.spec.group} is ending, its held frames are leaving: try again when it is idle`);

export function decideApply(state: GroupState | undefined, { spec }: CommandOf<'apply'>): Reply {
  if (isAcross(spec) || state?.across !== undefined) return deny('bad_request', 'a group across hosts is kept in a ledger: set ledger: etcd for the sluiced of every host');
  if (state !== undefined && sameSpec(state.spec, spec)) return IGNORED;
  const fault = specFault(spec);
  if (fault !== undefined) return deny('bad_request', fault);
  if (state === undefined || state.phase === 'idle') return ACCEPTED;
  if (state.phase === 'draining') return draining(state);
  if (!sameHold(state.spec, spec)) {
    return deny('bad_request', 'hold cannot change while the group is protected: unprotect, apply, protect again');
  }
  const lost = lostMembers(state.spec, spec).map(({ name }) => name);
  if (lost.length === 0) return ACCEPTED;
  return deny('member_held', `${lost.join(', ')} would leave or change its nics with frames held: let it leave with held=release or held=discard first`);
}

const fresh = (spec: GroupSpec): GroupState => ({
  spec,
  phase: 'idle',
  generation: generation(0),
  released: epoch(0),
  committed: epoch(0),
  acked: epoch(0),
  sealed: epoch(0),
  colourBase: colour(0),
  colourNewest: colour(1),
  colourReleased: colour(0),
  members: spec.members.map(({ name }) => ({ name, sealed: epoch(0), acked: epoch(0), ready: true, joinedAt: epoch(0) })),
});

export function applyApply(state: GroupState | undefined, { spec }: CommandOf<'apply'>): Change {
  const persist: Effect = { kind: 'persist', durable: true };
  if (state === undefined) return { state: fresh(spec), effects: [persist], onFailure: 'back' };
  if (state.phase === 'idle') return { state: relevel({ ...state, spec }), effects: [persist], onFailure: 'back' };
  const joining = newMembers(state.spec, spec);
  // None is lost: who stays has the nics it had, and maybe other addresses to announce.
  const kept = state.spec.members.map((now) => spec.members.find(({ name }) => name === now.name) ?? now);
  const ordered = { ...spec, members: [...kept, ...joining] };
  return joined({ ...state, spec: ordered }, joining);
}

const relevel = (state: GroupState): GroupState => ({ ...state, members: levelled(state, state.sealed, state.acked) });

/** `state` has the new spec and still the old members. */
function joined(state: GroupState, joining: readonly MemberSpec[]): Change {
  const newest = newestOpenOf(state.members);
  const added = joining.map(({ name }): MemberState => ({ name, sealed: state.sealed, acked: state.sealed, ready: false, joinedAt: newest }));
  const follow = followAcks(withMembers(state, [...state.members, ...added]));
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: true },
    { kind: 'reattach' },
    ...follow.effects,
    ...added.map(({ name }): Effect => ({ kind: 'emit', event: { type: 'joined', member: name } })),
  ];
  return { state: follow.state, effects, onFailure: 'back' };
}

export function decideJoin(state: GroupState, { member }: CommandOf<'join'>): Reply {
  const now = state.spec.members.find(({ name }) => name === member.name);
  const keepsNics = now !== undefined && sameNics(now, member);
  if (keepsNics && sameAddresses(now, member)) return IGNORED;
  if (state.phase === 'draining') return draining(state);
  if (now !== undefined && !keepsNics && state.phase === 'protected') {
    return deny('member_held', `${member.name} is protected with other nics: let it leave with held=release or held=discard first`);
  }
  const fault = specFault(specWith(state, member));
  return fault === undefined ? ACCEPTED : deny('bad_request', fault);
}

function specWith(state: GroupState, member: MemberSpec): GroupSpec {
  const known = state.spec.members.some(({ name }) => name === member.name);
  const members = known ? state.spec.members.map((m) => (m.name === member.name ? member : m)) : [...state.spec.members, member];
  return { ...state.spec, members };
}

export function applyJoin(state: GroupState, { member }: CommandOf<'join'>): Change {
  const next = { ...state, spec: specWith(state, member) };
  if (state.phase === 'idle') return { state: relevel(next), effects: [{ kind: 'persist', durable: true }], onFailure: 'back' };
  const isKnown = state.members.some(({ name }) => name === member.name);
  return joined(next, isKnown ? [] : [member]);
}

export function decideLeave(state: GroupState, { member, held }: CommandOf<'leave'>): Reply {
  if (memberOf(state, member) === undefined) return noSuchMember(state, [member]);
  if (state.phase === 'draining') return draining(state);
  if (state.members.length === 1) return deny('bad_request', `${member} is the last member: unprotect and delete the group`);
  if (state.phase === 'protected' && held === undefined) {
    return deny('member_held', `${member} has frames held: say held=release or held=discard`);
  }
  return ACCEPTED;
}

export function applyLeave(state: GroupState, { member, held }: CommandOf<'leave'>): Change {
  const spec = { ...state.spec, members: state.spec.members.filter(({ name }) => name !== member) };
  const persist: Effect = { kind: 'persist', durable: true };
  if (state.phase === 'idle') return { state: relevel({ ...state, spec }), effects: [persist], onFailure: 'back' };
  const members = state.members.filter(({ name }) => name !== member);
  const after = withMembers({ ...state, spec }, members);
  const follow = followAcks(after);
  const effects: readonly Effect[] = [
    persist,
    { kind: 'drainMember', member, held: held ?? 'discard' },
    { kind: 'reattach' },
    ...groupCut(state, after),
    ...follow.effects,
    { kind: 'emit', event: { type: 'left', member } },
  ];
  return { state: follow.state, effects, onFailure: 'forward' };
}

export function decideDelete(state: GroupState): Reply {
  if (state.phase === 'idle') return ACCEPTED;
  return deny('already_protected', `group ${state.spec.group} is ${state.phase}: unprotect it before you delete it`);
}

export const applyDelete = (): Change => ({ state: undefined, effects: [{ kind: 'forget' }], onFailure: 'back' });
