import { Compile } from 'typebox/compile';
import { Value } from 'typebox/value';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { buildApp } from '../../proxy/api/app.ts';
import type { App } from '../../proxy/api/commands.ts';
import { CommandReply, ERROR_STATUS, GroupView, HeldView, Refusal } from '../../proxy/api/contract.ts';
import { epoch } from '../../proxy/core/types.ts';
import { EdgeError } from '../../proxy/ports.ts';
import { guarded, OPEN, world, ZERO_COUNTERS } from './memory-control.ts';
import type { World } from './memory-control.ts';

const MEMBERS = [{ name: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }, { name: 'store', port: 'tap1', mac: '02:00:00:00:00:02' }];
type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';

let here: World;
let app: App;
beforeEach(async () => {
  here = world();
  app = await buildApp(here.deps, OPEN);
});
afterEach(() => app.close());

async function ask(method: Method, url: string, body?: unknown): Promise<{ status: number; body: Record<string, unknown> }> {
  const answer = await app.inject({ method, url, ...(body === undefined ? {} : { payload: JSON.stringify(body), headers: { 'content-type': 'application/json' } }) });
  const said = answer.json<Record<string, unknown>>();
  const isCommand = method !== 'GET' && url !== '/v1/commands';
  if (url.startsWith('/v1') && (answer.statusCode >= 400 || isCommand)) expectExactly(answer.statusCode >= 400 ? Refusal : CommandReply, said);
  return { status: answer.statusCode, body: said };
}
/** As the contract says it and no field more: nothing between the code that makes an answer and the wire filters it. */
function expectExactly(schema: typeof Refusal | typeof CommandReply | typeof GroupView | typeof HeldView, body: unknown): void {
  expect(Value.Errors(schema, body)).toEqual([]);
  expect(Value.Clean(schema, structuredClone(body))).toEqual(body);
}
const post = (verb: string, body?: unknown): ReturnType<typeof ask> => ask('POST', `/v1/groups/web/${verb}`, body);

async function protectedGroup(commit = 'explicit'): Promise<void> {
  await ask('PUT', '/v1/groups/web', { commit, members: MEMBERS });
  await post('protect');
}

describe('the life of a group', () => {
  test('every command answers with the state, every repeat is ignored', async () => {
    expect(await ask('PUT', '/v1/groups/web', { group: 'web', members: MEMBERS })).toMatchObject({ status: 200, body: { group: 'web', outcome: 'accepted', generation: 0, phase: 'idle' } });
    expect(await post('protect', {})).toMatchObject({ status: 200, body: { outcome: 'accepted', generation: 1, open: 1, sealed: 0, committed: 0, released: 0 } });
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { outcome: 'accepted', open: 2, sealed: 1 } });
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { outcome: 'ignored', open: 2 } });
    expect(await post('cut', { generation: 1, epoch: 2, member: 'front' })).toMatchObject({ status: 200, body: { outcome: 'accepted', open: 2 } });
    expect(await post('ack', { generation: 1, epoch: 1, members: ['front'] })).toMatchObject({ status: 200, body: { acked: 0 } });
    expect(await post('ack', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { acked: 1 } });
    expect(await post('commit', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { committed: 1 } });
    expect(await post('rollback', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { open: 2, sealed: 1 } });
    expect(await post('takeover', { generation: 2, epoch: 1 })).toMatchObject({ status: 200, body: { generation: 2 } });
    expect(await post('unprotect', { generation: 2, held: 'discard' })).toMatchObject({ status: 200, body: { phase: 'idle' } });
    expect(await ask('DELETE', '/v1/groups/web')).toMatchObject({ status: 200, body: { group: 'web', outcome: 'accepted' } });
    expect(await ask('GET', '/v1/groups/web')).toMatchObject({ status: 404, body: { code: 'no_such_group' } });
  });

  test('members join and leave', async () => {
    await protectedGroup();
    expect(await ask('PUT', '/v1/groups/web/members/late', { port: 'tap2', mac: '02:00:00:00:00:03' })).toMatchObject({ status: 200, body: { outcome: 'accepted' } });
    expect(await ask('DELETE', '/v1/groups/web/members/late')).toMatchObject({ status: 409, body: { code: 'member_held', group: 'web', generation: 1, open: 1 } });
    expect(await ask('DELETE', '/v1/groups/web/members/late?held=discard')).toMatchObject({ status: 200 });
    expect(here.control.get('web')?.members.map(({ name }) => name)).toEqual(['front', 'store']);
  });

  test('what was held, dropped and its age are in every reply', async () => {
    await protectedGroup();
    here.control.counts.set('web', { ...ZERO_COUNTERS, heldFrames: 12, heldBytes: 18212, oldestMs: 3.1, overflowFrames: 4, discardedFrames: 5 });
    expect((await post('cut', { generation: 1, epoch: 1 })).body).toMatchObject({ held: { frames: 12, bytes: 18212, oldestMs: 3.1 }, dropped: { overflow: 4, discarded: 5 } });
  });

  test('GET shows the group file again, and PUT takes what GET shows', async () => {
    await protectedGroup();
    const { body } = await ask('GET', '/v1/groups/web');
    expectExactly(GroupView, body);
    expect(body['members']).toEqual([{ name: 'front', open: 1, sealed: 0, acked: 0, ready: true }, { name: 'store', open: 1, sealed: 0, acked: 0, ready: true }]);
    expect(await ask('PUT', '/v1/groups/web', body['spec'])).toMatchObject({ status: 200, body: { outcome: 'ignored' } });
    expect((await app.inject('/v1/groups')).json()).toEqual([body]);
  });
});

