/**
 * Small arithmetic over a group's watermarks and colours, shared by the parts of the machine.
 * Pure; every function is total on a state that satisfies `invariants.ts`.
 */
import { colour, colourDiff, epoch } from './types.ts';
import type { Colour, Command, Denial, DenialCode, Effect, Epoch, Fact, GroupSpec, GroupState, MemberSpec, MemberState, Reply } from './types.ts';

/** What an accepted input does: the state after it and what the world must be told, in order. */
export interface Change {
  readonly state: GroupState | undefined;
  readonly effects: readonly Effect[];
  readonly onFailure: 'back' | 'forward';
}
export type CommandOf<K extends Command['kind']> = Extract<Command, { kind: K }>;
export type FactOf<K extends Fact['kind']> = Extract<Fact, { kind: K }>;

export const ACCEPTED: Reply = { outcome: 'accepted' };
export const IGNORED: Reply = { outcome: 'ignored' };

export function deny(code: DenialCode, message: string): Reply {
  const denial: Denial = { code, message };
  return { outcome: 'denied', denial };
}

export const openOf = (sealedBy: { readonly sealed: Epoch }): Epoch => epoch(sealedBy.sealed + 1);

export const colourOf = (state: GroupState, e: Epoch): Colour => colour(state.colourBase + e);

export const newestOpenOf = (members: readonly MemberState[]): Epoch =>
  epoch(members.reduce((newest, member) => Math.max(newest, member.sealed), 0) + 1);

export const least = (members: readonly MemberState[], of: 'sealed' | 'acked'): Epoch =>
  epoch(members.reduce((low, member) => Math.min(low, member[of]), Number.MAX_SAFE_INTEGER));

export const serialMax = (a: Colour, b: Colour): Colour => (colourDiff(a, b) >= 0 ? a : b);

/** The state with these members, its own watermarks and newest colour raised to what they say. */
export function withMembers(state: GroupState, members: readonly MemberState[]): GroupState {
  const next = { ...state, members, sealed: least(members, 'sealed'), acked: least(members, 'acked') };
  return { ...next, colourNewest: serialMax(state.colourNewest, colourOf(next, newestOpenOf(members))) };
}

export function seamless(state: GroupState): GroupState {
  const { seam, ...rest } = state;
  return seam === undefined ? state : rest;
}

/** Every member of this host level at this epoch, in place since protect. */
export const levelled = (state: GroupState, sealed: Epoch, acked: Epoch): readonly MemberState[] =>
  localOf(state).map(({ name }) => ({ name, sealed, acked, ready: true, joinedAt: epoch(0) }));

/** Those of the spec that live here. */
export function localOf({ spec, across }: Pick<GroupState, 'spec' | 'across'>): readonly MemberSpec[] {
  if (across === undefined) return spec.members;
  const known = locals.get(spec);
  if (known?.self === across.self) return known.members;
  const members = spec.members.filter(({ host }) => host === across.self);
  locals.set(spec, { self: across.self, members });
  return members;
}
/** A spec does not change, and every step asks. */
const locals = new WeakMap<GroupSpec, { readonly self: string; readonly members: readonly MemberSpec[] }>();

/** With `commit: acks` the commit follows the acks; the effects come after a durable persist. */
export function followAcks(state: GroupState): { readonly state: GroupState; readonly effects: readonly Effect[] } {
  if (state.spec.commit !== 'acks' || state.across !== undefined || state.acked <= state.committed) return { state, effects: [] };
  const next = { ...state, committed: state.acked };
  return {
    state: next,
    effects: [
      { kind: 'release', colour: colourOf(next, next.committed) },
      { kind: 'emit', event: { type: 'committed', epoch: next.committed } },
    ],
  };
}

/** Members that waited for `released` to pass their joining: they may receive intra frames now. */
export function readied(state: GroupState): { readonly state: GroupState; readonly effects: readonly Effect[] } {
  const due = state.members.filter((member) => !member.ready && state.released >= member.joinedAt);
  if (due.length === 0) return { state, effects: [] };
  const members = state.members.map((member) => (due.includes(member) ? { ...member, ready: true } : member));
  return { state: { ...state, members }, effects: due.map(({ name }) => ({ kind: 'ready', member: name })) };
}
