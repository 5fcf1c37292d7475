/**
 * The commands that move a protected group's watermarks: cut, ack, commit, rollback (and the
 * takeover of a group that is protected already, which is a rollback under a higher generation).
 *
 *      released    committed     acked      sealed   open
 *   ─────┼────────────┼────────────┼──────────┼────────►      cut moves sealed, ack acked,
 *        └─ facts     └─ commit    └─ ack     └─ cut          commit committed; a fact released
 *
 * A rollback to R sets all but released to R and goes on in a colour above every one in use:
 *
 *   colours   base+R │ base+R+1 … newest │ newest+1
 *             release│      discard      │ open again, is epoch R+1 from now on
 *
 * Each command is decided first, `decideX` (no change), then applied, `applyX`. The generation is
 * checked before either (step.ts).
 */
import { COLOURS_IN_FLIGHT_MAX, EPOCHS_IN_FLIGHT_MAX, MEMBER_LEAD_MAX, colour, colourDiff, epoch } from './types.ts';
import type { Effect, Epoch, Generation, GroupState, MemberState, Reply } from './types.ts';
import { ACCEPTED, IGNORED, colourOf, deny, followAcks, least, newestOpenOf, openOf, readied, withMembers } from './watermarks.ts';
import type { Change, CommandOf } from './watermarks.ts';

export const memberOf = (state: GroupState, name: string): MemberState | undefined => state.members.find((member) => member.name === name);

const outOfOrder = (message: string): Reply => deny('epoch_out_of_order', message);

/** May an epoch with this number open? The bound counts from what the plane said is released. */
function roomFor(state: GroupState, open: Epoch): Reply {
  if (colourDiff(colourOf(state, open), state.colourReleased) <= EPOCHS_IN_FLIGHT_MAX) return ACCEPTED;
  return deny('too_many_epochs', `${EPOCHS_IN_FLIGHT_MAX} epochs are in flight: commit before you cut again`);
}

export function decideCut(state: GroupState, cut: CommandOf<'cut'>): Reply {
  const who = cut.member === undefined ? undefined : memberOf(state, cut.member);
  if (cut.member !== undefined && who === undefined) return noSuchMember(state, [cut.member]);
  const { sealed } = who ?? state;
  const name = who === undefined ? `group ${state.spec.group}` : `member ${who.name}`;
  if (cut.epoch === sealed && sealed > 0 && !begunAt(state, sealed)) return IGNORED;
  if (cut.epoch !== sealed + 1) return outOfOrder(`the open epoch of ${name} is ${sealed + 1}: cut that one`);
  const lead = who === undefined ? 0 : cut.epoch - least(cutMembers(state, cut), 'sealed');
  if (lead > MEMBER_LEAD_MAX) return deny('too_many_epochs', `${name} is ${MEMBER_LEAD_MAX} epochs ahead of the group: cut the others first`);
  return roomFor(state, epoch(cut.epoch + 1));
}

/** The present execution began with this epoch sealed, by no cut of its own: none can be a repeat. */
const begunAt = ({ seam, takeover, generation }: GroupState, sealed: Epoch): boolean =>
  seam?.epoch === sealed || (takeover?.generation === generation && takeover.epoch === sealed);

/** The members after the cut: who had not sealed the epoch has now. */
function cutMembers(state: GroupState, cut: CommandOf<'cut'>): readonly MemberState[] {
  return state.members.map((member) =>
    (cut.member === undefined || cut.member === member.name) && member.sealed < cut.epoch ? { ...member, sealed: cut.epoch } : member,
  );
}

export function applyCut(state: GroupState, cut: CommandOf<'cut'>): Change {
  const next = withMembers(state, cutMembers(state, cut));
  const effects: Effect[] = [{ kind: 'persist', durable: false }];
  if (cut.member !== undefined) {
    const open = epoch(cut.epoch + 1);
    effects.push({ kind: 'cutMember', member: cut.member, colour: colourOf(next, open), epoch: open });
    effects.push({ kind: 'emit', event: { type: 'cut', epoch: cut.epoch, member: cut.member } });
  }
  effects.push(...groupCut(state, next));
  return { state: next, effects, onFailure: 'forward' };
}

/** One store, whenever the group's open epoch rose: by a group cut, by its last member, by a leave. */
export function groupCut(before: GroupState, after: GroupState): readonly Effect[] {
  if (after.sealed === before.sealed) return [];
  const open = openOf(after);
  return [
    { kind: 'cutGroup', colour: colourOf(after, open), epoch: open },
    { kind: 'emit', event: { type: 'cut', epoch: after.sealed } },
  ];
}

const ackers = (state: GroupState, ack: CommandOf<'ack'>): readonly string[] => ack.members ?? state.members.map(({ name }) => name);

export function decideAck(state: GroupState, ack: CommandOf<'ack'>): Reply {
  const names = ackers(state, ack);
  const unknown = names.filter((name) => memberOf(state, name) === undefined);
  if (unknown.length > 0) return noSuchMember(state, unknown);
  const members = state.members.filter(({ name }) => names.includes(name));
  const early = members.find((member) => ack.epoch > member.sealed);
  if (early !== undefined) return outOfOrder(`member ${early.name} has sealed up to ${early.sealed}: ack at most that`);
  return members.every((member) => member.acked >= ack.epoch) ? IGNORED : ACCEPTED;
}

