import { beforeEach, describe, expect, test } from 'vitest';
import { COMMANDS_MAX } from '../../proxy/control/group.ts';
import { Mailbox, MailboxFull } from '../../proxy/control/mailbox.ts';
import { colour, epoch, generation } from '../../proxy/core/types.ts';
import type { Effect, Head } from '../../proxy/core/types.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { specFor } from '../sim/hosts-world.ts';
import { Ports } from './control-ports.ts';
import { specOf } from './core-world.ts';

const g = generation(1);
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
let ports: Ports;
beforeEach(async () => {
  ports = new Ports();
  await ports.ask({ kind: 'apply', spec: specOf(['a', 'b']) });
});

describe('the order of effects', () => {
  test('protect: journal, kernel, its bound, ring, then what waits at the receivers', async () => {
    await ports.ask({ kind: 'protect' });
    expect(ports.calls).toEqual(['append synced', 'attach 2', 'commit 1', 'open', 'receiver 1 2', 'receiver 2 2', 'emit protected']);
  });

  test('cut, commit, rollback, leave, unprotect', async () => {
    await ports.ask({ kind: 'protect' });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) });
    expect(ports.calls).toEqual(['append', 'advance 3', 'colour 3', 'receiver 1+2 3', 'emit cut']);
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(2), member: 'b' });
    expect(ports.calls).toEqual(['append', 'advance 4', 'member b 4', 'receiver 2 4', 'emit cut']);
    await ports.ask({ kind: 'commit', generation: g, epoch: epoch(1) });
    expect(ports.calls).toEqual(['append synced', 'commit 2', 'release 2', 'emit committed']);
    await ports.ask({ kind: 'rollback', generation: g, epoch: epoch(1) });
    expect(ports.calls).toEqual(['append synced', 'colour 5', 'commit 2', 'restore 2 5', 'emit rolled-back']);
    await ports.ask({ kind: 'leave', member: 'b', held: 'release' });
    expect(ports.calls).toEqual(['append synced', 'draining b', 'drain 2 release', 'reattach', 'drain 2 discard', 'emit left']);
    await ports.ask({ kind: 'unprotect', generation: g, held: 'release' });
    await turn();
    expect(ports.calls).toEqual(['append synced', 'draining all', 'drain all release', 'append synced', 'close', 'detach', 'emit unprotected']);
    expect(ports.state().phase).toBe('idle');
  });

  test("a member's own cell follows the group's before it could count as ahead", async () => {
    await ports.ask({ kind: 'protect' });
    const state = ports.state();
    const { executor, calls } = ports.executor();
    const cutAt = async (n: number): Promise<readonly string[]> => {
      const far = { ...state, colourBase: colour(n - 1), colourNewest: colour(n) };
      calls.length = 0;
      const effects: readonly Effect[] = [{ kind: 'cutGroup', colour: colour(n), epoch: epoch(1) }];
      await executor.perform(far, { state: far, effects, reply: { outcome: 'accepted' }, onFailure: 'forward' });
      return calls.filter((call) => call.startsWith('member'));
    };
    await executor.perform(state, { state, effects: [{ kind: 'attach', colour: colour(2), epoch: epoch(1) }], reply: { outcome: 'accepted' }, onFailure: 'back' });
    expect(await cutAt(2 ** 20)).toEqual([]);
    expect(await cutAt(2 ** 20 + 2)).toEqual(['member a 1048578', 'member b 1048578']);
    expect(await cutAt(2 ** 20 + 3)).toEqual([]);
    expect(await cutAt(2 ** 21 + 9)).toHaveLength(2);
  });
});

