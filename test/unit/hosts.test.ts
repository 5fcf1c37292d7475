import { describe, expect, test } from 'vitest';
import { decideHead as decideBy, progressOf } from '../../proxy/core/hosts.ts';
import type { Decision, HeadCommand } from '../../proxy/core/hosts.ts';
import { isMute } from '../../proxy/core/across.ts';
import { resume } from '../../proxy/core/resume.ts';
import { step } from '../../proxy/core/step.ts';
import { epoch, generation } from '../../proxy/core/types.ts';
import type { Epoch, GroupState, Head, LedgerView } from '../../proxy/core/types.ts';
import { readEpoch, readHead } from '../../proxy/edge/etcd-keys.ts';
import { specFor } from '../sim/hosts-world.ts';

const LIFE = 'a1';
const decideHead = (view: LedgerView, command: HeadCommand, known?: GroupState): Decision => decideBy(view, command, { life: 'a2', known });
const HEAD: Head = { serial: 2, phase: 'protected', generation: generation(1), life: LIFE, begun: 'protect', from: generation(0), start: epoch(0), held: 'discard', spec: specFor(['h1', 'h2', 'h3']) };
const viewOf = (head: Head, acks: readonly [number, number, number]): LedgerView =>
  ({ head, revision: head.serial, acks: Object.fromEntries(acks.map((acked, i) => [`h${i + 1}`, epoch(acked)])) });
const takeover = (of: number, at: number): { kind: 'takeover'; generation: GroupState['generation']; epoch: Epoch } => ({ kind: 'takeover', generation: generation(of), epoch: epoch(at) });

/** What h1 makes of it, said again until nothing is left to do. */
function heard(state: GroupState | undefined, view: LedgerView): { state: GroupState | undefined; effects: readonly string[] } {
  const effects: string[] = [];
  for (let times = 0; times < 8; times += 1) {
    const taken = step(state, { kind: 'ledger', self: 'h1', view });
    if (taken.reply.outcome !== 'accepted') return { state, effects };
    state = taken.state;
    effects.push(...taken.effects.map(({ kind }) => kind));
  }
  throw new Error('a view is never at an end');
}

describe('a host whose journal is lost, and which had acked in this generation', () => {
  const view = viewOf(HEAD, [7, 7, 9]);
  const lost = heard(undefined, view);

  test('holds, releases nothing, takes no cut, also after it starts again', () => {
    expect(lost.state).toMatchObject({ phase: 'fenced', committed: 0, acked: 0 });
    expect(lost.effects).toContain('attach');
    expect(lost.effects).not.toContain('release');
    if (lost.state === undefined) throw new Error('it has the group');
    const again = heard(resume(lost.state).state, viewOf(HEAD, [7, 8, 9]));
    expect(again).toMatchObject({ state: { phase: 'fenced', committed: 0 }, effects: [] });
    expect(step(again.state, { kind: 'cut', generation: generation(1), epoch: epoch(1) }).reply).toMatchObject({ outcome: 'denied', denial: { code: 'fenced' } });
  });

  test('goes on by a takeover, or gives up by its own unprotect', () => {
    const { swap } = decideHead(view, takeover(2, 7));
    if (swap === undefined) throw new Error('the takeover is refused');
    const told = heard(lost.state, viewOf(swap.head, [7, 7, 7]));
    expect(told.state).toMatchObject({ phase: 'fenced', generation: 1, committed: 0 });
    const opened = step(told.state, takeover(2, 7));
    expect(opened).toMatchObject({ reply: { outcome: 'accepted' }, state: { phase: 'protected', generation: 2, sealed: 7, committed: 7 } });
    const ended = step(lost.state, { kind: 'unprotect', generation: generation(1), held: 'discard' });
    expect(ended.state?.phase).toBe('idle');
    expect(heard(ended.state, view), 'the same head does not bring it back').toMatchObject({ state: { phase: 'idle' }, effects: [] });
  });

  test('one that has not acked yet begins as all do', () => {
    expect(heard(undefined, viewOf(HEAD, [0, 7, 9])).state).toMatchObject({ phase: 'protected', committed: 0 });
  });
});

