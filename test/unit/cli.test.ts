import { once } from 'node:events';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Command } from 'commander';
import { Context } from '../../checkpoint-hooks/commands/context.ts';
import { bytesText, maybeDurationMs, msText, table } from '../../checkpoint-hooks/format.ts';
import { FileProblem, parseGroupText } from '../../checkpoint-hooks/group-file.ts';
import { buildProgram } from '../../checkpoint-hooks/program.ts';
import { WEB, serve, sluice, spawnSluice } from './cli-world.ts';
import type { Ran, Served } from './cli-world.ts';
import { ZERO_COUNTERS } from './memory-control.ts';

let served: Served;
let groupFile: string;
beforeAll(async () => {
  served = await serve();
  groupFile = join(served.dir, 'web.yaml');
  writeFileSync(groupFile, WEB);
});
afterAll(() => served.remove());
const cli = (...args: string[]): Promise<Ran> => sluice(['--socket', served.socket, ...args]);
const reply = async (...args: string[]): Promise<Record<string, unknown>> => {
  const ran = await cli('--json', ...args);
  expect(ran.err).toBe('');
  expect(ran.code).toBe(0);
  return JSON.parse(ran.out) as Record<string, unknown>;
};

describe('a group from apply to delete', () => {
  beforeEach(() => served.control.groups.clear());

  test('every command does what its name says, asking the daemon for what was left out', async () => {
    expect(await reply('group', 'apply', '-f', groupFile)).toMatchObject({ group: 'web', outcome: 'accepted', phase: 'idle' });
    expect(await reply('protect', 'web', '--generation', '3')).toMatchObject({ generation: 3, open: 1 });
    expect(await reply('cut', 'web')).toMatchObject({ sealed: 1, open: 2 });
    expect(await reply('cut', 'web', '2')).toMatchObject({ sealed: 2 });
    expect(await reply('cut', 'web', '--epoch', '2')).toMatchObject({ outcome: 'ignored', sealed: 2 });
    expect(await reply('cut', 'web', '--member', 'front')).toMatchObject({ outcome: 'accepted', sealed: 2 });
    expect(await reply('ack', 'web', '1', '--members', 'front,store')).toMatchObject({ acked: 1 });
    expect(await reply('commit', 'web')).toMatchObject({ committed: 2, acked: 2 });
    expect(await reply('rollback', 'web', '2')).toMatchObject({ open: 3, committed: 2 });
    expect(await reply('takeover', 'web', '2')).toMatchObject({ generation: 4 });
    expect(await reply('member', 'join', 'web', 'cache', '--port', 'tap9', '--mac', '02:00:00:00:00:09', '--vlan', '7')).toMatchObject({ outcome: 'accepted' });
    expect(await reply('group', 'member', 'remove', 'web', 'cache', '--held', 'discard')).toMatchObject({ outcome: 'accepted' });
    expect(await reply('unprotect', 'web', '--held', 'discard')).toMatchObject({ outcome: 'accepted' });
    expect(await reply('group', 'delete', 'web')).toMatchObject({ group: 'web' });
    expect(served.control.groups.size).toBe(0);
  });

  test('commit --wait answers when everything has left, and says so when it has not', async () => {
    await reply('group', 'apply', '-f', groupFile);
    await reply('protect', 'web');
    await reply('cut', 'web');
    expect(await reply('commit', 'web', '1', '--wait', '20ms')).toMatchObject({ committed: 1, released: 0 });
    served.control.released('web');
    expect(await reply('commit', 'web', '1', '--wait')).toMatchObject({ outcome: 'ignored', released: 1 });
  });

  test('a file on standard input, members with several NICs, text for people', async () => {
    const piped = await sluice(['--socket', served.socket, 'group', 'apply', '-f', '-'], {}, WEB);
    expect(piped).toMatchObject({ code: 0, err: '' });
    expect(piped.out).toMatch(/^web accepted {2}generation 0 {2}open/);
    await reply('member', 'add', 'web', 'wide', '--nic', 'tap5,02:00:00:00:00:05', '--nic', 'tap6,02:00:00:00:00:06,12');
    served.control.counts.set('web', { ...ZERO_COUNTERS, heldFrames: 12, heldBytes: 18_212, oldestMs: 3.1 });
    expect((await cli('group', 'list')).out).toMatch(/group +phase +generation.*\nweb +idle +0 .*12 \(17\.8 KiB\) +3\n/);
    const shown = (await cli('group', 'show', 'web')).out;
    expect(shown).toMatch(/held +12 frames, 17\.8 KiB, oldest 3\.10 ms/);
    expect(shown).toMatch(/wide .*tap5 02:00:00:00:00:05, tap6 02:00:00:00:00:06 vlan 12/);
    served.control.counts.clear();
  });

  test('held, as text and as a capture', async () => {
    await reply('group', 'apply', '-f', groupFile);
    expect((await cli('held', 'web')).out).toBe('web: nothing is held\n');
    served.control.heldEpochs = [{ epoch: 4, frames: 2, bytes: 3000, oldestMs: 12.5 }] as never;
    expect((await cli('held', 'web')).out).toMatch(/web: 2 frames, 2\.93 KiB\n\nepoch +frames +bytes +oldest\n +4 +2 +2\.93 KiB +12\.50 ms\n/);
    served.control.heldEpochs = [];
    const path = join(served.dir, 'held.pcapng');
    expect(await cli('held', 'web', '-o', path)).toMatchObject({ code: 0 });
    expect(readFileSync(path).readUInt32LE(0)).toBe(0x0a0d0d0a);
    expect(await cli('held', 'web', '-o', '/nonexistent/dir/x')).toMatchObject({ code: 1, err: expect.stringContaining('/nonexistent/dir/x') as string });
  });
});