const ackedTo = (member: MemberState, e: Epoch): MemberState => (member.acked < e ? { ...member, acked: e } : member);

export function applyAck(state: GroupState, ack: CommandOf<'ack'>): Change {
  const names = ackers(state, ack);
  const members = state.members.map((member) => (names.includes(member.name) ? ackedTo(member, ack.epoch) : member));
  const follow = followAcks(withMembers(state, members));
  const publish = published(state, follow.state);
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: follow.effects.length + publish.length > 0 },
    { kind: 'emit', event: { type: 'acked', epoch: ack.epoch, members: names } },
    ...publish,
    ...follow.effects,
  ];
  return { state: follow.state, effects, onFailure: 'forward' };
}

/** Across hosts: what this host's members are durable up to, for the ledger. */
function published(before: GroupState, after: GroupState): readonly Effect[] {
  return after.across === undefined || after.acked === before.acked ? [] : [{ kind: 'publish', generation: after.generation, life: after.across.life, epoch: after.acked }];
}

export function decideCommit(state: GroupState, commit: CommandOf<'commit'>): Reply {
  if (commit.epoch <= state.committed) return IGNORED;
  if (state.across !== undefined) return deny('not_acked', `epoch ${commit.epoch} is not acked by all hosts: across hosts acks commit, up to ${state.committed} so far`);
  if (commit.epoch > state.sealed) return outOfOrder(`the group has sealed up to ${state.sealed}: commit at most that`);
  return ackedEnough(state, commit.epoch);
}

function ackedEnough(state: GroupState, e: Epoch): Reply {
  if (state.spec.commit === 'explicit' || e <= state.acked) return ACCEPTED;
  const behind = state.members.filter((member) => member.acked < e).map(({ name }) => name);
  return deny('not_acked', `epoch ${e} is not acked by ${behind.join(', ')}: it is durable only up to ${state.acked}`);
}

export function applyCommit(state: GroupState, commit: CommandOf<'commit'>): Change {
  const members = state.members.map((member) => ackedTo(member, commit.epoch));
  const next = { ...withMembers(state, members), committed: commit.epoch };
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: true },
    { kind: 'release', colour: colourOf(next, next.committed) },
    { kind: 'emit', event: { type: 'committed', epoch: next.committed } },
  ];
  return { state: next, effects, onFailure: 'forward' };
}

/** May the group go back to R? The same for a rollback and for a takeover of a protected group. */
export function decideRestore(state: GroupState, to: Epoch): Reply {
  if (state.across !== undefined) return deny('bad_request', 'a group across hosts goes back by takeover, in place too: an epoch of one generation is never run twice');
  if (to < state.committed) return outOfOrder(`epoch ${state.committed} is committed, the world has seen it: go back to that or later`);
  if (to > state.sealed) return outOfOrder(`the group has sealed up to ${state.sealed}: go back to that or earlier`);
  if (colourDiff(state.colourNewest, state.colourReleased) >= COLOURS_IN_FLIGHT_MAX) {
    return deny('too_many_epochs', `${COLOURS_IN_FLIGHT_MAX} epochs are in flight: wait until the data plane has caught up`);
  }
  return ackedEnough(state, to);
}

/**
 * The watermarks at R and every colour in use left behind. `released` waits for the fact. `from`: the
 * epoch of this host's own execution that stands for R, lower where it missed a generation.
 */
export function restoredTo(state: GroupState, to: Epoch, from: Epoch = to): GroupState {
  const members = state.members.map((member) => ({
    ...member,
    sealed: to,
    acked: to,
    joinedAt: member.joinedAt > to ? to : member.joinedAt,
  }));
  const colourBase = colour(state.colourNewest - to);
  const seam = { colour: colourOf(state, from), epoch: to };
  return withMembers({ ...state, committed: to, colourBase, seam }, members);
}

export function applyRestore(state: GroupState, to: Epoch, raised?: Generation): Change {
  const restored = readied(restoredTo(state, to));
  const next = raised === undefined ? restored.state : { ...restored.state, generation: raised, takeover: { generation: raised, epoch: to } };
  const open = newestOpenOf(next.members);
  const effects: Effect[] = [
    { kind: 'persist', durable: true },
    { kind: 'restore', restored: colourOf(state, to), next: colourOf(next, open), epoch: open },
    ...restored.effects,
  ];
  if (raised !== undefined) effects.push({ kind: 'announce' });
  if (to > state.committed) effects.push({ kind: 'emit', event: { type: 'committed', epoch: to } });
  effects.push({ kind: 'emit', event: { type: raised === undefined ? 'rolled-back' : 'taken-over', epoch: to } });
  return { state: next, effects, onFailure: 'forward' };
}

export function noSuchMember(state: GroupState, names: readonly string[]): Reply {
  const has = state.members.map(({ name }) => name).join(', ');
  return deny('no_such_member', `group ${state.spec.group} has no member ${names.join(', ')}: it has ${has}`);
}