describe('bad input: a clear error, and nothing changed', () => {
  const web = '/v1/groups/web';
  const table: readonly [string, Method, string, unknown, ErrorRow][] = [
    ['unknown field', 'POST', `${web}/cut`, { generation: 1, epoch: 1, x: 1 }, ['bad_request', /unknown field "x"; allowed here: generation, epoch, member/]],
    ['missing field', 'POST', `${web}/cut`, { generation: 1 }, ['bad_request', /"epoch" is missing/]],
    ['no body', 'POST', `${web}/commit`, undefined, ['bad_request', /"generation" is missing/]],
    ['a list', 'POST', `${web}/commit`, [], ['bad_request', /expected \{ generation, epoch \}/]],
    ['null', 'POST', `${web}/commit`, null, ['bad_request', /expected/]],
    ['text for a number', 'POST', `${web}/ack`, { generation: '1', epoch: 1 }, ['bad_request', /generation: "1"/]],
    ['huge number', 'POST', `${web}/rollback`, { generation: 1, epoch: 1e300 }, ['bad_request', /epoch: /]],
    ['takeover unknown field', 'POST', `${web}/takeover`, { generation: 2, epoch: 0, force: true }, ['bad_request', /force/]],
    ['unprotect says nothing', 'POST', `${web}/unprotect`, { generation: 1 }, ['bad_request', /"held" is missing/]],
    ['unprotect says both', 'POST', `${web}/unprotect`, { generation: 1, held: 'both' }, ['bad_request', /"release" or "discard"/]],
    ['protect field', 'POST', `${web}/protect`, { gen: 2 }, ['bad_request', /unknown field "gen"/]],
    ['group file', 'PUT', web, { members: [] }, ['bad_request', /^members: /]],
    ['other group in file', 'PUT', web, { group: 'db', members: MEMBERS }, ['bad_request', /expected "web"/]],
    ['group name', 'PUT', '/v1/groups/WEB', { members: MEMBERS }, ['bad_request', /group name/]],
    ['member twice', 'PUT', `${web}/members/late`, { port: 'tap0', mac: '02:00:00:00:00:09' }, ['bad_request', /port tap0 is used twice/]],
    ['member field', 'PUT', `${web}/members/late`, { port: 'tap9' }, ['bad_request', /"late" has no "mac"/]],
    ['leave fate', 'DELETE', `${web}/members/front?held=keep`, undefined, ['bad_request', /held: "keep"/]],
    ['unknown query', 'POST', `${web}/commit?wiat=released`, { generation: 1, epoch: 0 }, ['bad_request', /unknown field "wiat"/]],
    ['wait for what', 'POST', `${web}/commit?wait=forever`, { generation: 1, epoch: 0 }, ['bad_request', /wait: "forever"/]],
    ['capture size', 'GET', `${web}/held.pcapng?bytesMax=x`, undefined, ['bad_request', /bytesMax/]],
    ['events group', 'GET', '/v1/events?group=Web', undefined, ['bad_request', /group name/]],
    ['stale generation', 'POST', `${web}/cut`, { generation: 3, epoch: 1 }, ['fenced', /./]],
    ['wrong epoch', 'POST', `${web}/cut`, { generation: 1, epoch: 7 }, ['epoch_out_of_order', /./]],
    ['ahead of sealed', 'POST', `${web}/commit`, { generation: 1, epoch: 7 }, ['epoch_out_of_order', /./]],
    ['old takeover', 'POST', `${web}/takeover`, { generation: 1, epoch: 0 }, ['fenced', /./]],
    ['unknown member', 'POST', `${web}/ack`, { generation: 1, epoch: 0, members: ['nobody'] }, ['no_such_member', /./]],
    ['protected already', 'POST', `${web}/protect`, { generation: 2 }, ['already_protected', /./]],
    ['deleted while protected', 'DELETE', web, undefined, ['already_protected', /./]],
    ['loses a member', 'PUT', web, { members: MEMBERS.slice(1) }, ['member_held', /./]],
    ['no such group', 'POST', '/v1/groups/db/cut', { generation: 1, epoch: 1 }, ['no_such_group', /./]],
    ['not protected', 'POST', '/v1/groups/idle/cut', { generation: 1, epoch: 1 }, ['not_protected', /./]],
    ['no such route', 'GET', '/v2/groups', undefined, ['not_found', /openapi/]],
    ['no such method', 'POST', '/v1/groups', {}, ['not_found', /POST \/v1\/groups/]],
  ];
  type ErrorRow = readonly [keyof typeof ERROR_STATUS, RegExp];

  test.each(table)('%s', async (_name, method, url, body, [code, message]) => {
    await ask('PUT', '/v1/groups/idle', { members: [{ name: 'i', port: 'tap7', mac: '02:00:00:00:00:77' }] });
    await protectedGroup();
    const before = structuredClone(here.control.list());
    const answer = await ask(method, url, body);
    expect(answer.body).toMatchObject({ code });
    expect(answer.status).toBe(ERROR_STATUS[code]);
    expect(answer.body['message']).toMatch(message);
    expect(Compile(Refusal).Check(answer.body)).toBe(true);
    expect(here.control.list()).toEqual(before);
  });

  test('with acks, a commit beyond them', async () => {
    await protectedGroup('acks');
    await post('cut', { generation: 1, epoch: 1 });
    expect(await post('commit', { generation: 1, epoch: 1 })).toMatchObject({ status: 409, body: { code: 'not_acked' } });
  });

  test('not JSON, not the right type, too large', async () => {
    const raw = async (payload: string, type: string): Promise<string> => {
      const answer = await app.inject({ method: 'POST', url: '/v1/groups/web/cut', payload, headers: { 'content-type': type } });
      const { code, message } = answer.json<{ code: string; message: string }>();
      return `${answer.statusCode} ${code}: ${message}`;
    };
    expect(await raw('{"generation":1,', 'application/json')).toMatch(/^400 bad_request: the body is not JSON/);
    expect(await raw('generation=1', 'application/x-www-form-urlencoded')).toMatch(/^415 unsupported_media_type: .*application\/json/);
    expect(await raw('x', 'text/plain')).toMatch(/^415 /);
    expect(await raw(`{"x":"${'y'.repeat(300_000)}"}`, 'application/json')).toMatch(/^413 too_large: /);
  });

  test('deep nesting and a long address are bad input, not a fault', async () => {
    const deep = await app.inject({ method: 'PUT', url: '/v1/groups/web', payload: '['.repeat(100_000) + ']'.repeat(100_000), headers: { 'content-type': 'application/json' } });
    expect(deep.statusCode).toBe(400);
    expect((await app.inject(`/v1/groups/${'a'.repeat(5000)}`)).statusCode).toBeLessThan(500);
    expect((await app.inject('/v1/groups/%ff')).statusCode).toBe(400);
  });
});