describe('what all hosts have acked', () => {
  const at = (now: GroupState | undefined, input: Parameters<typeof step>[1]) => step(now, input);
  const began = heard(undefined, viewOf(HEAD, [0, 0, 0])).state;
  const cut = at(began, { kind: 'cut', generation: generation(1), epoch: epoch(1) }).state;
  const acked = at(cut, { kind: 'ack', generation: generation(1), epoch: epoch(1) });
  const committed = at(acked.state, { kind: 'ledger', self: 'h1', view: viewOf(HEAD, [1, 1, 1]) });

  test('is released without a sync of this host: only its own ack is synced first', () => {
    expect(acked.effects.map((effect) => effect.kind === 'persist' ? `persist ${effect.durable}` : effect.kind)).toEqual(['persist true', 'emit', 'publish']);
    expect(committed.effects.map((effect) => effect.kind === 'persist' ? `persist ${effect.durable}` : effect.kind)).toEqual(['persist false', 'release', 'emit']);
  });

  test('is heard again from the ledger where a power cut took this host\'s own line', () => {
    if (acked.state === undefined) throw new Error('it has the group');
    const woken = resume(acked.state).state; // as the last sync left it
    expect(woken).toMatchObject({ acked: 1, committed: 0 });
    expect(heard(woken, viewOf(HEAD, [1, 1, 1]))).toMatchObject({ state: { phase: 'protected', committed: 1 }, effects: ['persist', 'release', 'emit'] });
  });
});

test('a generation that has the same four bits on the wire as the one it replaces is refused', () => {
  const view = viewOf(HEAD, [7, 7, 7]);
  expect(decideHead(view, takeover(17, 7))).toMatchObject({ reply: { denial: { code: 'bad_request' } } });
  expect(decideHead(view, takeover(18, 7)).swap?.head.generation).toBe(18);
  const idle = viewOf({ ...HEAD, phase: 'idle' }, [7, 7, 7]);
  expect(decideHead(idle, { kind: 'protect', generation: generation(33) }).swap).toBeUndefined();
  expect(decideHead(viewOf({ ...HEAD, phase: 'idle', generation: generation(0) }, [0, 0, 0]), { kind: 'protect', generation: generation(16) }).swap?.head.generation).toBe(16);
});

