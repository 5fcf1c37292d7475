import { describe, expect, test } from 'vitest';
import { step } from '../../proxy/core/step.ts';
import { COLOURS_IN_FLIGHT_MAX, EPOCHS_IN_FLIGHT_MAX, MEMBER_LEAD_MAX, colour, colourDiff, epoch, generation } from '../../proxy/core/types.ts';
import type { Command, GroupSpec, GroupState, Input, MemberSpec, Step } from '../../proxy/core/types.ts';
import { checkState } from '../../proxy/core/invariants.ts';
import { resume } from '../../proxy/core/resume.ts';
import { accept, specOf } from './core-world.ts';

/**
 * Every reachable small state x every input. The states are found by the machine itself, breadth
 * first; what it should answer is written a second time here, as rules in the order in which they
 * decide. `step` checks the invariants by itself after each input and throws.
 */
/**
 * Epochs and generations that are gone through with 1, 2 and 3 members; inputs go beyond both.
 * SLUICE_TABLE=full goes much further, in some minutes of a core.
 */
const FULL = process.env.SLUICE_TABLE === 'full';
const SEALED_MAX = FULL ? [4, 2, 1] : [3, 1, 0];
/** Where members are at their other places; every state is asked to move them there and back. */
const AWAY_SEALED_MAX = 1;
const GENERATION_MAX = FULL ? 2 : 1;
const EPOCH_MAX = 4;

/** Every member has two places, as a guest and its standby have: `tapa` and `tapa.1`. */
const OTHER_PLACE = '.1';
const portOf = (state: GroupState, name: string): string | undefined => state.spec.members.find((member) => member.name === name)?.nics[0]?.port;
const isAway = (state: GroupState, name: string): boolean => portOf(state, name)?.endsWith(OTHER_PLACE) === true;
const placed = (member: MemberSpec, away: boolean): MemberSpec =>
  ({ ...member, nics: member.nics.map((nic) => ({ ...nic, port: nic.port.replace(OTHER_PLACE, '') + (away ? OTHER_PLACE : '') })) });

/** Members of a takeover: all at one side or the other, in another order; and some that are not the group's. */
function movedMembers({ spec }: GroupState): { right: MemberSpec[][]; wrong: MemberSpec[][] } {
  const all = [...spec.members].reverse();
  const mac = '02:00:00:00:99:99';
  return {
    right: [true, false].map((away) => all.map((member) => placed(member, away))),
    wrong: [all.slice(1), [...all, ...specOf(['x']).members], all.map((member) => ({ ...member, nics: member.nics.map((nic) => ({ ...nic, mac })) }))],
  };
}

function inputs(state: GroupState): Input[] {
  const g = state.generation;
  const at = (n: number) => generation(n);
  const all: Input[] = [{ kind: 'delete' }, { kind: 'protect' }, { kind: 'drained' }];
  for (const commit of ['explicit', 'acks'] as const) {
    for (const names of [['a', 'b'], ['a'], ['a', 'b', 'c']]) all.push({ kind: 'apply', spec: specOf(names, commit) });
  }
  all.push({ kind: 'apply', spec: { ...specOf(['a', 'b']), hold: { bytes: 1, highWater: 0.5 } } });
  for (const name of ['a', 'b', 'c', 'x']) {
    all.push({ kind: 'leave', member: name }, { kind: 'leave', member: name, held: 'release' }, { kind: 'leave', member: name, held: 'discard' });
  }
  all.push({ kind: 'join', member: { name: 'c', nics: [{ port: 'tapc', mac: '02:00:00:00:00:03', vlan: 0 }] } });
  if (state.members.some((m) => m.name === 'a')) all.push({ kind: 'join', member: { name: 'd', nics: [{ port: portOf(state, 'a') ?? '', mac: '02:00:00:00:00:0d', vlan: 0 }] } });
  const { right, wrong } = movedMembers(state);
  for (let n = Math.max(1, g - 1); n <= g + 1; n += 1) all.push({ kind: 'protect', generation: at(n) });
  for (let n = Math.max(1, g - 1); n <= g + 1; n += 1) {
    for (const held of ['release', 'discard'] as const) all.push({ kind: 'unprotect', generation: at(n), held });
    for (let e = 0; e <= EPOCH_MAX; e += 1) {
      for (const kind of ['cut', 'ack', 'commit', 'rollback', 'takeover'] as const) all.push({ kind, generation: at(n), epoch: epoch(e) });
      for (const members of right) all.push({ kind: 'takeover', generation: at(n), epoch: epoch(e), members });
      for (const members of e === state.sealed ? wrong : []) all.push({ kind: 'takeover', generation: at(n), epoch: epoch(e), members });
      for (const member of ['a', 'b', 'c', 'x']) {
        all.push({ kind: 'cut', generation: at(n), epoch: epoch(e), member }, { kind: 'ack', generation: at(n), epoch: epoch(e), members: [member] });
      }
    }
  }
  for (let c = -3; c <= EPOCH_MAX + 1; c += 1) all.push({ kind: 'released', colour: colour(state.colourBase + c) });
  return all;
}

