/**
 * Attacks on the API over real TCP: who has no token, the wrong one, another group's; who is slow,
 * loud, or malformed; who prepares the place before the daemon starts. After every row the group
 * is as it was, what it holds is still held, and its engine is served. What happened is printed as a
 * table and kept as out/attacks.md.
 *
 * SLUICE_FLOOD: requests of the flood; `make fuzz` sends 100,000.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bed } from '../../bench/bed/bed.ts';
import { run, sleep, startIn, until } from '../../bench/bed/commands.ts';
import { repositoryRoot } from '../../bench/bed/daemon.ts';
import type { PacketPort } from '../../bench/bed/packet-port.ts';
import { probeFlow } from '../../bench/bed/probe.ts';
import { connectIn, Line, say, statusOf } from '../support/tcp.ts';
import type { Asked, Place, Replied } from '../support/tcp.ts';
import { AttackTable } from '../support/attack-table.ts';
import { UNPRIVILEGED } from './privilege.ts';

const FLOOD = Number(process.env['SLUICE_FLOOD'] ?? 5000);
const PORT = 7443;
const token = (who: string): string => `${who}-secret-0123456789abcdef`;
const TOKENS = [
  `web-engine ${token('web-engine')} checkpoint:web`, `web-eye ${token('web-eye')} observe:web`,
  `db-admin ${token('db-admin')} administer:db`, `root ${token('root')} administer:*`, '',
].join('\n');

const table = new AttackTable();
let bed: Bed;
let place: Place;
let outside: PacketPort;
const audit = (): string => join(bed.directory, 'audit.log');
const ask = (asked: Asked): Promise<Replied> => new Line(place).ask(asked);
const secret = (name: string, text: string, mode: number): string => {
  const path = join(bed.directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
};

/** What of the group must be as it was, whatever a stranger did. */
async function state(): Promise<object> {
  const { spec, generation, phase, open, sealed, acked, committed, released, held } = (await bed.daemon().api.must('GET', '/v1/groups/web')) as Record<string, unknown>;
  return { spec, generation, phase, open, sealed, acked, committed, released, frames: (held as { frames: number }).frames };
}
let before: object;
async function unharmed(): Promise<void> {
  expect(await state()).toEqual(before);
  let leaked = 0;
  outside.drain(() => (leaked += 1));
  expect(leaked).toBe(0);
}

beforeAll(async () => {
  if (UNPRIVILEGED !== undefined) return;
  bed = await Bed.create({ members: ['veth', 'veth'], addresses: false });
  await run('ip', ['-n', bed.host, 'link', 'set', 'lo', 'up']);
  const daemon = bed.daemon({ tcp: { listen: `127.0.0.1:${PORT}`, tokens: secret('tokens', TOKENS, 0o600) }, auditFile: audit() });
  await daemon.start();
  place = { namespace: bed.host, port: PORT };
  await daemon.api.must('PUT', '/v1/groups/web', bed.groupFile('web'));
  await daemon.api.must('POST', '/v1/groups/web/protect', {});
  outside = bed.outside();
  const sender = bed.end(0);
  const flow = probeFlow(bed.member(0).address, bed.outsider.address, 1, 200);
  for (let i = 0; i < 10; i++) expect(sender.send(flow(i))).toBe(true);
  await until('they are held', async () => ((await state()) as { frames: number }).frames === 10);
  before = await state();
});
afterAll(async () => {
  await bed?.close();
  if (UNPRIVILEGED === undefined) table.write();
});

/** Each of `routes` by this caller: the statuses are `status`, all of them. */
async function refused(attack: string, status: number, routes: readonly Asked[], seen: (text: string) => void = () => undefined): Promise<void> {
  for (const route of routes) {
    const got = await ask(route);
    table.saw(attack, got.status);
    expect([route.path, got.status]).toEqual([route.path, status]);
    seen(got.text);
  }
}

