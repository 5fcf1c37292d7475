/** Core state in the API's shape: small pure functions, the only place where replies are made. */
import type { GroupState } from '../core/types.ts';
import type { HeldEpoch, HoldCounters } from '../ports.ts';
import type { HostFigures } from './across.ts';
import { groupFileOf } from './contract.ts';
import type { CommandReply, GroupView, HeldView } from './contract.ts';

type StateFields = Omit<CommandReply, 'outcome'>;

const round = (ms: number): number => Math.round(ms * 1000) / 1000;

function stateFields(state: GroupState, counters: HoldCounters | undefined): StateFields {
  return {
    group: state.spec.group,
    generation: state.generation,
    phase: state.phase,
    open: state.sealed + 1,
    sealed: state.sealed,
    acked: state.acked,
    committed: state.committed,
    released: state.released,
    held: {
      frames: counters?.heldFrames ?? 0,
      bytes: counters?.heldBytes ?? 0,
      oldestMs: round(counters?.oldestMs ?? 0),
    },
    dropped: {
      overflow: counters?.overflowFrames ?? 0,
      discarded: counters?.discardedFrames ?? 0,
      refused: counters?.refusedFrames ?? 0,
    },
  };
}

export function commandReply(outcome: CommandReply['outcome'], state: GroupState, counters: HoldCounters | undefined): CommandReply {
  return { ...stateFields(state, counters), outcome };
}

export function groupView(state: GroupState, counters: HoldCounters | undefined, hosts?: readonly HostFigures[]): GroupView {
  return {
    ...stateFields(state, counters),
    members: state.members.map((member) => ({
      name: member.name,
      open: member.sealed + 1,
      sealed: member.sealed,
      acked: member.acked,
      ready: member.ready,
    })),
    ...(hosts === undefined ? {} : { hosts: hosts.map((one) => ({ ...one })) }),
    spec: groupFileOf(state.spec),
  };
}

export function heldView(state: GroupState, epochs: readonly HeldEpoch[]): HeldView {
  return {
    group: state.spec.group,
    generation: state.generation,
    frames: epochs.reduce((sum, { frames }) => sum + frames, 0),
    bytes: epochs.reduce((sum, { bytes }) => sum + bytes, 0),
    epochs: epochs.map(({ epoch, frames, bytes, oldestMs }) => ({ epoch, frames, bytes, oldestMs: round(oldestMs) })),
  };
}