/**
 * States that differ only in the names of their members, in the absolute value of colours, or in
 * what is remembered of members long ready, are one.
 */
function keyOf(state: GroupState): string {
  const { colourBase, seam, takeover } = state;
  const members = state.members.map((m) => `${m.sealed}${m.acked}${m.ready ? '' : `+${m.joinedAt}`}${isAway(state, m.name) ? 'm' : ''}`).sort();
  const near = (n: number) => Math.max(-2, n);
  const behind = state.phase === 'idle' ? 0 : near(colourDiff(state.colourReleased, colourBase));
  const seamAt = seam === undefined ? '' : `${near(colourDiff(seam.colour, colourBase))}:${seam.epoch}`;
  const marks = [state.released, state.committed, state.generation];
  const began = takeover === undefined ? '' : `${takeover.generation}${takeover.epoch}`;
  return [state.phase, state.spec.commit, members, marks, behind, seamAt, began].join(' ');
}

const sealedMax = (state: GroupState): number => {
  const most = SEALED_MAX[state.members.length - 1] ?? 0;
  return FULL || !state.members.some(({ name }) => isAway(state, name)) ? most : Math.min(most, AWAY_SEALED_MAX);
};
const small = (state: GroupState): boolean =>
  state.generation <= GENERATION_MAX && state.members.every((m) => m.sealed <= sealedMax(state));

type Verdict = string;

function expected(state: GroupState, input: Input): Verdict {
  const has = (name: string) => state.members.find((m) => m.name === name);
  const { phase } = state;
  switch (input.kind) {
    case 'delete': return phase === 'idle' ? 'accepted' : 'already_protected';
    case 'drained': return phase === 'draining' ? 'accepted' : 'ignored';
    case 'protect':
      if (input.generation !== undefined && input.generation < state.generation) return 'fenced';
      if (phase === 'idle') return 'accepted';
      return phase === 'protected' && input.generation === state.generation ? 'ignored' : 'already_protected';
    case 'takeover': return takingOver(state, input);
    case 'cut': case 'ack': case 'commit': case 'rollback': case 'unprotect': return fencedOr(state, input);
    case 'apply': return applying(state, input.spec.commit, input.spec.members.map((m) => m.name), input.spec.hold.bytes);
    case 'join':
      if (has(input.member.name) && portOf(state, input.member.name) === input.member.nics[0]?.port) return 'ignored';
      if (phase === 'draining') return 'not_protected';
      if (has(input.member.name)) return phase === 'protected' ? 'member_held' : 'accepted';
      return input.member.name === 'd' && has('a') ? 'bad_request' : 'accepted';
    case 'leave':
      if (!has(input.member)) return 'no_such_member';
      if (phase === 'draining') return 'not_protected';
      if (state.members.length === 1) return 'bad_request';
      return phase === 'protected' && input.held === undefined ? 'member_held' : 'accepted';
    case 'released': case 'ledger': return 'any';
  }
}

