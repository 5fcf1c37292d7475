/**
 * One host of a group across hosts: what it does when it hears what the ledger says. Pure.
 *
 *            head: protect                    head: newer generation
 *    idle ─────────────────────► protected ─────────────────────────► fenced
 *      │                          ▲      ▲                            │    │ unprotect(discard), by
 *      └ pending ── takeover ─────┘      └──────── takeover ──────────┘    └─► idle   its own engine
 *
 *    committed   raised to what all hosts acked, as far as the newest view knows; never otherwise
 *    fenced      releases what its own generation reached (R of the takeover that ended it, where it
 *                is known) and nothing more; keeps its old generation on the wire, so what its
 *                members send dies at every host that has gone on
 *
 * A generation that began by takeover is opened on each host by that host's engine: only the engine
 * knows that the VMs of the old execution have stopped and those at R are in their place. Had the
 * host opened it by itself, the old execution's frames would have the new one's names (I5, I7).
 *
 * A host that was paused or cut off and wakes acts on what it knew. That is at most what all hosts
 * had acked in its generation, hence at most R: it releases what others would have released too.
 * A view may be old, repeated or out of order: heads count by `serial`, committed only rises.
 *
 * A ledger that was brought back from a backup may give a generation's number again. What it says of
 * a life that is not this host's own moves nothing here: a host that gates is fenced by it, and one
 * that is idle and cannot be of it holds, fenced, where the head is newer by its serial (D84).
 */
import { COLOURS_IN_FLIGHT_MAX, colour, colourDiff, epoch, generation } from './types.ts';
import type { Across, Effect, Epoch, Fact, GroupSpec, GroupState, Head, LedgerView, Reply } from './types.ts';
import { restoredTo } from './epochs.ts';
import { ackOf, committedOf, fencedBy, hostsOf, isOfLine, lineOf, looksLike } from './hosts.ts';
import { sameSpec } from './spec.ts';
import { begun, toIdle } from './protection.ts';
import { ACCEPTED, IGNORED, colourOf, deny, levelled, newestOpenOf } from './watermarks.ts';
import type { Change, CommandOf } from './watermarks.ts';

type LedgerFact = Extract<Fact, { kind: 'ledger' }>;
const PERSIST: Effect = { kind: 'persist', durable: true };
const names = (head: Head, self: string): boolean => hostsOf(head.spec).includes(self);
const isOurs = ({ generation: own }: GroupState, { life }: Across, head: Head): boolean => head.generation === own && head.life === life;

/** undefined = nothing to do (yet). What it returns is level: said again, the answer is undefined. */
export function heed(state: GroupState | undefined, { self, view }: LedgerFact): Change | undefined {
  const { head } = view;
  if (head === undefined) return undefined; // gone from the ledger is no reason to stop holding
  if (state === undefined) return head.phase === 'deleted' || !names(head, self) ? undefined : { state: fresh(head, self), effects: [PERSIST], onFailure: 'back' };
  const { across } = state;
  if (across === undefined || head.serial < across.serial || state.phase === 'draining') return undefined;
  const isNew = head.serial > across.serial;
  const isOther = head.serial === across.serial && !isKnown(state, across, head);
  switch (state.phase) {
    case 'idle': return heedIdle(state, across, view, head, isNew);
    case 'fenced': return isNew || isOther ? fence(state, across, head) : undefined;
    case 'protected': return isNew || isOther ? heedChange(state, across, head) : follow(state, across, head, view);
  }
}

/** What it knows by this head. Its epochs' line stays with them, and a number it was told of is not forgotten. */
const by = ({ self, line, told }: Across, serial: number, life: string | undefined): Across =>
  ({ self, serial, life, ...(line === undefined ? {} : { line }), ...(told === undefined ? {} : { told }) });
/** The same, of a generation that begins or is opened here: from now on its epochs are of its line. */
const beginning = (across: Across, serial: number, head: Head): Across => by({ ...across, line: lineOf(head) }, serial, head.life);

/** No store gives one serial to two heads: a second one is of another past (D84). */
function isKnown(state: GroupState, across: Across, head: Head): boolean {
  const { pending } = across;
  return pending === undefined ? isOurs(state, across, head) : head.generation === pending.generation && head.life === pending.life;
}

/** It has not taken up this head yet, and will never take up an older one. */
function fresh(head: Head, self: string): GroupState {
  const none = epoch(0);
  const blank: GroupState = {
    spec: head.spec, phase: 'idle', generation: generation(0), released: none, committed: none, acked: none, sealed: none,
    colourBase: colour(0), colourNewest: colour(1), colourReleased: colour(0),
    members: [],
    across: { self, serial: head.serial - 1 },
  };
  return { ...blank, members: levelled(blank, none, none) };
}

/** The same group by another head: its spec and its members here, level. */
function under(state: GroupState, spec: GroupSpec, across: Across): GroupState {
  const next = { ...state, spec, across };
  return { ...next, members: levelled(next, state.sealed, state.acked) };
}

