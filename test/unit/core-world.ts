import { step } from '../../proxy/core/step.ts';
import type { GroupSpec, GroupState, Input } from '../../proxy/core/types.ts';

/** Members a..z, one nic each. */
export function specOf(names: readonly string[], commit: 'explicit' | 'acks' = 'explicit', group = 'web'): GroupSpec {
  const members = names.map((name) => ({
    name,
    nics: [{ port: `tap${name}`, mac: `02:00:00:00:00:0${(name.charCodeAt(0) - 'a'.charCodeAt(0) + 1).toString(16)}`, vlan: 0 }],
  }));
  return { group, commit, members, hold: { bytes: 1 << 20, highWater: 0.75 }, foreignSource: 'hold', intraPath: 'redirect' };
}

/** The state after an input that must be accepted. */
export function accept(state: GroupState | undefined, input: Input): GroupState {
  const taken = step(state, input);
  if (taken.reply.outcome !== 'accepted' || taken.state === undefined) {
    throw new Error(`${JSON.stringify(input)} was not accepted: ${JSON.stringify(taken.reply)}`);
  }
  return taken.state;
}