describe('what is not the client\'s fault', () => {
  test('a full disk and a dead plane are 503 with the fix, and only the unexpected is 500', async () => {
    await protectedGroup();
    here.control.failure = new EdgeError('journal_failed', 'the journal can\'t be written', 'free some space');
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 503, body: { code: 'journal_failed', message: 'the journal can\'t be written; free some space', open: 1 } });
    here.control.failure = new EdgeError('plane_down', 'port tap0 is missing', 'create it');
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 503, body: { code: 'plane_down' } });
    here.control.failure = new EdgeError('port_claimed', 'MAC 02:00:00:00:00:01 belongs to group db on the same bridge', 'give each nic of a bridge a MAC of its own');
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 409, body: { code: 'port_claimed' } });
    here.control.get = () => undefined;
    here.control.submit = () => Promise.reject(new TypeError('a fault'));
    expect(await post('cut', { generation: 1, epoch: 1 })).toMatchObject({ status: 500, body: { code: 'internal' } });
  });

  test('a flood is refused, not served', async () => {
    const small = await buildApp(here.deps, { ...OPEN, requestsPerSecondMax: 3 });
    const statuses = [];
    for (let i = 0; i < 5; i++) statuses.push((await small.inject('/healthz')).statusCode);
    expect(statuses).toEqual([200, 200, 200, 429, 429]);
    expect((await small.inject('/healthz')).json()).toMatchObject({ code: 'rate_limited' });
    await small.close();
  });

  test('with tokens, only those who carry one', async () => {
    const app = await buildApp(here.deps, guarded('a-long-secret-token'));
    const bare = await app.inject('/v1/groups');
    expect(bare.json()).toMatchObject({ code: 'unauthorized' });
    expect(bare.statusCode).toBe(401);
    const wrong = await app.inject({ url: '/v1/groups', headers: { authorization: 'Bearer wrong' } });
    expect(wrong.statusCode).toBe(401);
    const right = await app.inject({ url: '/v1/groups', headers: { authorization: 'Bearer a-long-secret-token' } });
    expect(right.statusCode).toBe(200);
    await app.close();
  });
});