describe('exit codes', () => {
  afterEach(() => served.control.groups.clear());

  test('2 for bad usage, said by what is wrong', async () => {
    const cases: readonly [string[], RegExp][] = [
      [['frobnicate'], /unknown command 'frobnicate'/],
      [['cut'], /missing required argument 'group'/],
      [['cut', 'web', 'seven'], /epoch "seven": expected a whole number/],
      [['cut', 'web', '--epoch', '-1'], /--epoch/],
      [['cut', 'web', '--colour', '1'], /unknown option '--colour'/],
      [['rollback', 'web'], /rollback needs an epoch/],
      [['takeover', 'web'], /takeover needs an epoch/],
      [['unprotect', 'web'], /--held/],
      [['unprotect', 'web', '--held', 'keep'], /Allowed choices are release, discard/],
      [['group', 'apply'], /--file/],
      [['member', 'join', 'web', 'x'], /needs --port and --mac/],
      [['member', 'join', 'web', 'x', '--nic', 'tap0'], /expected port,mac/],
      [['engine', 'ticker', 'web', '--interval', '0'], /more than 0/],
      [['commit', 'web', '1', '--wait', 'soon'], /expected a duration/],
      [['--url', 'ftp://x', 'group', 'list'], /expected https/],
      [['--url', 'https://h:1', '--ca', '/nonexistent', 'group', 'list'], /--ca \/nonexistent: no such file/],
    ];
    const ran = await Promise.all(cases.map(([args]) => cli(...args)));
    for (const [index, [args, message]] of cases.entries()) {
      expect({ args, code: ran[index]?.code, out: ran[index]?.out }).toEqual({ args, code: 2, out: '' });
      expect(ran[index]?.err).toMatch(message);
    }
  });

  test('1 for a refusal, with the daemon\'s reason and code', async () => {
    expect(await cli('cut', 'nope')).toMatchObject({ code: 1, err: expect.stringMatching(/^sluice: .*"nope".* \(no_such_group\)\n$/) as string });
    await reply('group', 'apply', '-f', groupFile);
    expect(await cli('cut', 'web')).toMatchObject({ code: 1, err: expect.stringMatching(/never protected; protect it first: sluice protect web/) as string });
    await reply('protect', 'web');
    expect(await cli('cut', 'web', '9', '--generation', '1')).toMatchObject({ code: 1, err: expect.stringContaining('epoch_out_of_order') as string });
    expect(await cli('cut', 'web', '--member', 'who')).toMatchObject({ code: 1, err: expect.stringMatching(/no member "who"; it has front, store/) as string });
    const json = await cli('--json', 'commit', 'web', '1', '--generation', '1');
    expect(json).toMatchObject({ code: 1, out: '' });
    expect(JSON.parse(json.err)).toMatchObject({ code: 'epoch_out_of_order', group: 'web', generation: 1, open: 1 });
  });

  test('3 when there is no daemon, with what to do', async () => {
    const nobody = await sluice(['--socket', join(served.dir, 'none'), 'group', 'list']);
    expect(nobody).toMatchObject({ code: 3, out: '' });
    expect(nobody.err).toMatch(/no daemon at .*none: there is no such socket\n {2}start sluiced, or name its socket/);
    expect(await sluice(['group', 'list'], { SLUICE_CONTROL_SOCKET: join(served.dir, 'other') })).toMatchObject({ code: 3, err: expect.stringContaining('other') as string });
    expect(await sluice(['--url', 'http://127.0.0.1:1', 'events'])).toMatchObject({ code: 3, err: expect.stringContaining('127.0.0.1:1') as string });
    expect(await sluice(['engine', 'ticker', 'web', '--socket', join(served.dir, 'none')])).toMatchObject({ code: 3 });
  });

  test('--connect-timeout: a daemon that is just starting is waited for, one that never comes is said after it', async () => {
    const away = ['--socket', served.socket, '--connect-timeout'];
    await served.stop();
    const never = sluice([...away, '300ms', 'group', 'list']);
    expect(await never).toMatchObject({ code: 3, err: expect.stringContaining('no daemon at') as string });
    const soon = sluice([...away, '30s', 'group', 'list']);
    await sleep(1000);
    await served.start();
    expect(await soon).toMatchObject({ code: 0, err: '' });
    expect(await sluice([...away, 'soon', 'group', 'list'])).toMatchObject({ code: 2, err: expect.stringContaining('expected a duration') as string });
  });

  test('every example of every help is one that the command line takes', async () => {
    const all = (command: Command): Command[] => [command, ...command.commands.flatMap(all)];
    const shown = all(buildProgram(new Context())).flatMap((command) => {
      let help = '';
      command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
      return [...help.matchAll(/^ {2}\$ (.*)$/gm)].flatMap(([, line = '']) => line.split('&&')).flatMap((line) => /\bsluice (.*)$/.exec(line.trim())?.[1] ?? []);
    });
    expect(shown.length).toBeGreaterThan(30);
    for (const line of shown) {
      const program = buildProgram(new Context());
      const reached: string[] = [];
      for (const command of all(program)) {
        command.exitOverride().configureOutput({ writeErr: () => undefined });
        if (command.commands.length === 0) command.action(() => void reached.push(command.name()));
      }
      await program.parseAsync(line.split(' '), { from: 'user' }).catch((error: unknown) => expect.unreachable(`sluice ${line}: ${String(error)}`));
      expect(reached, line).toHaveLength(1);
    }
  });

  test('0 for help and version; every command\'s help has an example', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(await sluice(['--version'])).toMatchObject({ code: 0, out: `${version}\n` });
    expect(await sluice(['group', 'apply', '--help'])).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/Example:\n {2}\$ cat web\.yaml/) as string });
    const leaves = (command: Command): Command[] => (command.commands.length === 0 ? [command] : command.commands.flatMap(leaves));
    for (const command of leaves(buildProgram(new Context()))) {
      let help = '';
      command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
      expect(help).toMatch(/Example:\n {2}\$ (.*\n {2}\$ )*(.*sluice|cat web)/);
    }
  });
});