describe('a ledger that was brought back from a backup', () => {
  const known = heard(undefined, viewOf(HEAD, [0, 0, 0])).state;
  if (known === undefined) throw new Error('it has the group');
  const at = (committed: number): GroupState => ({ ...known, committed: epoch(committed) });
  const backup = viewOf(HEAD, [7, 4, 9]);
  /** Generation 2 of the lost line, as h1 was told of it, and of the ledger's line after. */
  const SECOND: Head = { ...HEAD, serial: 4, generation: generation(2), life: 'b2' };
  const AGAIN: Head = { ...SECOND, life: 'c2' };
  const lost = heard(known, viewOf({ ...HEAD, serial: 3, phase: 'idle' }, [0, 0, 0])).state;
  const second = heard(lost, viewOf(SECOND, [0, 0, 0])).state;
  if (second === undefined || lost === undefined) throw new Error('it has the group');

  test('is no ground for a takeover: it knows less than this host', () => {
    const refusal = (view: LedgerView, knows: GroupState | undefined, e = 4): unknown => decideHead(view, takeover(2, e), knows).reply;
    expect(decideHead(backup, takeover(2, 4)).swap?.head.start, 'by the ledger alone it would be').toBe(4);
    expect(refusal(backup, at(5))).toMatchObject({ denial: { code: 'epoch_out_of_order', message: expect.stringMatching(/^epoch 5 is committed here.* the ledger says 4/) as string } });
    expect(refusal(backup, at(4))).toMatchObject({ outcome: 'accepted' });
    const wentOn = viewOf({ ...HEAD, serial: 3, generation: generation(2), life: 'b2', begun: 'takeover', from: generation(1), fromLife: LIFE, start: epoch(5) }, [5, 5, 5]);
    expect(decideHead(wentOn, takeover(3, 5), at(4)).reply, 'it has gone on').toMatchObject({ outcome: 'accepted' });
    expect(refusal(viewOf({ ...HEAD, serial: 1 }, [0, 0, 0]), at(0), 0)).toMatchObject({ denial: { code: 'fenced' } });
    expect(decideHead(viewOf({ ...AGAIN, serial: 9 }, [4, 4, 4]), takeover(3, 4), second).reply, 'the same number, another life').toMatchObject({ denial: { code: 'fenced', message: expect.stringContaining('another life') as string } });
  });

  test('does not give a number again, where the host that is asked knows it', () => {
    const idle = viewOf({ ...HEAD, serial: 2, phase: 'idle' }, [0, 0, 0]);
    expect(decideHead(idle, { kind: 'protect' }, second).swap?.head).toMatchObject({ generation: 3, serial: 5, life: 'a2' });
    expect(decideHead(idle, { kind: 'protect', generation: generation(2) }, second)).toMatchObject({ reply: { denial: { code: 'fenced', message: expect.stringMatching(/told of generation 2, the ledger says 1.*generation above 2/) as string } } });
    expect(decideHead(viewOf(HEAD, [0, 0, 0]), { kind: 'unprotect', generation: generation(1), held: 'discard' }, second).swap?.head.serial, 'newer than what any host here was told').toBe(5);
  });

  test('neither says yes to a protection of another life, nor takes over with a number that its host knows', () => {
    const other = viewOf({ ...AGAIN, serial: 9 }, [4, 4, 4]);
    expect(decideHead(other, { kind: 'protect', generation: generation(2) }, second).reply).toMatchObject({ denial: { code: 'fenced', message: expect.stringContaining('another life') as string } });
    expect(decideHead(viewOf(SECOND, [0, 0, 0]), { kind: 'protect', generation: generation(2) }, second).reply).toMatchObject({ outcome: 'ignored' });
    const older = viewOf({ ...HEAD, serial: 9, life: 'd1' }, [4, 4, 4]);
    expect(decideHead(older, takeover(2, 4), second).reply).toMatchObject({ denial: { code: 'fenced', message: expect.stringMatching(/told of generation 2, the ledger says 1/) as string } });
    expect(decideHead(older, takeover(18, 4), second).reply).toMatchObject({ denial: { code: 'bad_request', message: expect.stringContaining('looks like 2') as string } });
    expect(decideHead(older, takeover(3, 4), second).swap?.head).toMatchObject({ generation: 3, start: 4 });
  });

  test('a fenced host opens no takeover that the ledger has not, and nobody ends another life with release', () => {
    const raised = (life: string): Head => ({ ...SECOND, serial: 5, generation: generation(3), life, begun: 'takeover', from: generation(2), fromLife: 'b2', start: epoch(0) });
    const told = heard(heard(second, viewOf(raised('x3'), [0, 0, 0])).state, viewOf(raised('y3'), [0, 0, 0])).state;
    expect(told?.across?.pending?.life).toBe('y3');
    expect(step(told, takeover(3, 0)).state?.across?.life).toBe('y3');
    const end = (held: 'release' | 'discard', knows: GroupState) => decideHead(viewOf({ ...AGAIN, serial: 9 }, [4, 4, 4]), { kind: 'unprotect', generation: generation(2), held }, knows);
    expect(end('release', second)).toMatchObject({ reply: { denial: { code: 'fenced', message: expect.stringContaining('another life') as string } } });
    expect(end('discard', second).swap?.head).toMatchObject({ phase: 'idle', held: 'discard' });
    if (told === undefined) throw new Error('it has the group');
    const idle = viewOf({ ...HEAD, serial: 2, phase: 'idle' }, [0, 0, 0]);
    expect(decideHead(idle, { kind: 'protect' }, told).swap?.head.generation, 'above what fenced it').toBe(4);
    const left = step(told, { kind: 'unprotect', generation: generation(3), held: 'discard' }).state;
    if (left === undefined) throw new Error('it has the group');
    const later = heard(resume(JSON.parse(JSON.stringify(left)) as GroupState).state, viewOf({ ...HEAD, serial: 9, phase: 'idle' }, [0, 0, 0])).state;
    for (const knows of [left, later]) {
      expect(knows).toMatchObject({ phase: 'idle', generation: 2 });
      expect(decideHead(idle, { kind: 'protect' }, knows).swap?.head.generation, 'also when it has left its fence').toBe(4);
      expect(decideHead(idle, { kind: 'protect', generation: generation(3) }, knows).reply).toMatchObject({ denial: { code: 'fenced', message: expect.stringContaining('told of generation 3') as string } });
    }
  });

  test('where one that knows nothing gives it again: the acks and the R of the new life are not the old one\'s', () => {
    const cut = step(second, { kind: 'cut', generation: generation(2), epoch: epoch(1) }).state;
    const acked = step(cut, { kind: 'ack', generation: generation(2), epoch: epoch(1) });
    expect(acked.effects).toContainEqual({ kind: 'publish', generation: 2, life: 'b2', epoch: 1 });
    const same = heard(acked.state, viewOf(AGAIN, [1, 1, 1]));
    expect(same, 'the serial it knows, another life: one swap was lost').toMatchObject({ state: { phase: 'fenced', committed: 0, across: { mute: true } }, effects: ['persist', 'closeWire', 'emit'] });
    expect(heard(same.state, viewOf(SECOND, [1, 1, 1])).state?.committed, 'whatever is told again').toBe(0);
    const newer = heard(acked.state, viewOf({ ...AGAIN, serial: 6 }, [1, 1, 1]));
    expect(newer).toMatchObject({ state: { phase: 'fenced', committed: 0, generation: 2 }, effects: ['persist', 'closeWire', 'emit'] });
    const third: Head = { ...AGAIN, serial: 7, generation: generation(3), life: 'c3', begun: 'takeover', from: generation(2), fromLife: 'c2', start: epoch(1) };
    expect(heard(acked.state, viewOf(third, [1, 1, 1])), 'a takeover from the other life').toMatchObject({ state: { phase: 'fenced', committed: 0 }, effects: ['persist', 'emit'] });
    expect(heard(acked.state, viewOf({ ...AGAIN, serial: 6, phase: 'idle', held: 'release' }, [1, 1, 1])), 'an end of the other life').toMatchObject({ state: { phase: 'fenced' } });
    if (newer.state === undefined) throw new Error('it has the group');
    expect(resume(newer.state).state, 'also after it starts again').toMatchObject({ phase: 'fenced', across: { pending: { life: 'c2' } } });
    const moved = heard(newer.state, viewOf({ ...third, serial: 8 }, [1, 1, 1])).state;
    if (moved === undefined) throw new Error('it has the group');
    expect([isMute(newer.state), isMute(moved), isMute(resume(moved).state)], 'its frames stay here, also when the ledger has gone on: not every host has').toEqual([true, true, true]);
    const { state: opened } = step(moved, takeover(3, 1));
    expect(opened).toMatchObject({ phase: 'protected', generation: 3 });
    expect(opened?.across, 'open again').toEqual({ self: 'h1', serial: 8, life: 'c3' });
    const over = step(newer.state, { kind: 'unprotect', generation: generation(2), held: 'discard' }).state;
    expect(over?.across).toEqual({ self: 'h1', serial: 6, life: 'b2', line: 'b2' });
    expect(heard(over, viewOf({ ...AGAIN, serial: 6 }, [1, 1, 1])), 'by its own word it ends, and stays ended').toMatchObject({ state: { phase: 'idle' }, effects: [] });
    expect(heard(over, viewOf({ ...AGAIN, serial: 8, generation: generation(3), life: 'c3' }, [0, 0, 0]))).toMatchObject({ state: { phase: 'protected', generation: 3 } });
  });

  test('an idle host that knows more lets none of its members\' frames pass', () => {
    const idle = heard(second, viewOf({ ...SECOND, serial: 5, phase: 'idle' }, [0, 0, 0])).state;
    expect(idle).toMatchObject({ phase: 'idle', generation: 2 });
    for (const head of [{ ...AGAIN, serial: 9 }, { ...HEAD, serial: 6, life: 'd1' }, { ...AGAIN, serial: 9, begun: 'takeover' as const }]) {
      const held = heard(idle, viewOf(head, [0, 0, 0]));
      expect(held, `serial ${head.serial}`).toMatchObject({ state: { phase: 'fenced', generation: 2 }, effects: ['persist', 'attach', 'emit'] });
      expect(step(held.state, takeover(head.generation, 0)).reply).toMatchObject({ outcome: 'denied' });
      const over = step(held.state, { kind: 'unprotect', generation: head.generation, held: 'discard' }).state;
      expect(heard(over, viewOf(head, [0, 0, 0])).state, 'it ends by its own word').toMatchObject({ phase: 'idle' });
    }
    expect(heard(idle, viewOf(AGAIN, [0, 0, 0])), 'an old view, told again, moves nothing').toMatchObject({ state: { phase: 'idle' }, effects: [] });
    expect(heard(idle, viewOf({ ...HEAD, serial: 9, phase: 'idle' }, [0, 0, 0])).state, 'the number never falls').toMatchObject({ phase: 'idle', generation: 2, across: { serial: 9 } });
  });
});