function heedIdle(state: GroupState, across: Across, view: LedgerView, head: Head, isNew: boolean): Change | undefined {
  const { self, serial, life, pending } = across;
  if (head.phase === 'deleted' || !names(head, self)) return { state: undefined, effects: [{ kind: 'forget' }], onFailure: 'back' };
  if (head.phase === 'idle') {
    if (!isNew && sameSpec(state.spec, head.spec)) return undefined; // a protection that ended by a head with another file has its serial already
    const newest = generation(Math.max(state.generation, head.generation));
    return { state: { ...under(state, head.spec, by(across, head.serial, head.life)), generation: newest }, effects: [PERSIST], onFailure: 'back' };
  }
  if (isNew && !isOurs(state, across, head) && head.generation <= state.generation) return heldBack(state, across, head);
  if (head.begun === 'protect' && head.generation > state.generation) {
    const begins = beginning(across, head.serial, head);
    const next = { ...begun(under(state, head.spec, begins), head.generation, head.start), across: begins };
    if (ackOf(head, view, self) > head.start) return forgotten(next, begins, head);
    return { state: next, effects: [PERSIST, { kind: 'attach', colour: colourOf(next, epoch(head.start + 1)), epoch: epoch(head.start + 1) }, { kind: 'emit', event: { type: 'protected' } }], onFailure: 'back' };
  }
  if (head.begun === 'protect' || (pending?.serial === head.serial && serial === head.serial)) return undefined;
  return { state: under(state, head.spec, { ...by(across, head.serial, life), pending: head }), effects: [PERSIST], onFailure: 'back' };
}

/**
 * A generation that has a number this host knows for another life, or a lower one. Its members' frames
 * must not pass, for it is protected; and they can't be told from the other life's, so nothing leaves.
 * It goes on by a protection or takeover with a number above, or ends by its own unprotect.
 */
function heldBack(state: GroupState, known: Across, head: Head): Change {
  const across: Across = { ...by({ ...known, line: undefined }, head.serial, known.life), pending: head }; // what it sealed counts as committed here, for colours alone
  const own = generation(Math.max(state.generation, 1));
  return fencedFrom(begun(under(state, head.spec, across), own, state.sealed), across, head, state.sealed);
}

/**
 * It acked in this generation and knows nothing of it: its journal is lost. What is committed there
 * was of an execution that this host can't tell from the one that speaks now, so it holds, releases
 * nothing, and goes on by a takeover or ends by its own unprotect.
 */
function forgotten(begun: GroupState, begins: Across, head: Head): Change {
  return fencedFrom(begun, { ...begins, pending: head }, head, head.start);
}

function fencedFrom(begun: GroupState, across: Across, head: Head, start: Epoch): Change {
  const next: GroupState = { ...begun, phase: 'fenced', across };
  const open = epoch(start + 1);
  return { state: next, effects: [PERSIST, { kind: 'attach', colour: colourOf(next, open), epoch: open }, { kind: 'emit', event: { type: 'fenced', epoch: head.start } }], onFailure: 'back' };
}

/** The group's committed has risen: what the ledger shows of this life's acks. */
function follow(state: GroupState, across: Across, head: Head, view: LedgerView): Change | undefined {
  if (!isOurs(state, across, head) || head.phase !== 'protected') return undefined;
  return raisedTo(state, committedOf(head, view));
}

function raisedTo(state: GroupState, committed: Epoch): Change | undefined {
  if (committed <= state.committed) return undefined;
  const next = { ...state, committed };
  const effects: readonly Effect[] = [
    { kind: 'persist', durable: false }, // the acks in the ledger are the commit, and they outlive this host (D83)
    { kind: 'release', colour: colourOf(next, committed) },
    { kind: 'emit', event: { type: 'committed', epoch: committed } },
  ];
  return { state: next, effects, onFailure: 'forward' };
}

function heedChange(state: GroupState, across: Across, head: Head): Change | undefined {
  if (!isOurs(state, across, head)) return fence(state, across, head);
  if (head.phase === 'protected') return undefined;
  const ended = { ...state, across: by(across, head.serial, head.life) };
  if (head.held === 'discard') return toIdle(ended, 'discard');
  return { state: { ...ended, phase: 'draining' }, effects: [PERSIST, { kind: 'drain' }], onFailure: 'forward' };
}

/** R is of this host's own epochs only when the takeover was from its own life. */
function fence(state: GroupState, across: Across, head: Head): Change {
  const { life } = across;
  const isEndOfOurs = state.phase === 'protected' && head.from === state.generation && head.fromLife === life && head.begun === 'takeover';
  const raised = isEndOfOurs ? raisedTo(state, head.start) : undefined;
  const told: Across = { ...by(across, head.serial, life), pending: head };
  const fenced: GroupState = { ...(raised?.state ?? state), phase: 'fenced', across: told };
  const isClosed = isMute(state) || isMute(fenced); // another host may not have heard of the newer one yet
  const next: GroupState = isClosed ? { ...fenced, across: { ...told, mute: true } } : fenced;
  const moves = (raised?.effects ?? []).filter(({ kind }) => kind !== 'persist');
  const mute: readonly Effect[] = isClosed ? [{ kind: 'closeWire' }] : [];
  return { state: next, effects: [PERSIST, ...mute, ...moves, { kind: 'emit', event: { type: 'fenced', epoch: head.start } }], onFailure: 'forward' };
}