describe('wait=released', () => {
  beforeEach(async () => {
    await protectedGroup();
    await post('cut', { generation: 1, epoch: 1 });
  });

  test('answers when the frames have left', async () => {
    const waiting = post('commit?wait=released', { generation: 1, epoch: 1 });
    await vi.waitFor(() => expect(here.deps.events.subscribers).toBe(1));
    here.control.released('web');
    expect(await waiting).toMatchObject({ status: 200, body: { outcome: 'accepted', committed: 1, released: 1 } });
    expect(here.deps.events.subscribers).toBe(0);
  });

  test('answers with what is when they can\'t leave any more, or in time', async () => {
    const waiting = post('commit?wait=released', { generation: 1, epoch: 1 });
    await vi.waitFor(() => expect(here.deps.events.subscribers).toBe(1));
    await post('unprotect', { generation: 1, held: 'discard' });
    expect(await waiting).toMatchObject({ status: 200, body: { phase: 'idle' } });
  });

  test('answers after timeoutMs', async () => {
    expect(await post('commit?wait=released&timeoutMs=5', { generation: 1, epoch: 1 })).toMatchObject({ status: 200, body: { committed: 1, released: 0 } });
  });
});

describe('looking', () => {
  test('held: by epoch, and nothing for an idle group', async () => {
    await protectedGroup();
    here.control.heldEpochs = [{ epoch: epoch(1), frames: 2, bytes: 120, oldestMs: 1.23456 }, { epoch: epoch(2), frames: 1, bytes: 60, oldestMs: 0.5 }];
    const { body } = await ask('GET', '/v1/groups/web/held');
    expectExactly(HeldView, body);
    expect(body).toEqual({ group: 'web', generation: 1, frames: 3, bytes: 180, epochs: [{ epoch: 1, frames: 2, bytes: 120, oldestMs: 1.235 }, { epoch: 2, frames: 1, bytes: 60, oldestMs: 0.5 }] });
    expect((await ask('GET', '/v1/groups/db/held')).status).toBe(404);
    expect((await ask('GET', '/v1/groups/db/held.pcapng')).status).toBe(404);
  });

  test('health and readiness', async () => {
    expect(await ask('GET', '/healthz')).toEqual({ status: 200, body: { live: true } });
    expect(await ask('GET', '/readyz')).toEqual({ status: 200, body: { ready: true, missing: [] } });
    here.missing = ['port tap0 is gone'];
    expect(await ask('GET', '/readyz')).toEqual({ status: 503, body: { ready: false, missing: ['port tap0 is gone'] } });
  });

  test('metrics: base units, buckets that add up, and every group', async () => {
    await protectedGroup();
    const holdHistogram = Array.from({ length: 18 }, (_, i) => i);
    here.control.counts.set('web', { ...ZERO_COUNTERS, oldestMs: 2500, holdHistogram, holdSumMs: 1500, wireHistogram: new Array<number>(14).fill(1), wireSumMs: 7 });
    await post('cut', { generation: 3, epoch: 1 });
    const text = (await app.inject('/metrics')).body;
    expect(text).toContain('sluice_held_oldest_seconds{group="web"} 2.5');
    expect(text).toContain('sluice_hold_seconds_bucket{le="0.0001",group="web"} 0');
    expect(text).toContain('sluice_hold_seconds_bucket{le="0.00025",group="web"} 1');
    expect(text).toContain('sluice_hold_seconds_bucket{le="+Inf",group="web"} 153');
    expect(text).toContain('sluice_hold_seconds_count{group="web"} 153');
    expect(text).toContain('sluice_hold_seconds_sum{group="web"} 1.5');
    expect(text).toContain('sluice_commit_to_wire_seconds_bucket{le="+Inf",group="web"} 14');
    expect(text).toContain('sluice_refusals_total{code="fenced"} 1');
    expect(text).toContain('sluice_epoch{group="web",mark="open"} 1');
    expect(text).toContain('sluice_command_seconds_count{command="cut"} 1');
    expect(text).toContain('sluice_plane_lost_frames_total{reason="starved"} 3');
    expect(text).toContain('process_resident_memory_bytes');
  });
});