test('an idle host opens a takeover whose R is lower than what it had committed in the protection before', () => {
  const first = heard(heard(undefined, viewOf(HEAD, [0, 0, 0])).state, viewOf(HEAD, [0, 0, 0])).state;
  const cut = step(first, { kind: 'cut', generation: generation(1), epoch: epoch(1) }).state;
  const committed = heard(step(cut, { kind: 'ack', generation: generation(1), epoch: epoch(1) }).state, viewOf(HEAD, [1, 1, 1])).state;
  const idle = heard(committed, viewOf({ ...HEAD, serial: 3, phase: 'idle' }, [1, 1, 1])).state;
  expect(idle).toMatchObject({ phase: 'idle', committed: 1 });
  const raised: Head = { ...HEAD, serial: 5, generation: generation(3), life: 'c3', begun: 'takeover', from: generation(2), fromLife: 'b2', start: epoch(0) };
  const told = heard(idle, viewOf(raised, [0, 0, 0])).state; // it was away while generation 2 was
  expect(step(told, takeover(3, 0))).toMatchObject({ reply: { outcome: 'accepted' }, state: { phase: 'protected', generation: 3, committed: 0 } });
});

test('a host that ended its fence by itself does not open a takeover of its own life below what it had committed', () => {
  const began = heard(undefined, viewOf(HEAD, [0, 0, 0])).state;
  const cut = step(began, { kind: 'cut', generation: generation(1), epoch: epoch(1) }).state;
  const committed = heard(step(cut, { kind: 'ack', generation: generation(1), epoch: epoch(1) }).state, viewOf(HEAD, [1, 1, 1])).state;
  const below: Head = { ...HEAD, serial: 3, generation: generation(2), life: 'b2', begun: 'takeover', from: generation(1), fromLife: LIFE, start: epoch(0) };
  const fenced = heard(committed, viewOf(below, [0, 0, 0])).state; // by a host whose ledger came from a backup
  expect(step(fenced, takeover(2, 0)).reply).toMatchObject({ denial: { code: 'fenced' } });
  const ended = step(fenced, { kind: 'unprotect', generation: generation(1), held: 'discard' }).state;
  const told = heard(ended, viewOf(below, [0, 0, 0])).state;
  const refused = { denial: { code: 'epoch_out_of_order', message: expect.stringMatching(/^epoch 1 is committed here/) as string } };
  expect(step(told, takeover(2, 0)).reply).toMatchObject(refused);
  const onTop = (root: string, life = 'c3'): Head => ({ ...below, serial: 4, generation: generation(3), life: 'c3', line: { root, life }, from: generation(2), fromLife: 'b2' });
  for (const knows of [ended, resume(JSON.parse(JSON.stringify(ended)) as GroupState).state]) {
    const open = (head: Head) => step(heard(knows, viewOf(head, [0, 0, 0])).state, takeover(3, 0)).reply;
    expect(open(onTop(LIFE)), 'nor a second one on top of that').toMatchObject(refused);
    expect(open(onTop('z1')), 'its epochs are counted from another protection').toMatchObject({ outcome: 'accepted' });
    expect(open(onTop(LIFE, 'b2')), 'a line that an older version copied says nothing').toMatchObject({ outcome: 'accepted' });
    const asks = (head: Head) => decideHead(viewOf(head, [0, 0, 0]), takeover(3, 0), knows).reply;
    expect(asks({ ...below, line: { root: LIFE, life: 'b2' } }), 'nor does it ask for one').toMatchObject(refused);
    expect(asks({ ...below, line: { root: 'z1', life: 'b2' } })).toMatchObject({ outcome: 'accepted' });
    expect(asks({ ...below, line: { root: LIFE, life: 'b2' }, phase: 'idle' }), 'of what is not protected').toMatchObject({ denial: { code: 'not_protected' } });
  }
});

