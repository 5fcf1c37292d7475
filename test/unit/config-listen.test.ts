import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sha256 } from '../../proxy/api/access.ts';
import { readCredentials } from '../../proxy/credentials.ts';
import { groupId, listenUnix, tcpOptions } from '../../proxy/listen.ts';
import { checkCapabilities, checkKernel } from '../../proxy/preflight.ts';
import { checkState } from '../../proxy/trust.ts';

let directory: string;
let server: Server;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sl-listen-'));
  server = createServer();
});
afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});
const app = { listen: (options: { path: string } | { host: string; port: number }): Promise<string> => new Promise((resolve, reject) => server.once('error', reject).listen(options, () => resolve(''))) };
const messageOf = async (run: () => unknown): Promise<string> => {
  try {
    await run();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return 'done';
};

describe('the unix socket', () => {
  test('has mode 0660 and a directory made for it', async () => {
    const socket = join(directory, 'run/sluice.sock');
    const before = process.umask();
    await listenUnix(app, socket, 'no-such-group-here');
    expect(statSync(socket).mode & 0o777).toBe(0o660);
    expect(process.umask()).toBe(before);
  });

  test('takes the place of one whose daemon was killed', async () => {
    const socket = join(directory, 's.sock');
    const child = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('listening'))`], { stdio: ['ignore', 'pipe', 'ignore'] });
    await once(child.stdout, 'data'); // the file is there a moment before anybody listens
    expect(await messageOf(() => listenUnix(app, socket, 'x'))).toMatch(/in use by a running daemon; stop it/);
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    expect(existsSync(socket)).toBe(true);
    expect(await messageOf(() => listenUnix(app, socket, 'x'))).toBe('done');
  });

  test('never deletes a file that is no socket', async () => {
    const file = join(directory, 'precious');
    writeFileSync(file, 'x');
    expect(await messageOf(() => listenUnix(app, file, 'x'))).toMatch(/is a file that is no socket; remove it/);
    expect(existsSync(file)).toBe(true);
    expect(await messageOf(() => listenUnix(app, join(file, 'below'), 'x'))).toMatch(/directory can't be made \(E\w+\)/);
  });

  test('a directory of another user is refused: whoever owns it may exchange what is in it', async () => {
    if (process.getuid?.() !== 0) return; // only root can make one
    const theirs = join(directory, 'theirs');
    mkdirSync(theirs, { mode: 0o755 });
    chownSync(theirs, 65534, 65534);
    expect(await messageOf(() => listenUnix(app, join(theirs, 's.sock'), 'x'))).toMatch(/control\.socket: .*theirs belongs to another user \(uid 65534\)/);
    expect(await messageOf(() => checkState('state', join(theirs, 'journal')))).toMatch(/state: .*theirs belongs to another user/);
    chownSync(theirs, 0, 0);
    expect(await messageOf(() => checkState('state', join(theirs, 'journal')))).toBe('done');
  });

  test('its group by name', () => {
    expect(groupId('b', 'a:x:1:\nb:x:22:u,v\nbb:x:3:')).toBe(22);
    expect(groupId('c', 'a:x:1:')).toBeUndefined();
  });
});

describe('tokens', () => {
  const tokens = (text: string, mode = 0o600): string => {
    const file = join(directory, 'tokens');
    writeFileSync(file, text);
    chmodSync(file, mode);
    return file;
  };
  const options = (file: string): unknown => tcpOptions({ listen: { host: 'h', port: 1 }, tls: undefined, tokens: file });

  test('alone on its line: everything; with a name: what stands there', () => {
    const read = readCredentials(tokens([
      '# ours', '0123456789abcdef', '', '  web-eng  fedcba9876543210  checkpoint:web observe:* observe:web # not this',
      `graf sha256:${sha256('other')} observe:*`, 'old cert:backup-host administer:db', '',
    ].join('\n')));
    expect(read.map(({ proof, caller }) => [proof, caller.name, [...caller.rights]])).toEqual([
      [{ kind: 'token', sha256: sha256('0123456789abcdef') }, 'token-2', [['*', 'administer']]],
      [{ kind: 'token', sha256: sha256('fedcba9876543210') }, 'web-eng', [['web', 'checkpoint'], ['*', 'observe']]],
      [{ kind: 'token', sha256: sha256('other') }, 'graf', [['*', 'observe']]],
      [{ kind: 'certificate', name: 'backup-host' }, 'old', [['db', 'administer']]],
    ]);
  });
  test.each([
    ['none', '# nothing\n', 0o600, /has no token; write one a line/],
    ['short', '0123456789abcdef\nsecret\n', 0o600, /:2: the token is shorter than 16/],
    ['no right', 'web 0123456789abcdef\n', 0o600, /:1: what may it do\?/],
    ['no such right', 'web 0123456789abcdef commit:web\n', 0o600, /:1: a right is observe, checkpoint, administer/],
    ['a right on nothing', 'web 0123456789abcdef observe\n', 0o600, /:1: a right is .* as checkpoint:web/],
    ['no digest', 'web sha256:12 observe:web\n', 0o600, /:1: sha256: needs 64/],
    ['twice the same', 'a 0123456789abcdef observe:*\nb 0123456789abcdef observe:*\n', 0o600, /:2: the same secret/],
    ['twice the name', 'a 0123456789abcdef observe:*\na 0123456789abcdeg observe:*\n', 0o600, /:2: the same name/],
    ['the group may write it', '0123456789abcdef\n', 0o660, /can be written by its group; chmod 640/],
    ['open to all', '0123456789abcdef\n', 0o644, /can be read by everyone; chmod 600/],
  ])('%s', async (_name, text, mode, expected) => {
    const message = await messageOf(() => options(tokens(text, mode)));
    expect(message).toMatch(expected);
    expect(message).not.toMatch(/0123456789abcde|secret\b.*secret/); // what stands there is not shown
  });
  test('a certificate\'s line where no client can show one', async () => {
    const file = tokens('backup cert:backup-host administer:db\n');
    expect(await messageOf(() => options(file))).toMatch(/the line of backup names a certificate and control\.tcp\.tls\.clientCa is not set/);
  });
  test('a file that is not there', async () => {
    expect(await messageOf(() => options(join(directory, 'none')))).toMatch(/tokens .* can't be read \(ENOENT\)/);
  });
});

describe('preflight', () => {
  test('the kernel', () => {
    for (const version of ['6.1.0-18-amd64', '6.18.3', '7.0']) expect(() => checkKernel('ebpf', version), version).not.toThrow();
    for (const version of ['6.0.9', '5.15.0', '4.19']) expect(() => checkKernel('ebpf', version), version).toThrow(/too old; Linux 6\.1 or later/);
  });
  test('capabilities: what is lacking, what it is for, what to do', () => {
    expect(() => checkCapabilities('ebpf', 'CapEff:\t000001ffffffffff\n')).not.toThrow();
    expect(() => checkCapabilities('ebpf', 'CapEff:\t000000c000003000\n')).not.toThrow();
    expect(() => checkCapabilities('ebpf', 'CapEff:\t0000000000203000\n')).not.toThrow();
    expect(() => checkCapabilities('ebpf', 'CapEff:\t0000000000000000\n')).toThrow(/lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON .*run it as root, or grant/);
    expect(() => checkCapabilities('ebpf', 'CapEff:\t000000c000001000\n')).toThrow(/lacks CAP_NET_RAW \(to open packet sockets\)/);
  });
  test('the portable plane needs no BPF, and an older kernel does', () => {
    expect(() => checkCapabilities('pcap', 'CapEff:\t0000000000003000\n')).not.toThrow();
    expect(() => checkCapabilities('pcap', 'CapEff:\t0000000000001000\n')).toThrow(/lacks CAP_NET_RAW/);
    expect(() => checkKernel('pcap', '5.10.0')).not.toThrow();
    expect(() => checkKernel('pcap', '5.9.16')).toThrow(/Linux 5\.10 or later is needed for plane: pcap/);
  });
});