describe('a broken group file: file, line, what is wrong, what to write', () => {
  const cases: readonly [string, string, RegExp][] = [
    ['misspelt key', WEB.replace('commit:', 'comit:'), /^g\.yaml:2: comit: unknown field "comit"; allowed here: group, commit/],
    ['bad choice', WEB.replace('explicit', 'sometimes'), /^g\.yaml:2: commit: "sometimes" is not right; expected "explicit"/],
    ['bad MAC', WEB.replace('02:00:00:00:00:03', '02:00'), /^g\.yaml:8: members\[1\]\.nics\[1\]\.mac: "02:00" is not right; expected a MAC address/],
    ['same port twice', WEB.replace('tap1', 'tap0'), /^g\.yaml:5: members\[1\]: port tap0 is used twice/],
    ['no port', WEB.replace('port: tap0, ', ''), /^g\.yaml:4: members\[0\]: member "front" has no "port"/],
    ['no group', WEB.replace('group: web\n', ''), /^g\.yaml:1: field "group" is missing/],
    ['not a mapping', '- a\n- b\n', /^g\.yaml:1: .*expected a group file/],
    ['empty', '', /^g\.yaml:1: /],
    ['a tab', 'group: web\nmembers:\n\t- x\n', /^g\.yaml:3: not YAML: .*(tab|spaces)/i],
    ['key twice', `${WEB}commit: acks\n`, /^g\.yaml:9: not YAML: .*unique; remove one/],
    ['unclosed brace', 'group: web\nmembers: [ { name: a\n', /^g\.yaml:\d: not YAML: /],
    ['size', `${WEB}hold: { bytes: 64MB }\n`, /^g\.yaml:9: hold\.bytes: "64MB" is not right; expected a size, as 64MiB/],
  ];
  test.each(cases)('%s', (_name, text, message) => {
    expect(() => parseGroupText(text, 'g.yaml')).toThrow(FileProblem);
    expect(() => parseGroupText(text, 'g.yaml')).toThrow(message);
  });

  test('the command says it on one line and asks no daemon', async () => {
    const path = join(served.dir, 'broken.yaml');
    writeFileSync(path, WEB.replace('commit:', 'comit:'));
    const ran = await sluice(['--socket', '/nonexistent', 'group', 'apply', '-f', path]);
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.err.trim().split('\n')).toHaveLength(1);
    expect(ran.err).toContain(`${path}:2: comit`);
    expect(await cli('group', 'apply', '-f', '/nonexistent.yaml')).toMatchObject({ code: 1, err: 'sluice: /nonexistent.yaml: no such file\n' });
    expect(await cli('group', 'apply', '-f', served.dir)).toMatchObject({ code: 1, err: expect.stringContaining(served.dir) as string });
  });

  test('a good one is sent as it was written, with the defaults in its spec', () => {
    const { file, spec } = parseGroupText(WEB, 'g.yaml');
    expect(file.members).toHaveLength(2);
    expect(spec.hold).toEqual({ bytes: 64 * 1024 * 1024, highWater: 0.75 });
    expect(parseGroupText(JSON.stringify(file), 'g.json').spec).toEqual(spec);
  });
});