function applying(state: GroupState, commit: string, names: readonly string[], bytes: number): Verdict {
  const now = state.members.map((m) => m.name);
  const home = now.filter((n) => !isAway(state, n));
  const same = names.length === home.length && names.every((n) => home.includes(n)) && home.length === now.length;
  const holds = state.spec.hold.bytes === bytes;
  if (same && commit === state.spec.commit && holds) return 'ignored';
  if (state.phase === 'idle') return 'accepted';
  if (state.phase === 'draining') return 'not_protected';
  if (!holds) return 'bad_request';
  return now.every((n) => names.includes(n) && home.includes(n)) ? 'accepted' : 'member_held';
}

/** Only one that names where the group is already, or no place at all, is the takeover that was (I7). */
function takingOver(state: GroupState, { generation: given, epoch: to, members }: Extract<Command, { kind: 'takeover' }>): Verdict {
  const { phase, takeover } = state;
  const isThere = members === undefined || (areOurs(state, members) && members.every((one) => one.nics[0]?.port === portOf(state, one.name)));
  if (phase === 'protected' && given === state.generation && isThere && takeover?.generation === given && takeover.epoch === to) return 'ignored';
  if (given <= state.generation) return 'fenced';
  if (phase === 'draining') return 'not_protected';
  if (members !== undefined && !areOurs(state, members)) return 'bad_request';
  return phase === 'idle' ? 'accepted' : restoring(state, to);
}

/** The same names, each with its MAC: `wrong` above breaks one or the other. */
const areOurs = ({ spec }: GroupState, members: readonly MemberSpec[]): boolean =>
  spec.members.length === members.length && spec.members.every((now) => members.some((one) => one.name === now.name && one.nics[0]?.mac === now.nics[0]?.mac));

const restoring = (state: GroupState, to: number): Verdict =>
  to < state.committed || to > state.sealed ? 'epoch_out_of_order' : state.spec.commit === 'acks' && to > state.acked ? 'not_acked' : 'accepted';

function fencedOr(state: GroupState, input: Extract<Command, { kind: 'cut' | 'ack' | 'commit' | 'rollback' | 'unprotect' }>): Verdict {
  if (input.generation < state.generation) return 'fenced';
  if (state.phase === 'idle') return 'not_protected';
  if (input.generation !== state.generation) return 'fenced';
  if (input.kind === 'unprotect') return state.phase === 'draining' && input.held === 'release' ? 'ignored' : 'accepted';
  if (state.phase === 'draining') return 'not_protected';
  if (input.kind === 'rollback') return restoring(state, input.epoch);
  if (input.kind === 'commit') {
    if (input.epoch <= state.committed) return 'ignored';
    if (input.epoch > state.sealed) return 'epoch_out_of_order';
    return state.spec.commit === 'acks' && input.epoch > state.acked ? 'not_acked' : 'accepted';
  }
  const named = input.kind === 'cut' ? (input.member === undefined ? undefined : [input.member]) : input.members;
  const members = state.members.filter((m) => named === undefined || named.includes(m.name));
  if (named !== undefined && members.length < named.length) return 'no_such_member';
  if (input.kind === 'ack') {
    if (members.some((m) => input.epoch > m.sealed)) return 'epoch_out_of_order';
    return members.every((m) => input.epoch <= m.acked) ? 'ignored' : 'accepted';
  }
  const sealed = input.member === undefined ? state.sealed : Math.max(...members.map((m) => m.sealed));
  const cut = state.seam?.epoch !== sealed && !(state.takeover?.generation === state.generation && state.takeover.epoch === sealed);
  return input.epoch === sealed + 1 ? 'accepted' : input.epoch === sealed && sealed > 0 && cut ? 'ignored' : 'epoch_out_of_order';
}

