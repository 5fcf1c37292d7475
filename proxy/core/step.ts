/**
 * The machine: one input, one step. Pure: no clock, no I/O, no randomness; what time there is
 * arrives in the input.
 *
 *     input ─► decide ─┬─ denied(code, why) ── nothing changes
 *                      ├─ ignored ──────────── an exact repeat: nothing changes
 *                      └─ accepted ─► apply ─► state', effects in order ─► invariants ─► out
 *
 * This file only sends an input the right way and compares the generation, which comes before
 * everything else of a command that carries one (I7). `epochs.ts`, `membership.ts` and
 * `protection.ts` decide and apply. It does not know whether its effects succeed: the executor
 * takes the state into memory only when they did (or owes the rest, see Step.onFailure).
 */
import { applyLeaveFence, applyOpen, decideLeaveFence, decideOpen, heed } from './across.ts';
import type { Across, Command, Fact, Generation, GroupState, Input, Reply, Step } from './types.ts';
import { applyAck, applyCommit, applyCut, applyRestore, decideAck, decideCommit, decideCut, decideRestore } from './epochs.ts';
import { fencedBy } from './hosts.ts';
import { checkStep } from './invariants.ts';
import { applyApply, applyDelete, applyJoin, applyLeave, decideApply, decideDelete, decideJoin, decideLeave, draining } from './membership.ts';
import { applyProtect, applyReleased, applyTakeover, applyUnprotect, decideProtect, decideReleased, decideTakeover, decideUnprotect, fenced, toIdle } from './protection.ts';
import { ACCEPTED, IGNORED, deny } from './watermarks.ts';
import type { Change, CommandOf, FactOf } from './watermarks.ts';

export function step(state: GroupState | undefined, input: Input): Step {
  const taken = input.kind === 'ledger' ? follow(state, heed(state, input)) : takeUp(state, input);
  checkStep(state, taken, !isFact(input));
  return taken;
}

/** A view of the ledger is decided by what it changes. */
const follow = (state: GroupState | undefined, change: Change | undefined): Step => ({ ...(change ?? unchanged(state)), reply: change === undefined ? IGNORED : ACCEPTED });
function takeUp(state: GroupState | undefined, input: Exclude<Input, FactOf<'ledger'>>): Step {
  const reply = decide(state, input);
  return { ...(reply.outcome === 'accepted' ? apply(state, input) : unchanged(state)), reply };
}
const unchanged = (state: GroupState | undefined): Change => ({ state, effects: [], onFailure: 'forward' });

/** The state to go on with when a step that may go back failed: as before, its colours used up. */
export function steppedBack(before: GroupState | undefined, failed: GroupState | undefined): GroupState | undefined {
  return before === undefined || failed === undefined ? before : { ...before, colourNewest: failed.colourNewest };
}

export function decide(state: GroupState | undefined, input: Input): Reply {
  if (input.kind === 'ledger') return heed(state, input) === undefined ? IGNORED : ACCEPTED;
  if (input.kind === 'apply') return decideApply(state, input);
  if (state === undefined) return isFact(input) ? IGNORED : deny('no_such_group', 'there is no such group: apply its file first');
  if (state.across !== undefined && !isFact(input)) return decideAcross(state, state.across, input);
  return decideAlone(state, input);
}

function decideAlone(state: GroupState, input: Exclude<Input, CommandOf<'apply'> | FactOf<'ledger'>>): Reply {
  switch (input.kind) {
    case 'delete': return decideDelete(state);
    case 'join': return decideJoin(state, input);
    case 'leave': return decideLeave(state, input);
    case 'protect': return decideProtect(state, input);
    case 'takeover': return decideTakeover(state, input);
    case 'released': return decideReleased(state, input);
    case 'drained': return state.phase === 'draining' ? ACCEPTED : IGNORED;
    case 'cut':
    case 'ack':
    case 'commit':
    case 'rollback':
    case 'unprotect': return decideFenced(state, input);
  }
}

/** What is the group's goes through the ledger, and comes back as its view. */
function decideAcross(state: GroupState, across: Across, command: Exclude<Command, CommandOf<'apply'>>): Reply {
  switch (command.kind) {
    case 'takeover': return decideOpen(state, across, command);
    case 'unprotect':
      if (state.phase === 'fenced') return decideLeaveFence(command, state, across);
      return byLedger(command.kind);
    case 'delete':
    case 'protect':
    case 'join':
    case 'leave': return byLedger(command.kind);
    case 'cut':
    case 'ack':
    case 'commit':
    case 'rollback':
      if (state.phase === 'fenced' && across.pending !== undefined) return fencedBy(across.pending, command.generation);
      return decideFenced(state, command);
  }
}

const byLedger = (kind: string): Reply => deny('bad_request', `${kind} is not one host's to do in a group across hosts: change its file, unprotected, and apply it`);

type Fenced = Extract<Command, { generation: Generation; kind: 'cut' | 'ack' | 'commit' | 'rollback' | 'unprotect' }>;

function decideFenced(state: GroupState, input: Fenced): Reply {
  if (input.generation < state.generation) return fenced(state, input.generation);
  if (state.phase === 'idle') return deny('not_protected', `group ${state.spec.group} is not protected: protect it first`);
  if (input.generation > state.generation) return fenced(state, input.generation);
  if (input.kind === 'unprotect') return decideUnprotect(state, input);
  if (state.phase === 'draining') return draining(state);
  switch (input.kind) {
    case 'cut': return decideCut(state, input);
    case 'ack': return decideAck(state, input);
    case 'commit': return decideCommit(state, input);
    case 'rollback': return decideRestore(state, input.epoch);
  }
}

const isFact = (input: Input): input is Fact => input.kind === 'released' || input.kind === 'drained' || input.kind === 'ledger';

function mustHave(state: GroupState | undefined): GroupState {
  if (state === undefined) throw new TypeError('an input was accepted for a group that is not there');
  return state;
}

function apply(maybe: GroupState | undefined, input: Exclude<Input, FactOf<'ledger'>>): Change {
  if (input.kind === 'apply') return applyApply(maybe, input);
  const state = mustHave(maybe);
  switch (input.kind) {
    case 'delete': return applyDelete();
    case 'join': return applyJoin(state, input);
    case 'leave': return applyLeave(state, input);
    case 'protect': return applyProtect(state, input);
    case 'cut': return applyCut(state, input);
    case 'ack': return applyAck(state, input);
    case 'commit': return applyCommit(state, input);
    case 'rollback': return applyRestore(state, input.epoch);
    case 'takeover': return state.across === undefined ? applyTakeover(state, input) : applyOpen(state, state.across);
    case 'unprotect': return state.across === undefined ? applyUnprotect(state, input) : applyLeaveFence(state, state.across);
    case 'released': return applyReleased(state, input);
    case 'drained': return toIdle(state, 'release');
  }
}