const epoch = JSON.stringify({ generation: 1, epoch: 1 });
const ROUTES: readonly Asked[] = [
  { method: 'GET', path: '/v1/groups/web' }, { method: 'GET', path: '/v1/groups/web/held' }, { method: 'GET', path: '/v1/groups/web/held.pcapng' },
  { method: 'GET', path: '/v1/events?group=web' }, { method: 'GET', path: '/metrics' },
  { method: 'PUT', path: '/v1/groups/web', body: '{"members":[]}' }, { method: 'DELETE', path: '/v1/groups/web' },
  { method: 'PUT', path: '/v1/groups/web/members/x', body: '{"port":"tap9","mac":"02:00:00:00:00:09"}' }, { method: 'DELETE', path: '/v1/groups/web/members/m1?held=release' },
  ...['protect', 'cut', 'ack', 'commit', 'rollback', 'takeover', 'unprotect'].map((verb) => ({ method: 'POST', path: `/v1/groups/web/${verb}`, body: epoch })),
];

describe.skipIf(UNPRIVILEGED !== undefined)('over TCP', () => {
  test('unauthenticated, a wrong token, half a token, a token in the wrong place: 401', async () => {
    const good = token('root');
    const tries: readonly Partial<Asked>[] = [
      {}, { token: token('nobody') }, { token: good.slice(0, -1) }, { token: `${good}0` }, { token: '' }, { token: good.toUpperCase() },
      { headers: { authorization: good } }, { headers: { authorization: `Basic ${Buffer.from(`root:${good}`).toString('base64')}` } },
      { headers: { 'x-token': good, cookie: `token=${good}`, 'x-forwarded-for': '127.0.0.1' } },
    ];
    await refused('no token', 401, ROUTES);
    await refused('a wrong token, half of one, one in the wrong place', 401, tries.map((attempt) => ({ method: 'POST', path: `/v1/groups/web/commit?token=${good}`, body: epoch, ...attempt })));
    await unharmed();
  });

  test('another group\'s token, and a right that is too low: 403, and not a word about the group', async () => {
    await refused('another group\'s token', 403, ROUTES.map((route) => ({ ...route, token: token('db-admin') })), (text) => expect(text).not.toMatch(/port1|"open"|"generation"/));
    await refused('a token that may only look', 403, ROUTES.filter(({ method }) => method !== 'GET').map((route) => ({ ...route, token: token('web-eye') })));
    expect(await ask({ method: 'GET', path: '/v1/groups', token: token('db-admin') })).toEqual({ status: 200, text: '[]' });
    await unharmed();
  });

  test('other groups\' events: none', async () => {
    const line = (who: string): Promise<string> => say(place, `GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token(who)}\r\nlast-event-id: x-0\r\n\r\n`, { untilMs: 1500, enough: /never/ }).then(({ text }) => text);
    const heard = Promise.all([line('db-admin'), line('web-eye')]);
    await sleep(300);
    await bed.daemon().api.must('PUT', '/v1/groups/other', { members: [{ name: 'o', port: 'nothere', mac: '02:00:00:00:00:77' }] });
    await bed.daemon().api.must('POST', '/v1/groups/other/takeover', { generation: 5, epoch: 0 }).catch(() => undefined);
    for (const text of await heard) {
      expect(text).toContain('event: gap');
      expect(text).not.toContain('"other"');
    }
    await bed.daemon().api.call('POST', '/v1/groups/other/unprotect', { generation: 5, held: 'discard' });
    await bed.daemon().api.call('DELETE', '/v1/groups/other');
    await unharmed();
  });

  test('malformed requests: an answer of 4xx or a closed connection', async () => {
    const auth = `host: x\r\nauthorization: Bearer ${token('root')}\r\n`;
    const put = (rest: string): string => `PUT /v1/groups/evil HTTP/1.1\r\n${auth}content-type: application/json\r\n${rest}`;
    const sized = (body: string): string => put(`content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    const rows: readonly (readonly [string, string, RegExp])[] = [
      ['a header of 20 KB', `GET /healthz HTTP/1.1\r\n${auth}x: ${'y'.repeat(20_000)}\r\n\r\n`, /431/],
      ['a body of 300 KB', sized(`{"group":"${'x'.repeat(300_000)}"}`), /413/],
      ['a body that says it is 9 EB', put('content-length: 9223372036854775807\r\n\r\n{'), /413/],
      ['two lengths', put('content-length: 2\r\ncontent-length: 3\r\n\r\n{}'), /400/],
      ['length and chunks', put('content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n'), /400/],
      ['a chunk without a number', put('transfer-encoding: chunked\r\n\r\nzz\r\n'), /400/],
      ['nested 100,000 deep', sized('['.repeat(100_000)), /400/],
      ['nested deep and closed', sized(`{"members":${'['.repeat(20_000)}${']'.repeat(20_000)}}`), /400/],
      ['a prototype', sized('{"__proto__":{"members":[]},"constructor":{}}'), /400/],
      ['not JSON', sized('\u0000\u0001'), /400/],
      ['another type', `PUT /v1/groups/evil HTTP/1.1\r\n${auth}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{}`, /415/],
      ['a form, as a browser sends it', `POST /v1/groups/web/commit HTTP/1.1\r\n${auth}content-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n\r\na=b`, /415/],
      ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /400/],
      ['no HTTP', '\u0016\u0003\u0001\u0002\u0000\u0001', /400/],
      ['a line of 1 MB', 'G'.repeat(1_000_000), /^$|400|431/], // the connection is closed before all of it was sent: who still writes may not hear why
      ['a header with a line break', `GET /healthz HTTP/1.1\r\n${auth}x: a\nb: c\r\n\r\n`, /400/],
      ['an unknown method', `BREW /v1/groups HTTP/1.1\r\n${auth}\r\n`, /400/],
      ['CONNECT', `CONNECT 10.0.0.1:80 HTTP/1.1\r\n${auth}\r\n`, /^$|4\d\d/],
      ['an upgrade', `GET /healthz HTTP/1.1\r\n${auth}connection: upgrade\r\nupgrade: websocket\r\n\r\n`, /200|4\d\d/],
    ];
    for (const [name, bytes, expected] of rows) {
      const heard = await say(place, bytes);
      table.saw('header and body abuse, broken HTTP', statusOf(heard) || 'closed');
      expect(`${name}: ${statusOf(heard) || ''}`).toMatch(new RegExp(`^${name}: (?:${expected.source.replace(/^\^\$\|/, '|')})$`));
      expect(heard.text).not.toMatch(/HTTP\/1\.1 5/);
    }
    await unharmed();
  });

  test('path tricks: never another group, never a file', async () => {
    const paths = ['/v1/groups/../../etc/passwd', '/v1/groups/%2e%2e/%2e%2e/etc/passwd', '/v1/groups/db/../web', '/v1/groups/db%2f..%2fweb', '//v1/groups/web', '/v1//groups/web',
      '/V1/groups/web', '/v1/groups/WEB', '/v1/groups/web%00', '/v1/groups/web%', '/v1/groups/%ff', '/v1/groups/web/', '/v1/groups/web;x=1', '/v1/groups/web%20', '/v1/groups/w\u00e9b',
      `/v1/groups/${'a'.repeat(8000)}`, '/v1/groups/__proto__', '/v1/groups/web?group=db', '/v1/events?group=db&group=web', '/v1/events?group[]=web', 'http://127.0.0.1/v1/groups/web', '/v1/groups/db/members/../../web'];
    for (const path of paths) {
      const { text } = await say(place, `GET ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token('db-admin')}\r\nconnection: close\r\n\r\n`, { untilMs: 1500 });
      table.saw('path tricks', /HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 'closed');
      expect(`${path.slice(0, 60)} ${text}`).toMatch(/HTTP\/1\.1 4\d\d/);
      expect(text).not.toMatch(/port1|root:x|"sealed"/);
    }
    await unharmed();
  });

  test('a flood: strangers are slowed, the engine is served, the log does not grow with it', async () => {
    const api = bed.daemon().api;
    const grown = bed.daemon().residentBytes();
    const one = `POST /v1/groups/web/commit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token('nobody')}\r\ncontent-type: application/json\r\ncontent-length: ${epoch.length}\r\n\r\n${epoch}`;
    const BATCH = 50;
    const tally: Record<string, number> = {};
    const attacker = async (requests: number): Promise<void> => {
      for (let sent = 0; sent < requests; sent += BATCH) {
        const { text, closed } = await say(place, one.repeat(BATCH), { untilMs: 20_000, enough: /never/ });
        expect(closed).toBe(true);
        for (const status of text.match(/HTTP\/1\.1 \d{3}/g) ?? []) tally[status.slice(9)] = (tally[status.slice(9)] ?? 0) + 1;
      }
    };
    const CLIENTS = 10;
    let flooding = true;
    const flood = Promise.all(Array.from({ length: CLIENTS }, () => attacker(FLOOD / CLIENTS))).finally(() => (flooding = false));
    const waitsMs: number[] = [];
    while (flooding) {
      const beganMs = performance.now();
      expect(await api.call('GET', '/v1/groups/web')).toMatchObject({ status: 200 });
      waitsMs.push(performance.now() - beganMs);
      await sleep(20);
    }
    await flood;
    await sleep(1100); // the address has its second of requests again
    expect(Object.keys(tally).filter((status) => status !== '401' && status !== '429')).toEqual([]);
    expect(tally['401']).toBeGreaterThan(0); // a reset may lose the answer, never the connection's end
    expect(bed.daemon().residentBytes() - grown).toBeLessThan(128 * 2 ** 20);
    expect(readFileSync(audit(), 'utf8').split('\n').length).toBeLessThan(500);
    waitsMs.sort((a, b) => a - b);
    for (const [status, count] of Object.entries(tally)) table.saw(`a flood of ${FLOOD} by 10 clients`, status, count);
    const unanswered = FLOOD - Object.values(tally).reduce((sum, count) => sum + count, 0);
    if (unanswered > 0) table.saw(`a flood of ${FLOOD} by 10 clients`, 'connection closed', unanswered);
    console.log(`flood of ${FLOOD}: ${JSON.stringify(tally)} answered, then their connections closed; the socket's client waited p50 ${waitsMs[waitsMs.length >> 1]?.toFixed(1)} ms, max ${waitsMs.at(-1)?.toFixed(1)} ms`);
    await unharmed();
  });

  test('slow clients are cut off, and many of them keep nobody out', async () => {
    const slow = Array.from({ length: 200 }, () => connectIn(place));
    try {
      const gone = slow.map((stream) => new Promise<void>((resolve) => stream.once('close', () => resolve())));
      for (const [i, stream] of slow.entries()) {
        stream.resume();
        stream.write(i % 2 === 0 ? 'GET /v1/groups HTT' : `POST /v1/groups/web/commit HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token('web-eye')}\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n{`);
      }
      const drip = setInterval(() => slow.forEach((stream) => stream.writable && stream.write(' ')), 1000);
      try {
        expect(await ask({ method: 'GET', path: '/healthz', token: token('web-eye') })).toMatchObject({ status: 200 });
        await Promise.race([Promise.all(gone), sleep(40_000).then(() => Promise.reject(new Error('slow clients are still there')))]);
        table.saw('slow clients, a byte a second', 'cut off', slow.length);
      } finally {
        clearInterval(drip);
      }
    } finally {
      for (const stream of slow) stream.destroy();
    }
    await unharmed();
  });

  test('a replayed command is a repeat, and after a takeover nothing at all', async () => {
    const recorded = (path: string, body: object): string => {
      const text = JSON.stringify(body);
      return `POST /v1/groups/web/${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token('web-engine')}\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`;
    };
    const [cut, rollback] = [recorded('cut', { generation: 1, epoch: 1 }), recorded('commit', { generation: 1, epoch: 1 })];
    expect((await say(place, cut)).text).toContain('"outcome":"accepted"');
    expect((await say(place, cut)).text).toContain('"outcome":"ignored"');
    table.saw('a recorded command, replayed', 'ignored');
    expect(statusOf(await say(place, recorded('takeover', { generation: 2, epoch: 0 })))).toBe(200);
    before = await state();
    for (const old of [cut, rollback]) {
      expect((await say(place, old)).text).toMatch(/HTTP\/1\.1 409[^]*"code":"fenced"/);
      table.saw('a recorded command, replayed', '409 fenced');
    }
    expect(await state()).toEqual(before);
  });

  test('no secret in the log, the audit file or the process list; tokens are read again on SIGHUP', async () => {
    const everything = bed.daemon().log() + readFileSync(audit(), 'utf8') + readFileSync(`/proc/${bed.daemon().pid}/cmdline`, 'utf8') + readFileSync(`/proc/${bed.daemon().pid}/environ`, 'utf8');
    expect(everything).not.toMatch(/secret-0123/);
    expect(readFileSync(audit(), 'utf8')).toMatch(/"who":"web-engine".*"command":"POST \/v1\/groups\/:group\/takeover","group":"web","generation":2.*"outcome":"accepted"/);
    expect(readFileSync(audit(), 'utf8')).toMatch(/"who":"uid 0 pid \d+","command":"POST \/v1\/groups\/:group\/protect"/);

    secret('tokens', 'web-eye another-secret-0123456789 observe:web\n', 0o644);
    bed.daemon().signal('SIGHUP');
    await until('it is refused', () => bed.daemon().log().includes('can be read by everyone'));
    expect((await ask({ method: 'GET', path: '/v1/groups/web', token: token('web-eye') })).status).toBe(200); // the old ones stay
    secret('tokens', 'web-eye another-secret-0123456789 observe:web\n', 0o600);
    bed.daemon().signal('SIGHUP');
    await until('the old token is nobody\'s', async () => (await ask({ method: 'GET', path: '/v1/groups/web', token: token('web-eye') })).status === 401);
    expect((await ask({ method: 'GET', path: '/v1/groups/web', token: 'another-secret-0123456789' })).status).toBe(200);
  });

  test('an audit file that can\'t be opened anew is said in the log, and the daemon lives', async () => {
    renameSync(audit(), `${audit()}.1`);
    await until('a directory is in its place', () => {
      try {
        mkdirSync(audit());
        return true;
      } catch {
        rmSync(audit(), { force: true }); // the SIGHUP of the test before has opened it anew only now
        return false;
      }
    });
    bed.daemon().signal('SIGHUP');
    await until('it is said', () => bed.daemon().log().includes('can\'t be opened anew'));
    rmdirSync(audit());
    bed.daemon().signal('SIGHUP');
    await until('a new file', () => existsSync(audit()));
    expect((await ask({ method: 'GET', path: '/v1/groups/web', token: 'another-secret-0123456789' })).status).toBe(200);
  });

  test('a place that another user prepared: it does not start, and says why in one line', async () => {
    const open = join(bed.directory, 'open');
    mkdirSync(open);
    chmodSync(open, 0o777);
    symlinkSync(bed.daemon().socket, join(bed.directory, 'link.sock'));
    const flags = (extra: readonly string[]): string[] => ['--control-socket', join(bed.directory, 'x.sock'), '--state', join(bed.directory, 'x'), '--pins', `/sys/fs/bpf/sluice-${bed.id}-x`, ...extra];
    const tcp = ['--control-tcp-listen', '127.0.0.1:7444'];
    const rows: readonly (readonly [readonly string[], RegExp])[] = [
      [['--state', open], /everyone may write .*chmod/],
      [['--state', join(open, 'below')], /everyone may write .*chmod/],
      [['--control-socket', join(open, 's.sock')], /control\.socket: everyone may write .*chmod/],
      [['--control-socket', join(bed.directory, 'link.sock')], /is a symbolic link; remove it/],
      [[...tcp, '--control-tcp-tokens', secret('readable', TOKENS, 0o644)], /can be read by everyone; chmod 600/],
      [['--ledger-etcd-endpoints', 'https://127.0.0.1:1', '--ledger-etcd-tls-ca', '/etc/hostname', '--ledger-etcd-tls-cert', '/etc/hostname', '--ledger-etcd-tls-key', secret('etcd-key', 'k', 0o644)], /ledger\.etcd\.tls\.key .* can be read by everyone; chmod 600/],
      [[...tcp, '--control-tcp-tokens', '/etc/hostname', '--control-tcp-tls-cert', '/etc/hostname', '--control-tcp-tls-key', secret('key', 'k', 0o604)], /can be read by everyone; chmod 600/],
      [['--control-tcp-listen', '192.0.2.1:1', '--control-tcp-tokens', secret('good', TOKENS, 0o600)], /tokens in the clear/],
    ];
    for (const [extra, expected] of rows) {
      const running = startIn(bed.host, process.execPath, [join(repositoryRoot(), 'bin/sluiced'), ...flags(extra)]);
      expect(await running.ended, running.output()).toBe(1);
      expect(running.output().trim().split('\n')).toEqual([expect.stringMatching(expected)]);
      table.saw('a symlinked socket, state that everyone may write, readable secrets, tokens in the clear', 'sluiced refuses to start');
    }
    expect(existsSync(join(bed.directory, 'x.sock'))).toBe(false);
    expect(existsSync(`/sys/fs/bpf/sluice-${bed.id}-x`)).toBe(false);
  });
});