/** It is, or was, fenced by another life that its own frames would pass for on the wire: they stay here. */
export function isMute({ phase, generation: own, across }: GroupState): boolean {
  if (phase !== 'fenced' || across?.pending === undefined) return false;
  return across.mute === true || (across.pending.life !== across.life && looksLike(own, across.pending.generation));
}

/** The takeover was made in the ledger already, by this host or another; may it be opened here? */
export function decideOpen(state: GroupState, across: Across, takeover: CommandOf<'takeover'>): Reply {
  const { pending } = across;
  const again = state.takeover?.generation === takeover.generation && state.takeover.epoch === takeover.epoch;
  if (pending === undefined) {
    if (again && state.phase === 'protected' && state.generation === takeover.generation) return IGNORED;
    return deny('fenced', `the group is at generation ${state.generation}: a takeover needs a higher one`);
  }
  if (takeover.generation !== pending.generation) return fencedBy(pending, takeover.generation);
  if (pending.phase !== 'protected') return deny('not_protected', `generation ${pending.generation} has ended meanwhile`);
  if (!names(pending, across.self)) return deny('fenced', `generation ${pending.generation} has no members on host ${across.self}`);
  const isOurEnd = pending.from === state.generation && pending.fromLife === across.life;
  if (state.phase === 'idle' && (isOurEnd || isOfLine(pending, across)) && pending.start < state.committed) {
    return deny('epoch_out_of_order', `epoch ${state.committed} is committed here, the world has seen it, generation ${pending.generation} goes on from epoch ${pending.start}: unprotect that one and protect again`);
  }
  const isPast = state.phase !== 'idle' && pending.start < state.committed; // an idle host's epochs are else of a protection that ended
  if (pending.begun === 'protect' || isPast || pending.generation <= state.generation) {
    return deny('fenced', `the protection this host knew has ended, generation ${pending.generation} is of another: unprotect with held=discard here first`);
  }
  if (takeover.epoch !== pending.start) return deny('epoch_out_of_order', `generation ${pending.generation} goes on from epoch ${pending.start}`);
  if (state.phase !== 'idle' && colourDiff(state.colourNewest, state.colourReleased) >= COLOURS_IN_FLIGHT_MAX) {
    return deny('too_many_epochs', `${COLOURS_IN_FLIGHT_MAX} epochs are in flight: wait until the data plane has caught up`);
  }
  return ACCEPTED;
}

/** From here on this host is in the new generation: held frames beyond R are gone, colours are new. */
export function applyOpen(state: GroupState, known: Across): Change {
  const { serial, pending } = known;
  if (pending === undefined) throw new TypeError('a generation is opened that is not pending');
  const takeover = { generation: pending.generation, epoch: pending.start };
  const across = beginning(known, serial, pending);
  if (state.phase === 'idle') {
    const next = { ...begun(under(state, pending.spec, across), pending.generation, pending.start), across, takeover };
    const open = newestOpenOf(next.members);
    return { state: next, effects: [PERSIST, { kind: 'attach', colour: colourOf(next, open), epoch: open }, ...told(takeover.epoch)], onFailure: 'back' };
  }
  const moved = { ...state, spec: pending.spec, phase: 'protected' as const, generation: pending.generation, across, takeover };
  const next = restoredTo({ ...moved, members: levelled(moved, pending.start, pending.start) }, pending.start, state.committed);
  const open = newestOpenOf(next.members);
  const effects: readonly Effect[] = [
    PERSIST,
    ...(sameSpec(state.spec, pending.spec) ? [] : [{ kind: 'reattach' as const }]),
    { kind: 'restore', restored: colourOf(state, state.committed), next: colourOf(next, open), epoch: open },
    ...told(takeover.epoch),
  ];
  return { state: next, effects, onFailure: 'forward' };
}

const told = (at: Epoch): readonly Effect[] => [{ kind: 'announce' }, { kind: 'emit', event: { type: 'taken-over', epoch: at } }];

/** A fenced host ends by its own engine's word: whatever it held is of an execution that is over. What fenced it is known from then on. */
export function decideLeaveFence(unprotect: CommandOf<'unprotect'>, state: GroupState, across: Across): Reply {
  const known = [state.generation, across.pending?.generation];
  if (!known.includes(unprotect.generation)) return deny('fenced', `the group is at generation ${across.pending?.generation ?? state.generation}`);
  return unprotect.held === 'discard' ? ACCEPTED : deny('fenced', 'what this host holds is of an execution that is over: stop its VMs, then unprotect with held=discard');
}

export function applyLeaveFence(state: GroupState, across: Across): Change {
  const told = generation(Math.max(across.told ?? 0, across.pending?.generation ?? 0));
  const { takeover, ...rest } = state;
  const from: GroupState = takeover === undefined ? state : rest;
  return toIdle({ ...from, across: by({ ...across, told: told > state.generation ? told : across.told }, across.serial, across.life) }, 'discard');
}