test('an announcement is said again while the group is where it was said to be', async () => {
  const taken = async (n: number, from = 1): Promise<boolean> => {
    expect(await ports.ask({ kind: 'takeover', generation: generation(n), epoch: epoch(from) })).toBe('accepted');
    return ports.isStill();
  };
  expect(await taken(3, 0)).toBe(true);
  await ports.ask({ kind: 'cut', generation: generation(3), epoch: epoch(1) });
  await ports.ask({ kind: 'commit', generation: generation(3), epoch: epoch(1) });
  expect(ports.isStill()).toBe(true);
  const before = ports.isStill;
  expect(await taken(4)).toBe(true);
  expect(before(), 'taken over since').toBe(false);
  await ports.ask({ kind: 'leave', member: 'b', held: 'discard' });
  expect(ports.isStill(), 'a member may be elsewhere').toBe(false);
  expect(await taken(5)).toBe(true);
  await ports.ask({ kind: 'unprotect', generation: generation(5), held: 'discard' });
  expect(ports.isStill(), 'no longer protected').toBe(false);
});

describe('what fails', () => {
  test('the journal: nothing is done, the state stays', async () => {
    await ports.ask({ kind: 'protect' });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) });
    const before = ports.state();
    ports.failing = 'append';
    await expect(ports.ask({ kind: 'commit', generation: g, epoch: epoch(1) })).rejects.toMatchObject({ code: 'journal_failed' });
    expect(ports.calls).toEqual(['append synced']);
    expect(ports.state()).toBe(before);
    ports.failing = undefined;
    expect(await ports.ask({ kind: 'commit', generation: g, epoch: epoch(1) })).toBe('accepted');
  });

  test('attach: as if never asked, in the journal too', async () => {
    ports.failing = 'open';
    await expect(ports.ask({ kind: 'protect' })).rejects.toMatchObject({ code: 'plane_down' });
    expect(ports.calls.slice(-3)).toEqual(['close', 'detach', 'append synced']);
    expect(ports.state().phase).toBe('idle');
    expect(ports.disk.get('web')?.state.phase).toBe('idle');
    ports.failing = undefined;
    await ports.ask({ kind: 'protect' });
    expect(ports.calls).toContain('attach 3'); // the colour of the first try stays used
  });

  test.each(['attach', 'append'])('%s, of what the ledger decided: said while it lasts, and tried again', async (what) => {
    const head: Head = {
      serial: 1, phase: 'protected', generation: g, begun: 'protect', from: generation(0), start: epoch(0), held: 'discard', spec: { ...specFor(['h1', 'h2']), group: 'far' },
    };
    await ports.control.start([]);
    ports.failing = what;
    ports.view('far', { head, revision: 1, acks: {} });
    for (let turns = 0; turns < 2; turns += 1) await turn();
    expect(ports.control.behind()).toEqual([expect.stringMatching(RegExp(`^group far is not as its ledger says.*${what} .+ failed; mend it$`))]);
    expect(ports.control.get('far')?.phase).not.toBe('protected');
    ports.view('far', { head: undefined, revision: 0, acks: {} }); // by somebody's hand
    ports.failing = undefined;
    for (const run of ports.timers.splice(0)) run();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    expect(ports.control.behind()).toEqual([]);
    expect(ports.state('far').phase).toBe('protected');
  });

  test('a view that came while the end of a protection was owed is heard when it is done', async () => {
    const spec = { ...specFor(['h1', 'h2']), group: 'far' };
    const first: Head = { serial: 1, phase: 'protected', generation: g, begun: 'protect', from: generation(0), start: epoch(0), held: 'discard', spec };
    const turns = async (): Promise<void> => { for (let i = 0; i < 10; i += 1) await turn(); };
    const view = (head: Head): void => { ports.view('far', { head, revision: head.serial, acks: {} }); };
    await ports.control.start([]);
    view(first);
    await turns();
    ports.failing = 'detach';
    let drained = (): void => undefined;
    ports.holdDrain = new Promise((resolve) => (drained = resolve));
    view({ ...first, serial: 2, phase: 'idle', held: 'release' });
    await turns();
    view({ ...first, serial: 3, generation: generation(2), from: g });
    await turns();
    expect(ports.state('far').phase, 'it is not taken up yet').toBe('draining');
    drained();
    await turns();
    expect([ports.state('far').phase, ports.control.missing()]).toEqual(['idle', ['group far: detach failed']]);
    ports.failing = undefined;
    for (const run of ports.timers.splice(0)) run();
    await turns();
    expect([ports.state('far').phase, ports.state('far').generation, ports.control.missing()]).toEqual(['protected', 2, []]);
  });

  test('restore: it is decided, and done before anything else', async () => {
    await ports.ask({ kind: 'protect' });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) });
    ports.failing = 'restore';
    await expect(ports.ask({ kind: 'rollback', generation: g, epoch: epoch(0) })).rejects.toMatchObject({ code: 'plane_down' });
    expect(ports.control.missing()).toEqual(['group web: restore 1 4 failed']);
    await expect(ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) })).rejects.toMatchObject({ code: 'plane_down' });
    ports.failing = undefined;
    for (const run of ports.timers.splice(0)) run();
    await turn();
    expect(ports.control.missing()).toEqual([]);
    expect(ports.events.at(-1)?.event.type).toBe('rolled-back');
  });

  test('a lost hold pair: nothing is accepted until the ring is open again, in the colour that is open', async () => {
    await ports.ask({ kind: 'protect' });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(2), member: 'b' });
    await ports.ask({ kind: 'commit', generation: g, epoch: epoch(1) });
    ports.failing = 'attach';
    ports.control.holdLost(0);
    await turn();
    expect(ports.control.missing()).toEqual(['group web: attach 3 failed']);
    await expect(ports.ask({ kind: 'cut', generation: g, epoch: epoch(2) })).rejects.toMatchObject({ code: 'plane_down' });
    expect(ports.state().sealed).toBe(1);
    ports.failing = undefined;
    ports.calls.length = 0;
    for (const run of ports.timers.splice(0)) run();
    await turn();
    expect(ports.calls).toEqual(['attach 3', 'commit 2', 'open', 'advance 4', 'receiver 1 3', 'receiver 2 4', 'commit 2', 'release 2']);
    expect(ports.control.missing()).toEqual([]);
    expect(await ports.ask({ kind: 'cut', generation: g, epoch: epoch(2) })).toBe('accepted');
    ports.control.holdLost(7); // nobody
    await ports.ask({ kind: 'unprotect', generation: g, held: 'discard' });
    ports.calls.length = 0;
    ports.control.holdLost(0);
    await turn();
    expect(ports.calls).toEqual([]); // an idle group has no ring
  });

  test('a pair that is lost while the daemon starts is opened after the start, not beside it', async () => {
    await ports.ask({ kind: 'protect' });
    const next = new Ports();
    let opened: () => void = () => undefined;
    next.holdOpen = new Promise((resolve) => (opened = resolve));
    const started = next.control.start([...ports.disk.values()]);
    await turn();
    next.control.holdLost(0);
    next.fact({ kind: 'released', id: 0, colour: colour(0) });
    await turn();
    const opens = () => next.calls.flatMap((call) => /^(attach|open)/.exec(call)?.[0] ?? []);
    expect(opens()).toEqual(['attach', 'open']);
    opened();
    expect(await started).toEqual([]);
    await turn();
    expect(opens()).toEqual(['attach', 'open', 'attach', 'open']);
    expect(next.control.missing()).toEqual([]);
  });

  test('a restart that cannot attach yet goes on trying, and protects', async () => {
    await ports.ask({ kind: 'protect' });
    const next = new Ports();
    next.failing = 'attach';
    const failed = await next.control.start([...ports.disk.values()]);
    expect(failed.map(({ group }) => group)).toEqual(['web']);
    expect(next.state().phase).toBe('protected');
    next.failing = undefined;
    expect(await next.ask({ kind: 'cut', generation: g, epoch: epoch(1) })).toBe('accepted');
    expect(next.calls[0]).toMatch(/^attach/);
  });
});