describe('following', () => {
  test('events end after the count, and only the wanted ones count', async () => {
    const child = spawnSluice(['--socket', served.socket, '--json', 'events', '--group', 'web', '--type', 'cut,released', '-n', '2']);
    const chunks: string[] = [];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => chunks.push(text));
    const ended = once(child, 'exit');
    while (served.deps.events.subscribers === 0) await new Promise((done) => setTimeout(done, 5));
    for (const type of ['cut', 'committed', 'released'] as const) served.deps.events.publish({ type, atMs: 0, group: 'web', epoch: 1 });
    expect((await ended)[0]).toBe(0);
    expect(chunks.join('').trim().split('\n').map((line) => (JSON.parse(line) as { type: string }).type)).toEqual(['cut', 'released']);
  });

  test('the ticker as a command: Ctrl-C ends it with a summary and nothing uncommitted', async () => {
    served.control.groups.clear();
    await reply('group', 'apply', '-f', groupFile);
    await reply('protect', 'web');
    const child = spawnSluice(['--socket', served.socket, '--json', 'engine', 'ticker', 'web', '--interval', '5ms', '--commit-delay', '20ms']);
    const chunks: string[] = [];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => chunks.push(text));
    const ended = once(child, 'exit');
    while ((served.control.get('web')?.committed ?? 0) < 5) await new Promise((done) => setTimeout(done, 5));
    child.kill('SIGINT');
    expect((await ended)[0]).toBe(0);
    const summary = JSON.parse(chunks.join('')) as { epochs: number; committed: number; open: number };
    expect(summary.committed).toBe(summary.open - 1);
    expect(served.control.get('web')).toMatchObject({ sealed: summary.committed, committed: summary.committed });
    const text = await cli('engine', 'ticker', 'web', '--epochs', '3', '--interval', '2ms');
    expect(text.out).toMatch(/^epochs +3 cut, \d+ commits .*\ncut +p50 .*\ncommit +p50 /);
  });
});

describe('what people read', () => {
  test('sizes, durations, tables', () => {
    expect([0, 1023, 1024, 18_212, 64 * 1024 ** 2].map(bytesText)).toEqual(['0 B', '1023 B', '1.00 KiB', '17.8 KiB', '64.0 MiB']);
    expect([0, 0.25, 3.1, 250, 12_345].map(msText)).toEqual(['0 ms', '250 us', '3.10 ms', '250 ms', '12.3 s']);
    expect(['25ms', '1.5s', '800us', '2m', '7', ' 3s '].map(maybeDurationMs)).toEqual([25, 1500, 0.8, 120_000, 7, 3000]);
    expect(['', 'ms', '-1s', '1h', '1 s', '1e3'].map(maybeDurationMs)).toEqual(Array(6).fill(undefined));
    expect(table(['a', 'bb'], [['long', '1'], ['x', '22']], ['left', 'right'])).toBe('a     bb\nlong   1\nx     22');
  });
});

describe('the token', () => {
  const file = (): string => join(served.dir, 'token');
  test('from its file or the environment, and never in the process list', async () => {
    const server = createServer((request, reply) => reply.end(JSON.stringify(request.headers.authorization === 'Bearer tok-0123456789abcdef' ? [] : { code: 'no' })));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
    try {
      writeFileSync(file(), 'tok-0123456789abcdef\n', { mode: 0o600 });
      expect((await sluice(['--url', url, '--json', '--token-file', file(), 'group', 'list'])).out).toBe('[]\n');
      chmodSync(file(), 0o644);
      expect(await sluice(['--url', url, '--token-file', file(), 'group', 'list'])).toMatchObject({ code: 2, err: expect.stringContaining('chmod 600') as string });

      server.removeAllListeners('request'); // from now on nobody answers, and the command waits
      const child = spawnSluice(['--url', url, '--token', 'tok-0123456789abcdef', 'group', 'list']);
      const asked = once(server, 'request');
      await asked;
      const shown = readFileSync(`/proc/${child.pid}/cmdline`, 'utf8');
      child.kill('SIGKILL');
      expect(shown).toContain('sluice');
      expect(shown).not.toContain('tok-0123');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
