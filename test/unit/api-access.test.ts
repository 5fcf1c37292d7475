/** Rights and audit: who may do what, what a refusal gives away, what is written about whom. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { buildApp } from '../../proxy/api/app.ts';
import { Audit } from '../../proxy/api/audit.ts';
import type { AuditEntry } from '../../proxy/api/audit.ts';
import type { App } from '../../proxy/api/commands.ts';
import { parseCredentials } from '../../proxy/credentials.ts';
import { guarded, world } from './memory-control.ts';
import type { World } from './memory-control.ts';

const token = (who: string): string => `${who}-0123456789abcdef`;
const LINES = [
  `root ${token('root')} administer:*`, `web-admin ${token('web-admin')} administer:web`, `web-engine ${token('web-engine')} checkpoint:web`,
  `web-eye ${token('web-eye')} observe:web`, `eye ${token('eye')} observe:*`, `db-admin ${token('db-admin')} administer:db`,
];
const HOLDERS = ['root', 'web-admin', 'web-engine', 'web-eye', 'eye', 'db-admin', 'nobody'] as const;
type Holder = (typeof HOLDERS)[number];
const member = (n: number): object => ({ name: `vm${n}`, port: `tap${n}`, mac: `02:00:00:00:00:0${n}` });

let here: World;
let app: App;
let options: ReturnType<typeof guarded>;
beforeEach(async () => {
  here = world();
  options = guarded(...LINES);
  app = await buildApp(here.deps, options);
  for (const [i, group] of ['web', 'db'].entries()) {
    await ask('root', 'PUT', `/v1/groups/${group}`, { members: [member(2 * i + 1), member(2 * i + 2)] });
    await ask('root', 'POST', `/v1/groups/${group}/protect`, {});
  }
});
afterEach(() => app.close());

interface Answered {
  readonly status: number;
  readonly text: string;
}
async function ask(who: Holder, method: 'GET' | 'PUT' | 'POST' | 'DELETE', url: string, body?: object): Promise<Answered> {
  const headers = who === 'nobody' ? {} : { authorization: `Bearer ${token(who)}` };
  const reply = await app.inject({ method, url, headers, ...(body === undefined ? {} : { payload: body }) });
  return { status: reply.statusCode, text: reply.body };
}

const OBSERVERS: readonly Holder[] = ['root', 'web-admin', 'web-engine', 'web-eye', 'eye'];
const ENGINES: readonly Holder[] = ['root', 'web-admin', 'web-engine'];
const ADMINS: readonly Holder[] = ['root', 'web-admin'];
const EVERYWHERE: readonly Holder[] = ['root', 'eye'];
const KNOWN: readonly Holder[] = HOLDERS.filter((who) => who !== 'nobody');
const epoch1 = { generation: 1, epoch: 1 };
const TABLE: readonly (readonly ['GET' | 'PUT' | 'POST' | 'DELETE', string, object | undefined, readonly Holder[]])[] = [
  ['GET', '/v1/groups', undefined, KNOWN],
  ['GET', '/v1/groups/web', undefined, OBSERVERS],
  ['GET', '/v1/groups/web/held', undefined, OBSERVERS],
  ['GET', '/v1/groups/web/held.pcapng', undefined, ADMINS],
  ['PUT', '/v1/groups/web', { members: [member(1), member(2)] }, ADMINS],
  ['DELETE', '/v1/groups/web', undefined, ADMINS],
  ['PUT', '/v1/groups/web/members/vm5', member(5), ADMINS],
  ['DELETE', '/v1/groups/web/members/vm1?held=discard', undefined, ADMINS],
  ['POST', '/v1/groups/web/protect', {}, ENGINES],
  ['POST', '/v1/groups/web/cut', epoch1, ENGINES],
  ['POST', '/v1/groups/web/ack', epoch1, ENGINES],
  ['POST', '/v1/groups/web/commit', epoch1, ENGINES],
  ['POST', '/v1/commands', { commands: [{ command: 'cut', group: 'web', ...epoch1 }] }, ENGINES],
  ['POST', '/v1/groups/web/rollback', epoch1, ENGINES],
  ['POST', '/v1/groups/web/takeover', { generation: 2, epoch: 0 }, ENGINES],
  ['POST', '/v1/groups/web/takeover', { generation: 2, epoch: 0, members: [{ ...member(1), port: 'tap7' }, member(2)] }, ADMINS],
  ['POST', '/v1/groups/web/unprotect', { generation: 1, held: 'discard' }, ENGINES],
  ['GET', '/healthz', undefined, KNOWN],
  ['GET', '/readyz', undefined, KNOWN],
  ['GET', '/metrics', undefined, EVERYWHERE],
  ['GET', '/openapi.json', undefined, KNOWN],
  ['GET', '/v1/figures', undefined, KNOWN],
];

describe('rights', () => {
  test.each(TABLE)('%s %s', async (method, url, body, allowed) => {
    for (const who of HOLDERS.filter((one) => !allowed.includes(one))) {
      const before = JSON.stringify([...here.control.groups]);
      const { status, text } = await ask(who, method, url, body);
      expect([who, status]).toEqual([who, who === 'nobody' ? 401 : 403]);
      expect(JSON.stringify([...here.control.groups])).toBe(before);
      expect(text).not.toMatch(/tap\d|vm\d/);
      if (!OBSERVERS.includes(who)) expect(text).not.toMatch(/"generation"|"open"/);
    }
    for (const who of allowed) expect([401, 403]).not.toContain((await ask(who, method, url, body)).status);
  });

  test('every route of the schema has a line in this table', async () => {
    const { paths } = JSON.parse((await ask('root', 'GET', '/openapi.json')).text) as { paths: Record<string, Record<string, unknown>> };
    const routes = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`));
    const tested = TABLE.map(([method, url]) => `${method} ${url.split('?')[0]}`.replace('/groups/web', '/groups/{group}').replace(/members\/vm\d/, 'members/{member}'));
    expect(routes.filter((route) => !tested.includes(route) && !['GET /v1/events', 'GET /v1/figures/live'].includes(route))).toEqual([]);
  });

  test('a refusal is the same whether the group is there or not', async () => {
    const one = await ask('web-eye', 'GET', '/v1/groups/db');
    const none = await ask('web-eye', 'GET', '/v1/groups/dx');
    expect(one.text.replaceAll('db', 'dx')).toBe(none.text);
  });

  test('lists and readiness show each what is theirs', async () => {
    const groups = async (who: Holder): Promise<string[]> => (JSON.parse((await ask(who, 'GET', '/v1/groups')).text) as { group: string }[]).map(({ group }) => group);
    expect(await groups('root')).toEqual(['web', 'db']);
    expect(await groups('db-admin')).toEqual(['db']);
    expect((JSON.parse((await ask('db-admin', 'GET', '/v1/figures')).text) as { groups: { group: string }[] }).groups.map(({ group }) => group)).toEqual(['db']);
    expect(await ask('db-admin', 'GET', '/v1/figures?group=web')).toMatchObject({ status: 403 });
    here.missing = ['port tap1 of group web is gone'];
    expect((await ask('eye', 'GET', '/readyz')).text).toContain('tap1');
    expect((await ask('db-admin', 'GET', '/readyz')).text).toBe('{"ready":false,"missing":[]}');
  });

  test('no route, no news', async () => {
    expect(await ask('web-eye', 'GET', '/v1/secrets')).toMatchObject({ status: 404 });
    expect(await ask('nobody', 'GET', '/v1/secrets')).toMatchObject({ status: 401 });
  });

  test('tokens read again: the old ones are nobody\'s', async () => {
    expect((await ask('web-eye', 'GET', '/v1/groups/web')).status).toBe(200);
    options.access.replace(parseCredentials('tokens', `web-eye ${token('another')} observe:web`));
    expect((await ask('web-eye', 'GET', '/v1/groups/web')).status).toBe(401);
  });
});

describe('a web page', () => {
  test('gives no command, whatever the browser proves: its requests say that they come from a page', async () => {
    const headers = { authorization: `Bearer ${token('root')}`, origin: 'https://elsewhere.example' };
    for (const url of ['/v1/groups/web/protect', '/v1/groups/web/unprotect']) {
      expect((await app.inject({ method: 'POST', url, headers })).json(), url).toMatchObject({ code: 'forbidden' });
    }
    expect((await app.inject({ method: 'GET', url: '/v1/groups', headers })).statusCode).toBe(200);
  });
});

describe('audit', () => {
  test('who, what, outcome; no secret and no body', async () => {
    here.audited.length = 0;
    await ask('web-engine', 'POST', '/v1/groups/web/cut?token=hidden', epoch1);
    await ask('web-engine', 'POST', '/v1/groups/web/cut', epoch1);
    await ask('web-engine', 'POST', '/v1/groups/web/commit', { generation: 1, epoch: 9 });
    await ask('web-engine', 'PUT', '/v1/groups/web', { members: [member(1)] });
    await ask('nobody', 'DELETE', '/v1/groups/web');
    await ask('web-admin', 'GET', '/v1/groups/web/held.pcapng');
    await ask('eye', 'GET', '/v1/groups/web');
    expect(here.audited).toEqual([
      expect.objectContaining({ who: 'web-engine', from: '127.0.0.1', command: 'POST /v1/groups/:group/cut', group: 'web', outcome: 'bad_request' }),
      expect.objectContaining({ who: 'web-engine', outcome: 'accepted', generation: 1, epoch: 1 }),
      expect.objectContaining({ command: 'POST /v1/groups/:group/commit', epoch: 9, outcome: 'epoch_out_of_order' }),
      expect.objectContaining({ command: 'PUT /v1/groups/:group', outcome: 'forbidden' }),
      { who: 'nobody', from: '127.0.0.1', command: 'DELETE /v1/groups/:group', outcome: 'unauthorized' },
      expect.objectContaining({ who: 'web-admin', command: 'GET /v1/groups/:group/held.pcapng', outcome: 'sent' }),
    ]);
    expect(JSON.stringify(here.audited)).not.toMatch(/0123456789abcdef|hidden/);
  });

  test('a flood is a few lines, and none is lost from the count', () => {
    const written: AuditEntry[] = [];
    const audit = new Audit((entry) => written.push(entry));
    for (let i = 0; i < 100_000; i++) audit.record({ who: 'nobody', from: '10.0.0.1', command: 'POST /v1/groups/:group/cut', outcome: 'unauthorized' });
    for (let i = 1; i <= 600; i++) audit.record({ who: 'e', command: 'POST /v1/groups/:group/cut', group: 'web', epoch: i, outcome: 'accepted' });
    audit.close();
    expect(written.length).toBe(4);
    expect(written.map(({ who, epoch, times = 1 }) => [who, epoch, times])).toEqual([['nobody', undefined, 1], ['e', 1, 1], ['nobody', undefined, 99_999], ['e', 600, 599]]);
  });

  test('names that differ each time are no way to fill the disk, nor is a command that changes nothing', () => {
    const written: AuditEntry[] = [];
    const audit = new Audit((entry) => written.push(entry));
    for (let i = 0; i < 50_000; i++) audit.record({ who: 'x', command: 'POST /v1/groups/:group/cut', group: `g${i}`, outcome: 'forbidden' });
    for (let i = 0; i < 50_000; i++) audit.record({ who: 'y', command: 'POST /v1/groups/:group/protect', group: 'web', outcome: 'ignored' });
    audit.record({ who: 'z', command: 'POST /v1/groups/:group/cut', group: 'web', outcome: 'accepted' });
    expect(written.at(-1)).toMatchObject({ who: 'z', outcome: 'accepted' }); // what was done is never among the others
    audit.close();
    expect(written.length).toBeLessThan(600);
    expect(written.reduce((sum, { times = 1 }) => sum + times, 0)).toBe(100_001);
  });

  test('what is counted is written when the period is over', () => {
    vi.useFakeTimers();
    const written: AuditEntry[] = [];
    const audit = new Audit((entry) => written.push(entry));
    for (let i = 0; i < 3; i++) audit.record({ who: 'nobody', command: '-', outcome: 'unauthorized' });
    vi.advanceTimersByTime(10_000);
    vi.useRealTimers();
    audit.close();
    expect(written.map(({ times = 1 }) => times)).toEqual([1, 2]);
  });
});