describe('who waits', () => {
  test('one at a time, in order; the queue has a bound; closing answers everyone', async () => {
    let open: () => void = () => undefined;
    ports.hold = new Promise((resolve) => (open = resolve));
    const first = ports.control.submit('web', { kind: 'protect' });
    const others = Array.from({ length: COMMANDS_MAX }, () => ports.control.submit('web', { kind: 'delete' }));
    const settled = Promise.allSettled(others);
    const { reply } = await ports.control.submit('web', { kind: 'delete' });
    expect(reply).toMatchObject({ denial: { code: 'busy' } });
    const closed = ports.control.close();
    open();
    await closed;
    expect((await first).reply.outcome).toBe('accepted');
    const reasons = (await settled).map((one) => (one.status === 'rejected' && one.reason instanceof EdgeError ? one.reason.code : one.status));
    expect(new Set(reasons)).toEqual(new Set(['plane_down']));
    await expect(ports.control.submit('web', { kind: 'protect' })).rejects.toMatchObject({ code: 'plane_down' });
  });

  test('of a group across hosts, too, and the ledger is not asked for one that would not be carried out', async () => {
    await ports.control.start([]);
    const spec = { ...specFor(['h1', 'h2']), group: 'far' };
    ports.view('far', { head: { serial: 1, phase: 'protected', generation: g, life: 'a1', begun: 'protect', from: generation(0), start: epoch(0), held: 'discard', spec }, revision: 1, acks: {} });
    await turn();
    expect(ports.control.get('far')?.phase).toBe('protected');
    let open: () => void = () => undefined;
    ports.hold = new Promise((resolve) => (open = resolve));
    const waiting = Array.from({ length: COMMANDS_MAX + 1 }, () => ports.control.submit('far', { kind: 'cut', generation: g, epoch: epoch(1) }));
    const { reply } = await ports.control.submit('far', { kind: 'unprotect', generation: g, held: 'discard' });
    expect(reply).toMatchObject({ denial: { code: 'busy' } });
    open();
    const replies = (await Promise.all(waiting)).map(({ reply: { outcome } }) => outcome);
    expect([replies[0], new Set(replies.slice(1))]).toEqual(['accepted', new Set(['ignored'])]);
    await expect(ports.control.submit('far', { kind: 'unprotect', generation: g, held: 'discard' })).rejects.toThrow('not asked');
  });

  test('a served command may send another; facts go first and only the newest of a kind', async () => {
    const log: string[] = [];
    const box: Mailbox<string, string, { kind: string; n: number }> = new Mailbox({
      commandsMax: 2,
      serve: async (command: string) => {
        log.push(`begin ${command}`);
        if (command === 'a') {
          void box.send('b');
          for (const n of [1, 3, 2]) box.tell({ kind: 'fact', n });
        }
        await turn();
        log.push(`end ${command}`);
        return command;
      },
      note: ({ n }: { kind: string; n: number }) => Promise.resolve(void log.push(`fact ${n}`)),
      merge: (a: { kind: string; n: number }, b: { kind: string; n: number }) => (a.n > b.n ? a : b),
      onIdle: () => void log.push('idle'),
      onFault: (fault: unknown) => void log.push(`fault ${String(fault)}`),
      onThrown: () => undefined,
    });
    await box.send('a');
    await turn();
    await turn();
    expect(log).toEqual(['begin a', 'end a', 'fact 3', 'begin b', 'end b', 'idle']);
    const waiting = ['c', 'd', 'e'].map((name) => box.send(name));
    await expect(box.send('f')).rejects.toBeInstanceOf(MailboxFull);
    expect(await Promise.all(waiting)).toEqual(['c', 'd', 'e']);
  });

  test('what takes no time is done before send and tell return, what is sent meanwhile comes after it, and a fault stops nobody else', async () => {
    const log: string[] = [];
    const box: Mailbox<string, string, { kind: string }> = new Mailbox({
      commandsMax: 3,
      serve: (command: string) => {
        log.push(`begin ${command}`);
        if (command === 'bad') throw new Error('it is bad');
        if (command === 'first') box.tell({ kind: 'meanwhile' });
        log.push(`end ${command}`);
        return command;
      },
      note: ({ kind }: { kind: string }) => {
        log.push(kind);
        if (kind === 'broken') throw new Error('broken');
      },
      merge: (_older: { kind: string }, newer: { kind: string }) => newer,
      onIdle: () => void log.push('idle'),
      onFault: (fault: unknown) => void log.push(`fault ${String(fault)}`),
      onThrown: (error: unknown) => void log.push(`thrown ${String(error)}`),
    });
    const first = box.send('first');
    expect(log).toEqual(['begin first', 'end first', 'meanwhile', 'idle']);
    expect(box.idle).toBe(true);
    expect(await first).toBe('first');
    const bad = box.send('bad');
    box.tell({ kind: 'broken' });
    expect(log.slice(4)).toEqual(['begin bad', 'thrown Error: it is bad', 'idle', 'broken', 'fault Error: broken', 'idle']);
    await expect(bad).rejects.toThrow('it is bad');
    expect(await box.send('last')).toBe('last');
    await box.close(new Error('over'));
    await expect(box.send('late')).rejects.toThrow('over');
  });
});

