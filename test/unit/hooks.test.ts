/** Hook command and webhooks: real programs, a real HTTP server, the real child. No test depends on speed. */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync, existsSync, chownSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readConfig } from '../../proxy/config.ts';
import type { Config } from '../../proxy/config.ts';
import { commandHook } from '../../proxy/hooks/command.ts';
import { HookLink } from '../../proxy/hooks/link.ts';
import { signatureOf, webhook } from '../../proxy/hooks/post.ts';
import { lineOf, Lines } from '../../proxy/hooks/protocol.ts';
import type { HookReport, HookSettings } from '../../proxy/hooks/protocol.ts';
import { TargetQueue } from '../../proxy/hooks/queue.ts';
import { HOOK_EVENTS } from '../../proxy/settings.ts';
import { readHooks } from '../../proxy/told.ts';

const PATIENCE_MS = 30_000;
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: PATIENCE_MS, interval: 20 });
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sl-hooks-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function program(name: string, text: string, mode = 0o755): string {
  const path = join(directory, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, mode);
  return path;
}
const one = (id: string, type = 'overflow') => ({ id, type, text: JSON.stringify({ id, type }) });
const text = (name: string): string => (existsSync(join(directory, name)) ? readFileSync(join(directory, name), 'utf8') : '');

describe('the command', () => {
  test('gets the event on its standard input, and nothing of the daemon\'s environment', async () => {
    process.env['SLUICE_TOKEN'] = 'not-for-hooks';
    const run = commandHook(program('hook', `cat > ${directory}/in; env > ${directory}/env; pwd >> ${directory}/env`), 'h1', PATIENCE_MS);
    expect(await run(one('b-1'))).toBeUndefined();
    delete process.env['SLUICE_TOKEN'];
    expect(text('in')).toBe('{"id":"b-1","type":"overflow"}\n');
    expect(text('env')).toMatch(/^SLUICE_EVENT=overflow$/m);
    expect(text('env')).not.toMatch(/not-for-hooks|HOME=/);
    expect(text('env').trim().split('\n').at(-1)).toBe('/');
  });
  test('one that fails, that is not there, that reads nothing', async () => {
    expect(await commandHook(program('bad', 'echo first >&2; echo the disk is full >&2; exit 3'), 'h1', PATIENCE_MS)(one('1'))).toBe('ended with 3: the disk is full');
    expect(await commandHook(join(directory, 'none'), 'h1', PATIENCE_MS)(one('1'))).toMatch(/can't be started: .*ENOENT/);
    expect(await commandHook(program('deaf', 'exit 0'), 'h1', PATIENCE_MS)({ id: '1', type: 'x', text: 'y'.repeat(1 << 20) })).toBeUndefined();
  });
  test('one that hangs is killed with all it started, also when it won\'t hear SIGTERM', async () => {
    const pids = `${directory}/pids`;
    const run = commandHook(program('stuck', `trap '' TERM; sleep 1000 & echo $! $$ > ${pids}; while :; do sleep 1; done`), 'h1', 400);
    expect(await run(one('1'))).toMatch(/still ran after 400 ms and was killed/);
    for (const pid of text('pids').trim().split(' ').map(Number).filter((pid) => pid > 0)) {
      await eventually(() => expect(isAlive(pid)).toBe(false));
    }
  });
  test('what it leaves running is ended with it', async () => {
    expect(await commandHook(program('leaver', `sleep 1000 & echo $! > ${directory}/pid; exit 0`), 'h1', PATIENCE_MS)(one('1'))).toBeUndefined();
    const pid = Number(text('pid'));
    expect(pid).toBeGreaterThan(1);
    await eventually(() => expect(isAlive(pid)).toBe(false));
  });
});

/** A zombie that nobody has waited for yet is dead. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

interface Heard {
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}
/** Answers each post by `reply`, given how many came before it. */
async function listening(reply: (response: ServerResponse, count: number) => void, job: (url: string, heard: readonly Heard[]) => Promise<void>): Promise<void> {
  const heard: Heard[] = [];
  const server: Server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (piece: string) => (body += piece)).on('end', () => {
      heard.push({ url: request.url ?? '', headers: request.headers, body });
      reply(response, heard.length - 1);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await job(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, heard);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}
const options = { secret: undefined, ca: undefined, timeoutMs: PATIENCE_MS, pausesMs: [1, 1, 1] };

describe('the webhook', () => {
  test('is posted once, signed by a secret that does not travel', async () => {
    const secret = 'a-secret-of-some-length';
    await listening((response) => response.writeHead(204).end(), async (url, heard) => {
      expect(await webhook(`${url}/in`, { ...options, secret })(one('b-7', 'port-lost'))).toBeUndefined();
      const [post] = heard;
      expect(heard.length).toBe(1);
      expect(post).toMatchObject({ url: '/in', body: '{"id":"b-7","type":"port-lost"}', headers: { 'content-type': 'application/json', 'sluice-event': 'port-lost', 'sluice-event-id': 'b-7' } });
      const [, t = '', v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(post?.headers['sluice-signature'])) ?? [];
      expect(v1).toBe(signatureOf(secret, Number(t), post?.body ?? ''));
      expect(v1).not.toBe(signatureOf('another-secret-of-some', Number(t), post?.body ?? ''));
      expect(JSON.stringify(heard)).not.toContain(secret);
    });
  });
  test.each([
    [[503, 200], 2, undefined], [[500, 502, 503, 504, 200], 4, 'answered 504'], [[429, 200], 2, undefined],
    [[404, 200], 1, 'answered 404'], [[302, 200], 1, 'answered 302; redirects are not followed'], [[307, 200], 1, 'answered 307; redirects are not followed'],
  ])('answered %j: posted %i times, then %s', async (statuses, posts, why) => {
    await listening((response, count) => response.writeHead(statuses[count] ?? 200, { location: '/elsewhere' }).end(), async (url, heard) => {
      expect(await webhook(`${url}/in`, options)(one('1'))).toBe(why);
      expect(heard.map((post) => post.url)).toEqual(Array.from({ length: posts }, () => '/in'));
    });
  });
  test('a server that never answers, and one that answers without end', async () => {
    await listening(() => undefined, async (url) => {
      expect(await webhook(url, { ...options, timeoutMs: 150 })(one('1'))).toBe('no answer within 150 ms');
    });
    const pours: NodeJS.Timeout[] = [];
    await listening((response) => {
      response.writeHead(200);
      pours.push(setInterval(() => response.write('x'.repeat(65_536)), 5));
      response.on('close', () => pours.forEach(clearInterval));
    }, async (url) => expect(await webhook(url, options)(one('1'))).toBeUndefined());
  });
  test('nobody there: the address is not shown, for it may hold a secret', async () => {
    expect(await webhook('http://127.0.0.1:1/token-in-path', options)(one('1'))).toBe('ECONNREFUSED');
  });
});

test('a queue keeps its order, runs one at a time, and drops what finds no room', async () => {
  const reports: HookReport[] = [];
  const done: string[] = [];
  let running = 0;
  let open: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (open = resolve));
  const queue = new TargetQueue('command', async ({ id }) => {
    expect(running++).toBe(0);
    await gate;
    running -= 1;
    done.push(id);
    return id === '2' ? 'no' : undefined;
  }, (report) => reports.push(report), 3);
  for (let i = 1; i <= 6; i++) queue.add(one(String(i)));
  expect(reports).toEqual([5, 6].map(() => ({ target: 'command', outcome: 'dropped', why: '3 events wait already' }))); // one runs, three wait
  open();
  await queue.idle();
  expect(done).toEqual(['1', '2', '3', '4']);
  expect(reports.slice(2).map(({ outcome, why }) => [outcome, why])).toEqual([['done', undefined], ['failed', 'no'], ['done', undefined], ['done', undefined]]);
});

describe('the child', () => {
  const settings = (more: Partial<HookSettings>): HookSettings => ({ host: 'h1', command: undefined, urls: [], secret: undefined, ca: undefined, timeoutMs: PATIENCE_MS, ...more });
  const events = ['overflow', 'port-lost'];

  test('tells command and webhook of what was asked for, in order', async () => {
    await listening((response) => response.end(), async (url, heard) => {
      const said: object[] = [];
      const link = new HookLink(settings({ command: program('hook', `cat >> ${directory}/in`), urls: [`${url}/a`] }), events, (fields) => said.push(fields));
      for (let i = 0; i < 20; i++) {
        link.event(`b-${i}`, { type: i % 2 === 0 ? 'overflow' : 'port-lost', group: 'web' } as { type: string });
        link.event(`c-${i}`, { type: 'committed' });
      }
      await eventually(() => expect(heard.length).toBe(20));
      await link.stop();
      const ids = Array.from({ length: 20 }, (_, i) => `b-${i}`);
      expect(heard.map(({ headers }) => headers['sluice-event-id'])).toEqual(ids);
      expect(JSON.parse(heard[0]?.body ?? '')).toEqual({ id: 'b-0', host: 'h1', type: 'overflow', group: 'web' });
      // A busy machine may not have started twenty programs in the time that ends it: what ran is in order.
      const ran = text('in').trim().split('\n').filter((line) => line !== '').map((line) => (JSON.parse(line) as { id: string }).id);
      expect(ran).toEqual(ids.slice(0, ran.length));
      expect(said).toEqual([]);
    });
  });
  test('a command that always fails is one line of the log, and counted', async () => {
    const said: object[] = [];
    const link = new HookLink(settings({ command: program('bad', 'exit 3') }), events, (fields) => said.push(fields));
    for (let i = 0; i < 5; i++) link.event(`b-${i}`, { type: 'overflow' });
    await eventually(() => expect(link.counts().get('command')?.failed).toBe(5));
    await link.stop();
    expect(said.length).toBeGreaterThanOrEqual(1);
    expect(said[0]).toMatchObject({ target: 'command', outcome: 'failed', why: 'ended with 3', events: 1 });
  });
  test('a machine that has no descriptor left starts it later, and the daemon lives', () => {
    const program = `
      import { closeSync, openSync } from 'node:fs';
      import { HookLink } from ${JSON.stringify(new URL('../../dist/proxy/hooks/link.js', import.meta.url).href)};
      const open = [];
      try { for (;;) open.push(openSync('/dev/null')); } catch { /* all are taken */ }
      const link = new HookLink({ host: 'h1', command: '/bin/true', urls: [], timeoutMs: 60000 }, ['overflow'], ({ why }) => {
        if (why !== undefined) console.log(why);
        for (const fd of open.splice(0)) closeSync(fd);
      });
      const timer = setInterval(() => {
        link.event('b-1', { type: 'overflow' });
        if ((link.counts().get('command')?.done ?? 0) === 0) return;
        clearInterval(timer);
        console.log('told');
        void link.stop();
      }, 50);`;
    const { stdout, stderr, status } = spawnSync('sh', ['-c', 'ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, program], { encoding: 'utf8', timeout: PATIENCE_MS });
    expect({ stdout, status }, stderr).toMatchObject({ stdout: expect.stringMatching(/EMFILE[^]*\ntold\n$/) as string, status: 0 });
  });
  test('settings that are read again let no event overtake another, and what waits goes by the new ones', async () => {
    const go = join(directory, 'go');
    const hook = (tag: string): string => program(tag, `echo ${tag} begins $SLUICE_EVENT_ID >> ${directory}/log\nwhile [ ! -e ${go} ]; do sleep 0.05; done\necho ${tag} ends $SLUICE_EVENT_ID >> ${directory}/log`);
    await listening((response) => response.end(), async (url, heard) => {
      const link = new HookLink(settings({ command: hook('old'), urls: [url] }), events, () => undefined);
      for (const id of ['1', '2']) link.event(id, { type: 'overflow' });
      await eventually(() => expect(text('log')).toBe('old begins 1\n'));
      link.set(settings({ command: hook('new'), urls: [url] }));
      link.event('3', { type: 'overflow' });
      await eventually(() => expect(heard.length).toBe(3)); // the child has taken the third
      writeFileSync(go, '');
      await eventually(() => expect(link.counts().get('command')?.done).toBe(3));
      expect(text('log').trim().split('\n')).toEqual(['old begins 1', 'old ends 1', 'new begins 2', 'new ends 2', 'new begins 3', 'new ends 3']);
      await link.stop();
    });
  });
  test('without a free descriptor an event fails, and the child lives', async () => {
    const child = spawn(process.execPath, [new URL('../../dist/proxy/hooks/hooks-child.js', import.meta.url).pathname], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      const reports: HookReport[] = [];
      const lines = new Lines();
      child.stdout.setEncoding('utf8').on('data', (piece: string) => reports.push(...(lines.take(piece) as HookReport[])));
      const limit = (soft: string): void => expect(spawnSync('prlimit', ['--pid', String(child.pid), `--nofile=${soft}:`]).status).toBe(0);
      const told = async (id: string): Promise<HookReport | undefined> => {
        const before = reports.length;
        child.stdin.write(lineOf(one(id)));
        await eventually(() => expect(reports.length).toBe(before + 1));
        return reports.at(-1);
      };
      child.stdin.write(lineOf({ set: settings({ command: program('hook', 'exit 0') }) }));
      expect(await told('1')).toMatchObject({ outcome: 'done' });
      limit('3');
      expect(await told('2')).toMatchObject({ outcome: 'failed', why: expect.stringMatching(/can't be started: .*EMFILE/) as string });
      limit('1024');
      expect(await told('3')).toMatchObject({ outcome: 'done' });
    } finally {
      child.kill('SIGKILL');
    }
  });
  test('killed, it is started again, and new settings are heard', async () => {
    await listening((response) => response.end(), async (url, heard) => {
      const said: object[] = [];
      const link = new HookLink(settings({ command: program('suicide', 'kill -9 $(ps -o ppid= -p $$)') }), events, (fields) => said.push(fields));
      link.event('b-0', { type: 'overflow' });
      await eventually(() => expect(said).toContainEqual({ why: 'SIGKILL' }));
      link.set(settings({ urls: [url] }));
      await vi.waitFor(() => {
        link.event('b-1', { type: 'overflow' });
        expect(heard.length).toBeGreaterThan(0);
      }, { timeout: PATIENCE_MS, interval: 100 });
      await link.stop();
    });
  });
});

describe('settings', () => {
  const hooks = (...argv: string[]): Config['hooks'] => {
    const file = join(directory, 'sluice.yaml');
    writeFileSync(file, '');
    const request = readConfig(['--config', file, ...argv], {});
    return request.kind === 'run' ? request.config.hooks : undefined;
  };
  test('from the file, as lists', () => {
    const file = join(directory, 'sluice.yaml');
    writeFileSync(file, 'hooks:\n  command: /usr/local/bin/tell\n  events: [overflow, leak-blocked]\n  timeout: 3s\n  webhook: { urls: [https://a.example/x, http://127.0.0.1:9/y], secret: /etc/s }\n');
    const request = readConfig(['--config', file], {});
    expect(request.kind === 'run' && request.config.hooks).toEqual({
      command: '/usr/local/bin/tell', events: ['overflow', 'leak-blocked'], timeoutMs: 3000, urls: ['https://a.example/x', 'http://127.0.0.1:9/y'], secret: '/etc/s', ca: undefined,
    });
  });
  test('left out: none; a command alone: every event that is not of every epoch', () => {
    expect(hooks()).toBeUndefined();
    expect(hooks('--hooks-command', '/x')).toMatchObject({ events: HOOK_EVENTS, timeoutMs: 10_000, urls: [] });
    expect(HOOK_EVENTS).not.toContain('committed');
    expect(HOOK_EVENTS).toContain('leak-blocked');
  });
  test.each([
    [['--hooks-events', 'overflow'], /nobody is told/],
    [['--hooks-webhook-secret', '/s', '--hooks-command', '/x'], /hooks\.webhook\.secret is set but hooks\.webhook\.urls is not/],
    [['--hooks-webhook-urls', 'http://alerts.example/x'], /http:\/\/ for 127\.0\.0\.1 only/],
    [['--hooks-webhook-urls', 'https://user:pass@alerts.example/x'], /no user or #/],
    [['--hooks-webhook-urls', 'file:///etc/passwd'], /is not right/],
    [['--hooks-webhook-urls', 'https://a/ https://b/ https://c/ https://d/ https://e/'], /1 to 4 addresses/],
    [['--hooks-command', '/x', '--hooks-events', 'committed'], /is not right; expected a list of/],
    [['--hooks-command', '/x', '--hooks-timeout', '61s'], /100ms to 60s/],
  ])('%j', (argv, expected) => expect(() => hooks(...argv)).toThrow(expected));

  test('files that others could have written are refused, secrets that are short or open too', () => {
    const base = { command: undefined, events: [], timeoutMs: 1, urls: [], secret: undefined, ca: undefined };
    const secret = (text: string, mode: number): string => {
      const path = join(directory, 'secret');
      writeFileSync(path, text);
      chmodSync(path, mode);
      return path;
    };
    expect(() => readHooks({ ...base, command: program('open', '', 0o777) }, 'h')).toThrow(/hooks\.command .* can be written by others; chmod 755/);
    expect(() => readHooks({ ...base, command: program('plain', '', 0o644) }, 'h')).toThrow(/is no program/);
    expect(() => readHooks({ ...base, command: join(directory, 'none') }, 'h')).toThrow(/ENOENT/);
    expect(() => readHooks({ ...base, secret: secret('0123456789abcdef0123', 0o644) }, 'h')).toThrow(/can be read by everyone/);
    expect(() => readHooks({ ...base, secret: secret('short\n', 0o600) }, 'h')).toThrow(/shorter than 16/);
    expect(readHooks({ ...base, command: program('good', ''), secret: secret('0123456789abcdef0123\n', 0o600) }, 'h')).toMatchObject({ secret: '0123456789abcdef0123' });
    if (process.getuid?.() !== 0) return;
    const theirs = program('theirs', '');
    chownSync(theirs, 65534, 65534);
    expect(() => readHooks({ ...base, command: theirs }, 'h')).toThrow(/belongs to another user/);
    const shared = join(directory, 'shared');
    mkdirSync(shared);
    chownSync(shared, 0, 65534);
    const among = program('shared/good', '');
    expect(readHooks({ ...base, command: among }, 'h')).toMatchObject({ command: among });
    chmodSync(shared, 0o2775);
    expect(() => readHooks({ ...base, command: among }, 'h')).toThrow(/a group \(gid 65534\) may exchange it; chmod g-w/);
  });
});