/** Everybody is where the takeover says, in the group's own order, and is moved before anything is released or delivered again. */
function checkPlaces(before: GroupState, { members }: Extract<Command, { kind: 'takeover' }>, { state, effects }: Step): void {
  const wanted = before.spec.members.map((now) => members?.find(({ name }) => name === now.name) ?? now);
  expect(state?.spec.members).toEqual(wanted);
  const kinds = effects.map(({ kind }) => kind);
  const moved = kinds.indexOf('reattach');
  expect(moved >= 0).toBe(members !== undefined && before.phase === 'protected');
  if (moved < 0) return;
  expect(kinds[0]).toBe('persist');
  for (const later of ['restore', 'release', 'announce'] as const) if (kinds.includes(later)) expect(kinds.indexOf(later)).toBeGreaterThan(moved);
}

const verdictOf = ({ reply }: Step): Verdict => (reply.outcome === 'denied' ? reply.denial.code : reply.outcome);

describe('every small state x every input', () => {
  test('answers by the rules, and what is not accepted changes nothing', () => {
    const first = accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) });
    const seen = new Map([[keyOf(first), first]]);
    const phases = new Set<string>();
    const verdicts = new Set<string>();
    let steps = 0;
    for (const state of seen.values()) {
      phases.add(state.phase);
      checkState(resume(state).state);
      for (const input of inputs(state)) {
        const taken = step(state, input);
        steps += 1;
        const verdict = verdictOf(taken);
        verdicts.add(`${input.kind} ${verdict}`);
        const wanted = expected(state, input);
        if (wanted !== 'any' && verdict !== wanted) expect.fail(`${JSON.stringify(input)} in ${JSON.stringify(state)}: ${verdict}, not ${wanted}`);
        if (verdict !== 'accepted' && (taken.state !== state || taken.effects.length > 0)) expect.fail(`changed by ${JSON.stringify(input)}`);
        if (verdict === 'accepted' && input.kind === 'takeover') checkPlaces(state, input, taken);
        if (taken.reply.outcome === 'denied' && taken.reply.denial.message.length < 20) expect.fail(`no sentence: ${taken.reply.denial.message}`);
        if (taken.state === undefined || !small(taken.state)) continue;
        const key = keyOf(taken.state);
        if (!seen.has(key)) seen.set(key, taken.state);
      }
    }
    expect([...phases].sort()).toEqual(['draining', 'idle', 'protected']);
    expect(verdicts.size).toBeGreaterThan(50);
    console.log(`core table: ${seen.size} states, ${steps} steps, ${verdicts.size} kinds of answer`);
  }, 600_000);

  test('a group that is not there knows nothing but apply', () => {
    const state = accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) });
    for (const input of inputs(state)) {
      const wanted = input.kind === 'apply' ? 'accepted' : input.kind === 'released' || input.kind === 'drained' ? 'ignored' : 'no_such_group';
      expect(verdictOf(step(undefined, input))).toBe(wanted);
    }
  });
});

