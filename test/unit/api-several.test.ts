/** Several commands in one request: each judged and answered as if it had come alone, and what is refused whole has done nothing. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildApp } from '../../proxy/api/app.ts';
import type { App } from '../../proxy/api/commands.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { guarded, OPEN, world } from './memory-control.ts';
import type { World } from './memory-control.ts';

const member = (n: number): object => ({ name: `vm${n}`, port: `tap${n}`, mac: `02:00:00:00:00:0${n}` });
const GROUPS = ['web', 'db'];
const token = (who: string): string => `${who}-0123456789abcdef`;

let here: World;
let app: App;
beforeEach(() => start(OPEN));
afterEach(() => app.close());

async function start(options: Parameters<typeof buildApp>[1]): Promise<void> {
  here = world();
  app = await buildApp(here.deps, OPEN);
  for (const [i, group] of GROUPS.entries()) {
    await ask('PUT', `/v1/groups/${group}`, { members: [member(2 * i + 1), member(2 * i + 2)] });
    await ask('POST', `/v1/groups/${group}/protect`, {});
  }
  if (options === OPEN) return;
  await app.close();
  app = await buildApp(here.deps, options);
}
async function ask(method: 'PUT' | 'POST', url: string, body: object, who?: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const reply = await app.inject({ method, url, payload: body, headers: who === undefined ? {} : { authorization: `Bearer ${token(who)}` } });
  return { status: reply.statusCode, body: reply.json() };
}
const several = (commands: readonly object[], who?: string): ReturnType<typeof ask> => ask('POST', '/v1/commands', { commands }, who);
const answersTo = async (commands: readonly object[]): Promise<unknown> => (await several(commands)).body['answers'];
const of = (command: string, group: string, epoch: number, more: object = {}): object => ({ command, group, generation: 1, epoch, ...more });

describe('several commands', () => {
  test('are done in their order, each group\'s for itself, and answered in that order', async () => {
    expect(await answersTo([of('cut', 'web', 1), of('cut', 'db', 1), of('ack', 'web', 1), of('commit', 'web', 1), of('cut', 'web', 2)])).toMatchObject([
      { group: 'web', outcome: 'accepted', open: 2, committed: 0 }, { group: 'db', outcome: 'accepted', open: 2 },
      { group: 'web', acked: 1 }, { group: 'web', committed: 1 }, { group: 'web', open: 3, sealed: 2, committed: 1 },
    ]);
    expect(here.control.get('db')).toMatchObject({ sealed: 1, committed: 0 });
  });

  test('each is answered what it would have been answered alone', async () => {
    const commands = [of('cut', 'web', 1), of('cut', 'web', 1), of('cut', 'web', 7), of('cut', 'db', 1, { member: 'vm3' }), of('ack', 'db', 1, { members: ['vm3'] }), of('commit', 'nobody', 1), of('commit', 'db', 9, { generation: 3 })];
    const together = await answersTo(commands);
    await app.close();
    await start(OPEN);
    const alone = [];
    for (const command of commands as readonly { command: string; group: string }[]) {
      const { command: verb, group, ...body } = command;
      alone.push((await ask('POST', `/v1/groups/${group}/${verb}`, body)).body);
    }
    expect(together).toEqual(alone);
    expect(together).toMatchObject([{ outcome: 'accepted' }, { outcome: 'ignored' }, { code: 'epoch_out_of_order', open: 2 }, { outcome: 'accepted' }, { outcome: 'accepted' }, { code: 'no_such_group' }, { code: 'fenced' }]);
  });

  test('a journal that fails refuses each', async () => {
    here.control.failure = new EdgeError('journal_failed', 'the disk is full', 'make room');
    expect(await answersTo([of('cut', 'web', 1), of('cut', 'db', 1)])).toMatchObject([{ code: 'journal_failed', group: 'web' }, { code: 'journal_failed', group: 'db' }]);
  });

  test('each is in the audit log as if it had come alone, and counted by the metrics', async () => {
    here.audited.length = 0;
    await several([of('cut', 'web', 1), of('cut', 'db', 1), of('commit', 'web', 5)]);
    expect(here.audited).toMatchObject([
      { who: 'the test', command: 'POST /v1/groups/:group/cut', group: 'web', generation: 1, epoch: 1, outcome: 'accepted' },
      { command: 'POST /v1/groups/:group/cut', group: 'db', outcome: 'accepted' },
      { command: 'POST /v1/groups/:group/commit', group: 'web', epoch: 5, outcome: 'epoch_out_of_order' },
    ]);
    const metrics = (await app.inject('/metrics')).body;
    expect(metrics).toContain('sluice_command_seconds_count{command="cut"} 2');
    expect(metrics).toContain('sluice_refusals_total{code="epoch_out_of_order"} 1');
  });
});

describe('refused as a whole, and nothing is done', () => {
  const good = of('cut', 'web', 1);
  test.each<[string, unknown, RegExp]>([
    ['no list', { command: 'cut' }, /unknown field "command"; allowed here: commands/],
    ['an empty one', { commands: [] }, /has 0 entries; expected a list of 1 to 512 commands/],
    ['too many', { commands: Array.from({ length: 513 }, () => good) }, /has 513 entries/],
    ['another command', { commands: [good, of('protect', 'web', 1)] }, /commands\[1\]\.command: "protect" is not right; expected "cut", "ack" or "commit"/],
    ['no epoch', { commands: [good, { command: 'cut', group: 'db', generation: 1 }] }, /commands\[1\]: field "epoch" is missing/],
    ['members of a cut', { commands: [good, of('cut', 'db', 1, { members: ['vm3'] })] }, /group db: only an ack is of "members"; write member: "…"/],
    ['a member of an ack', { commands: [good, of('ack', 'db', 1, { member: 'vm3' })] }, /group db: only a cut is of one "member"; write members: \["…"\]/],
    ['a member of a commit', { commands: [good, of('commit', 'db', 1, { member: 'vm3' })] }, /only a cut is of one "member"/],
  ])('%s', async (_name, body, message) => {
    const { status, body: refusal } = await ask('POST', '/v1/commands', body as object);
    expect([status, refusal['code']]).toEqual([400, 'bad_request']);
    expect(refusal['message']).toMatch(message);
    expect(here.control.list().map(({ sealed }) => sealed)).toEqual([0, 0]);
  });

  test('a group that the caller has no right on, and it says no word of its state', async () => {
    await app.close();
    await start(guarded(`engine ${token('engine')} checkpoint:web`, `eye ${token('eye')} observe:*`));
    expect((await several([], 'eye')).status).toBe(403); // before its body is looked at
    for (const [who, commands] of [['engine', [good, of('cut', 'db', 1)]], ['engine', [good, of('cut', 'none', 1)]], ['eye', [good]]] as const) {
      const { status, body } = await several(commands, who);
      expect(status).toBe(403);
      expect(Object.keys(body)).toEqual(['code', 'message']);
    }
    expect(here.control.list().map(({ sealed }) => sealed)).toEqual([0, 0]);
    expect((await several([good], 'engine')).body).toMatchObject({ answers: [{ open: 2 }] });
    expect((await several([good])).status).toBe(401);
  });

  test('more in a second than one client may send', async () => {
    await app.close();
    await start({ ...OPEN, commandsPerSecondMax: 2 });
    expect((await several([good, good, good])).body).toMatchObject({ code: 'rate_limited' });
    expect((await several([good, good])).status).toBe(200);
  });
});