test('takeovers carry the line of their protection on, and a protection begins one', () => {
  const first = decideHead(viewOf(HEAD, [7, 7, 9]), takeover(2, 7)).swap?.head;
  if (first === undefined) throw new Error('the takeover is refused');
  expect(first).toMatchObject({ life: 'a2', line: { root: LIFE, life: 'a2' } });
  expect(readHead(JSON.stringify(first))).toEqual(first);
  expect(decideHead(viewOf(first, [7, 7, 9]), takeover(3, 7)).swap?.head).toMatchObject({ line: { root: LIFE, life: 'a2' }, fromLife: 'a2' });
  const again = decideHead(viewOf({ ...first, phase: 'idle' }, [7, 7, 9]), { kind: 'protect' }).swap?.head;
  expect(again).toMatchObject({ begun: 'protect', life: 'a2', line: undefined });
  if (again === undefined) throw new Error('the protection is refused');
  expect(decideHead(viewOf(again, [0, 0, 0]), takeover(4, 0)).swap?.head.line?.root, 'its own').toBe('a2');
});

test('what a version without lives began goes on as it was, and ends in a generation that has one', () => {
  const { life, ...older } = HEAD;
  expect(life).toBe(LIFE);
  const began = heard(undefined, viewOf(older, [0, 0, 0])).state;
  const cut = step(began, { kind: 'cut', generation: generation(1), epoch: epoch(1) }).state;
  const acked = step(cut, { kind: 'ack', generation: generation(1), epoch: epoch(1) });
  expect(acked.effects).toContainEqual({ kind: 'publish', generation: 1, life: undefined, epoch: 1 });
  if (acked.state === undefined) throw new Error('it has the group');
  const again = resume(JSON.parse(JSON.stringify(acked.state)) as GroupState).state; // as its journal has it
  const committed = heard(again, viewOf(older, [1, 1, 1]));
  expect(committed).toMatchObject({ state: { phase: 'protected', committed: 1 }, effects: ['persist', 'release', 'emit'] });
  const { swap } = decideHead(viewOf(older, [1, 1, 1]), takeover(2, 1), committed.state);
  if (swap === undefined) throw new Error('the takeover is refused');
  expect(swap.head).toMatchObject({ life: 'a2', from: 1, fromLife: undefined, start: 1 });
  const fenced = heard(again, viewOf(swap.head, [1, 1, 1])); // it had not heard of the commit
  expect(fenced, 'R is one of its own epochs').toMatchObject({ state: { phase: 'fenced', committed: 1 } });
  expect(step(fenced.state, takeover(2, 1)).state).toMatchObject({ phase: 'protected', generation: 2, across: { life: 'a2' } });
});