test('the OpenAPI document covers every route, and every schema in it compiles', async () => {
  const doc = (await app.inject('/openapi.json')).json<{ openapi: string; info: object; paths: Record<string, Record<string, Operation>> }>();
  interface Operation { responses: Record<string, { content?: Record<string, { schema: object }> }>; requestBody?: { content: Record<string, { schema: object }> }; parameters?: { name: string; in: string; schema: object }[] }
  const listed = Object.entries(doc.paths).flatMap(([path, verbs]) => Object.keys(verbs).map((verb) => `${verb.toUpperCase()} ${path}`)).sort();
  expect(doc.openapi).toBe('3.1.0');
  expect(listed).toEqual([
    'DELETE /v1/groups/{group}', 'DELETE /v1/groups/{group}/members/{member}', 'GET /healthz', 'GET /metrics', 'GET /openapi.json', 'GET /readyz',
    'GET /v1/events', 'GET /v1/figures', 'GET /v1/figures/live', 'GET /v1/groups', 'GET /v1/groups/{group}', 'GET /v1/groups/{group}/held', 'GET /v1/groups/{group}/held.pcapng',
    'POST /v1/commands', 'POST /v1/groups/{group}/ack', 'POST /v1/groups/{group}/commit', 'POST /v1/groups/{group}/cut', 'POST /v1/groups/{group}/protect',
    'POST /v1/groups/{group}/rollback', 'POST /v1/groups/{group}/takeover', 'POST /v1/groups/{group}/unprotect', 'PUT /v1/groups/{group}',
    'PUT /v1/groups/{group}/members/{member}',
  ]);
  for (const [path, verbs] of Object.entries(doc.paths)) {
    for (const operation of Object.values(verbs)) {
      expect(Object.keys(operation.responses), path).toContain('200');
      const named = (operation.parameters ?? []).filter((one) => one.in === 'path').map(({ name }) => `{${name}}`);
      expect(path.match(/\{\w+\}/g) ?? []).toEqual(named);
      const schemas = [...Object.values(operation.responses), operation.requestBody].flatMap((part) => Object.values(part?.content ?? {}).map(({ schema }) => schema));
      for (const schema of [...schemas, ...(operation.parameters ?? []).map((one) => one.schema)]) expect(() => Compile(schema)).not.toThrow();
    }
  }
});