describe('bounds', () => {
  const begun = accept(accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) }), { kind: 'protect' });
  const g = begun.generation;

  test(`the cut that would put ${EPOCHS_IN_FLIGHT_MAX + 1} epochs in flight is denied until some are released`, () => {
    let state = begun;
    const last = EPOCHS_IN_FLIGHT_MAX - 1;
    for (let e = 1; e <= last; e += 1) state = accept(state, { kind: 'cut', generation: g, epoch: epoch(e) });
    const over: Input = { kind: 'cut', generation: g, epoch: epoch(last + 1) };
    expect(verdictOf(step(state, over))).toBe('too_many_epochs');
    state = accept(state, { kind: 'commit', generation: g, epoch: epoch(1) });
    expect(verdictOf(step(state, over))).toBe('too_many_epochs');
    state = accept(state, { kind: 'released', colour: colour(state.colourBase + 1) });
    expect(verdictOf(step(state, over))).toBe('accepted');
  });

  test(`a member may lead by ${MEMBER_LEAD_MAX}, not by more`, () => {
    let state = begun;
    for (let e = 1; e <= MEMBER_LEAD_MAX; e += 1) state = accept(state, { kind: 'cut', generation: g, epoch: epoch(e), member: 'a' });
    const over: Input = { kind: 'cut', generation: g, epoch: epoch(MEMBER_LEAD_MAX + 1), member: 'a' };
    expect(verdictOf(step(state, over))).toBe('too_many_epochs');
    state = accept(state, { kind: 'cut', generation: g, epoch: epoch(1), member: 'b' });
    expect(verdictOf(step(state, over))).toBe('accepted');
  });

  test('rollbacks without end are denied before the stamps could be ambiguous', () => {
    let state = begun;
    let rollbacks = 0;
    for (; rollbacks < 2 * COLOURS_IN_FLIGHT_MAX; rollbacks += 1) {
      const taken = step(state, { kind: 'rollback', generation: g, epoch: epoch(0) });
      if (taken.reply.outcome === 'denied' || taken.state === undefined) break;
      state = taken.state;
    }
    expect(rollbacks).toBeGreaterThan(1000);
    expect(rollbacks).toBeLessThan(COLOURS_IN_FLIGHT_MAX);
    state = accept(state, { kind: 'released', colour: colour(state.colourBase) });
    expect(verdictOf(step(state, { kind: 'rollback', generation: g, epoch: epoch(0) }))).toBe('accepted');
  });

  test('colours wrap at 2^32 and epochs may begin anywhere', () => {
    const high = { ...begun, phase: 'idle' as const, colourBase: colour(2 ** 32 - 3), colourNewest: colour(2 ** 32 - 2), colourReleased: colour(2 ** 32 - 3) };
    let state = accept(high, { kind: 'takeover', generation: generation(9), epoch: epoch(2 ** 40) });
    for (let e = 1; e <= 5; e += 1) state = accept(state, { kind: 'cut', generation: generation(9), epoch: epoch(2 ** 40 + e) });
    expect(state.colourNewest).toBe(4);
    state = accept(state, { kind: 'commit', generation: generation(9), epoch: epoch(2 ** 40 + 4) });
    state = accept(state, { kind: 'released', colour: colour(state.colourBase + 2 ** 40 + 4) });
    expect(state.released).toBe(2 ** 40 + 4);
  });
});