test('late is who keeps the others waiting', () => {
  expect(progressOf(HEAD, viewOf(HEAD, [5, 4, 7]))).toEqual([{ host: 'h1', acked: 5, late: false }, { host: 'h2', acked: 4, late: true }, { host: 'h3', acked: 7, late: false }]);
  expect(progressOf(HEAD, viewOf(HEAD, [4, 4, 4])).some(({ late }) => late)).toBe(false);
  expect(progressOf(HEAD, { head: HEAD, revision: 2, acks: { h1: epoch(1) } }).map(({ acked, late }) => [acked, late])).toEqual([[1, false], [0, true], [0, true]]);
});

test('what no host wrote into the ledger is not taken for a head or an ack', () => {
  expect(readHead(JSON.stringify(HEAD))).toEqual(HEAD);
  const { wire, ...noWire } = HEAD.spec;
  expect(wire).toBeDefined();
  for (const odd of ['', '{', 'null', '[]', '{}', JSON.stringify({ ...HEAD, start: -1 }), JSON.stringify({ ...HEAD, phase: 'on' }), JSON.stringify({ ...HEAD, spec: { members: {} } }), JSON.stringify({ ...HEAD, spec: noWire })]) {
    expect(readHead(odd), odd).toBeUndefined();
  }
  expect(readHead(JSON.stringify({ ...HEAD, life: '../head' })), 'a life is part of a key').toBeUndefined();
  expect(readEpoch('0000000000000007')).toBe(7);
  for (const odd of ['', '7', '-000000000000007', '00000000000000x7', '9999999999999999']) expect(readEpoch(odd), odd).toBeUndefined();
});