describe('many groups', () => {
  test('a port is of one group, also between two that ask at once', async () => {
    const [one, two] = await Promise.all([
      ports.control.submit('db', { kind: 'apply', spec: specOf(['c'], 'explicit', 'db') }),
      ports.control.submit('mq', { kind: 'apply', spec: specOf(['c'], 'explicit', 'mq') }),
    ]);
    expect(one.reply.outcome).toBe('accepted');
    expect(two.reply).toMatchObject({ denial: { code: 'port_claimed', message: expect.stringContaining('group db') as string } });
    expect(ports.control.list().map(({ spec }) => spec.group)).toEqual(['web', 'db']);
    const nic = { mac: '02:00:00:00:00:01', vlan: 0 }; // group web has it: the gate knows whether on the same bridge
    expect(await ports.ask({ kind: 'join', member: { name: 'x', nics: [{ ...nic, port: 'tapa' }] } }, 'db')).toBe('port_claimed');
    expect(await ports.ask({ kind: 'join', member: { name: 'x', nics: [{ ...nic, port: 'tapx' }] } }, 'db')).toBe('accepted');
    expect(await ports.ask({ kind: 'delete' }, 'db')).toBe('accepted');
    await turn();
    expect(await ports.ask({ kind: 'apply', spec: specOf(['c'], 'explicit', 'mq') }, 'mq')).toBe('accepted');
    expect(ports.control.idOf('mq')).toBe(1); // the number of the group that is gone
  });

  test('facts find their group; a dead loop ends it all', async () => {
    await ports.ask({ kind: 'protect' });
    await ports.ask({ kind: 'cut', generation: g, epoch: epoch(1) });
    await ports.ask({ kind: 'commit', generation: g, epoch: epoch(1) });
    ports.fact({ kind: 'released', id: 0, colour: colour(2) });
    ports.fact({ kind: 'output-pending', id: 0, epoch: epoch(2) });
    ports.fact({ kind: 'released', id: 9, colour: colour(2) });
    await turn();
    expect(ports.state().released).toBe(1);
    expect(ports.events.map(({ event }) => event.type)).toEqual(['protected', 'cut', 'committed', 'released', 'output-pending']);
    const reasons: string[] = [];
    ports.control.onFatal((reason) => reasons.push(reason.message));
    ports.fact({ kind: 'dead', reason: 'it broke' });
    expect(reasons).toEqual(['the hold loop ended: it broke']);
    await expect(ports.ask({ kind: 'protect' })).rejects.toMatchObject({ code: 'plane_down' });
  });
});