describe('facts and rollbacks', () => {
  test('a fact of before the rollback is read as it was meant', () => {
    let state = accept(accept(undefined, { kind: 'apply', spec: specOf(['a']) }), { kind: 'protect' });
    const g = state.generation;
    for (let e = 1; e <= 9; e += 1) state = accept(state, { kind: 'cut', generation: g, epoch: epoch(e) });
    state = accept(state, { kind: 'commit', generation: g, epoch: epoch(4) });
    const old = state.colourBase;
    state = accept(state, { kind: 'rollback', generation: g, epoch: epoch(6) });
    const read = (c: number) => step(state, { kind: 'released', colour: colour(c) }).state?.released;
    expect([3, 6, 8].map((e) => read(old + e))).toEqual([3, 6, 6]);
    expect(read(state.colourBase + 6)).toBe(6);
    expect(read(state.colourBase + 7)).toBe(6);
    expect(step(state, { kind: 'released', colour: colour(state.colourNewest + 1) }).reply.outcome).toBe('ignored');
  });

  test('after a rollback to R, or a takeover from R, nobody has cut R', () => {
    const idle = accept(undefined, { kind: 'apply', spec: specOf(['a', 'b']) });
    let state = accept(idle, { kind: 'protect' });
    const g = state.generation;
    const cut = (e: number, member?: string): Verdict => verdictOf(step(state, { kind: 'cut', generation: state.generation, epoch: epoch(e), ...(member === undefined ? {} : { member }) }));
    for (let e = 1; e <= 5; e += 1) state = accept(state, { kind: 'cut', generation: g, epoch: epoch(e) });
    expect(cut(5)).toBe('ignored');
    state = accept(state, { kind: 'rollback', generation: g, epoch: epoch(3) });
    expect([cut(3), cut(3, 'a'), cut(5)]).toEqual(['epoch_out_of_order', 'epoch_out_of_order', 'epoch_out_of_order']);
    state = accept(state, { kind: 'cut', generation: g, epoch: epoch(4) });
    expect(cut(4)).toBe('ignored');
    state = accept(idle, { kind: 'takeover', generation: generation(7), epoch: epoch(9) });
    expect(cut(9)).toBe('epoch_out_of_order');
    state = accept(state, { kind: 'cut', generation: generation(7), epoch: epoch(10) });
    expect(cut(10)).toBe('ignored');
  });

  test('a takeover moves the same members to other ports, before anything is restored', () => {
    const spec = specOf(['a', 'b']);
    const moved = spec.members.map((member) => ({ ...member, nics: member.nics.map((nic) => ({ ...nic, port: `${nic.port}x` })) }));
    let state = accept(accept(undefined, { kind: 'apply', spec }), { kind: 'protect' });
    state = accept(state, { kind: 'cut', generation: state.generation, epoch: epoch(1) });
    const takeover = { kind: 'takeover', generation: generation(state.generation + 1), epoch: epoch(1) } as const;
    const taken = step(state, { ...takeover, members: [...moved].reverse() });
    expect(taken.state?.spec.members).toEqual(moved);
    expect(taken.effects.map(({ kind }) => kind).filter((kind) => kind !== 'emit')).toEqual(['persist', 'reattach', 'restore', 'announce']);
    expect(step(state, takeover).effects.some(({ kind }) => kind === 'reattach')).toBe(false);
    const after = taken.state;
    expect([moved, spec.members].map((members) => verdictOf(step(after, { ...takeover, members })))).toEqual(['ignored', 'fenced']);
    const others = [moved.slice(1), [...moved, ...specOf(['c']).members], moved.map((member) => ({ ...member, nics: member.nics.map((nic) => ({ ...nic, mac: '02:00:00:00:99:99' })) }))];
    for (const members of others) expect(verdictOf(step(state, { ...takeover, members }))).toBe('bad_request');
    const idle = accept(undefined, { kind: 'apply', spec });
    expect(step(idle, { ...takeover, members: moved }).state?.spec.members).toEqual(moved);
  });

  test('addresses are announced and decide nothing: they change under protection, and who moves without naming them keeps them', () => {
    const bare = specOf(['a', 'b']);
    const at = (address: string): GroupSpec => ({ ...bare, members: bare.members.map((one) => ({ ...one, nics: one.nics.map((nic) => ({ ...nic, addresses: [address] })) })) });
    let state = accept(accept(undefined, { kind: 'apply', spec: at('10.0.0.1') }), { kind: 'protect' });
    expect(verdictOf(step(state, { kind: 'apply', spec: at('10.0.0.1') }))).toBe('ignored');
    const applied = step(state, { kind: 'apply', spec: at('10.0.0.2') });
    expect(applied.state?.spec).toEqual(at('10.0.0.2'));
    expect([applied.state?.members, applied.effects.map(({ kind }) => kind)]).toEqual([state.members, ['persist', 'reattach']]);
    const [first] = at('10.0.0.3').members;
    if (first === undefined) throw new Error('no member');
    const joined = accept(state, { kind: 'join', member: first });
    expect(joined.members).toEqual(state.members);
    expect(joined.spec.members.map(({ nics }) => nics[0]?.addresses?.[0])).toEqual(['10.0.0.3', '10.0.0.1']);
    expect(verdictOf(step(joined, { kind: 'join', member: first }))).toBe('ignored');
    state = accept(state, { kind: 'takeover', generation: generation(9), epoch: epoch(0), members: bare.members });
    expect(state.spec).toEqual(at('10.0.0.1'));
  });
});
