/**
 * Where the API is reached: always a unix socket, TCP where configured.
 *
 *     socket path ─┬─ nobody there ──────────────────────► listen
 *                  ├─ a socket that answers ─────────────► refuse: another daemon
 *                  ├─ a socket that nobody answers on ───► unlink, listen   (a daemon that was killed)
 *                  └─ not a socket ──────────────────────► refuse: never delete a stranger's file
 *
 * The socket is made with mode 0660 from its first moment (umask), and then given to its group.
 * Reading and writing it is the whole right to command the daemon: there is no further check on it.
 */
import { chownSync, lstatSync, mkdirSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import type { AppOptions } from './api/app.ts';
import { ConfigError } from './config.ts';
import type { Config } from './config.ts';

/** Long enough for a busy daemon, short enough for a start. */
const PROBE_MS = 1000;
const TOKEN_CHARACTERS_MIN = 16;

interface Listener {
  listen(options: { path: string } | { host: string; port: number }): Promise<string>;
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : String(error));

export async function listenUnix(app: Listener, socket: string, group: string): Promise<void> {
  await clearStale(socket);
  // ---rw----: others nothing, and nobody executes. Restored at once: it is the whole process's.
  const before = process.umask(0o117);
  try {
    await app.listen({ path: socket });
  } catch (error) {
    throw new ConfigError(`control.socket ${socket} can't be listened on (${codeOf(error)}); give a path in a directory that exists`);
  } finally {
    process.umask(before);
  }
  const gid = groupId(group, readFileSync('/etc/group', 'utf8'));
  if (gid !== undefined && process.geteuid?.() === 0) chownSync(socket, 0, gid);
}

/** undefined where the machine has no such group: then the socket stays its maker's. */
export function groupId(name: string, groups: string): number | undefined {
  const line = groups.split('\n').find((one) => one.startsWith(`${name}:`));
  const id = Number(line?.split(':')[2]);
  return Number.isInteger(id) ? id : undefined;
}

export async function clearStale(socket: string): Promise<void> {
  try {
    mkdirSync(dirname(socket), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw new ConfigError(`control.socket ${socket}: its directory can't be made (${codeOf(error)}); give another path`);
  }
  const found = lstatSync(socket, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new ConfigError(`control.socket ${socket} is a file that is no socket; remove it or give another path`);
  if (await answers(socket)) throw new ConfigError(`control.socket ${socket} is in use by a running daemon; stop it, or give this one a socket of its own`);
  unlinkSync(socket);
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    const end = (alive: boolean): void => {
      clearTimeout(timer);
      probe.destroy();
      resolve(alive);
    };
    const timer = setTimeout(() => end(true), PROBE_MS); // it hangs, so somebody holds it
    probe.once('connect', () => end(true));
    probe.once('error', (error) => end(codeOf(error) !== 'ECONNREFUSED'));
  });
}

/** Certificates and tokens, read once at start. */
export function tcpOptions(tcp: NonNullable<Config['control']['tcp']>): AppOptions {
  const { tls, tokens } = tcp;
  return {
    ...(tls === undefined ? {} : { tls: { cert: mustRead('cert', tls.cert), key: mustRead('key', tls.key), clientCa: tls.clientCa === undefined ? undefined : mustRead('clientCa', tls.clientCa) } }),
    ...(tokens === undefined ? {} : { tokens: readTokens(tokens) }),
  };
}

function mustRead(what: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`control.tcp: ${what} ${file} can't be read (${codeOf(error)}); give the path of a PEM file`);
  }
}

function readTokens(file: string): readonly string[] {
  const lines = mustRead('tokens', file).split('\n').map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0) throw new ConfigError(`control.tcp.tokens ${file} has no token; write one a line, as from: openssl rand -hex 32`);
  const short = lines.findIndex((line) => line.length < TOKEN_CHARACTERS_MIN);
  if (short >= 0) throw new ConfigError(`control.tcp.tokens ${file}: token ${short + 1} is shorter than ${TOKEN_CHARACTERS_MIN} characters; make one with: openssl rand -hex 32`);
  if ((statSync(file).mode & 0o007) !== 0) throw new ConfigError(`control.tcp.tokens ${file} can be read by everyone; chmod 600 ${file}`);
  return lines;
}

export async function listenTcp(app: Listener, { host, port }: { host: string; port: number }): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new ConfigError(`control.tcp.listen ${host}:${port} can't be listened on (${codeOf(error)}); give a free port of an address of this machine`);
  }
}
