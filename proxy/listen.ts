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
 * On TCP, access.ts asks who it is.
 */
import { chownSync, lstatSync, mkdirSync, readFileSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { Server as TlsServer } from 'node:tls';
import { Access } from './api/access.ts';
import type { AppOptions } from './api/app.ts';
import { ConfigError } from './config.ts';
import type { Config, Tls } from './config.ts';
import { readCredentials, TOKENS_KEY } from './credentials.ts';
import { checkDirectory, codeOf, readPublic, readSecret } from './trust.ts';

/** Long enough for a busy daemon, short enough for a start. */
const PROBE_MS = 1000;

interface Listener {
  listen(options: { path: string } | { host: string; port: number }): Promise<string>;
}

type Tcp = NonNullable<Config['control']['tcp']>;

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
  checkDirectory('control.socket', dirname(socket));
  const found = lstatSync(socket, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (found.isSymbolicLink()) throw new ConfigError(`control.socket ${socket} is a symbolic link; remove it or give another path`);
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

/** Certificates and tokens; read at start, and again by `readAgain`. */
export function tcpOptions(tcp: Tcp): AppOptions {
  const { tls } = tcp;
  return {
    access: Access.guarded(readTokens(tcp)),
    ...(tls === undefined ? {} : { tls: readTls(tls) }),
  };
}

/** Without a CA for clients nobody shows a certificate, so a `cert:` line would be a right that nobody can use. */
function readTokens({ tokens, tls }: Tcp): ReturnType<typeof readCredentials> | undefined {
  if (tokens === undefined) return undefined;
  const credentials = readCredentials(tokens);
  const named = credentials.find(({ proof }) => proof.kind === 'certificate');
  if (named !== undefined && tls?.clientCa === undefined) {
    throw new ConfigError(`${TOKENS_KEY} ${tokens}: the line of ${named.caller.name} names a certificate and control.tcp.tls.clientCa is not set, so nobody could show one; add clientCa or take the line out`);
  }
  return credentials;
}

function readTls(tls: Tls): NonNullable<AppOptions['tls']> {
  const key = 'control.tcp.tls';
  return {
    cert: readPublic(`${key}.cert`, tls.cert),
    key: readSecret(`${key}.key`, tls.key),
    clientCa: tls.clientCa === undefined ? undefined : readPublic(`${key}.clientCa`, tls.clientCa),
  };
}

/** Throws, and changes nothing, where something of it is not right. A certificate is for connections to come. */
export function readAgain(tcp: Tcp, access: Access, server: object): void {
  const credentials = readTokens(tcp);
  if (tcp.tls !== undefined && server instanceof TlsServer) {
    const { cert, key, clientCa } = readTls(tcp.tls);
    server.setSecureContext({ cert, key, minVersion: 'TLSv1.2', ...(clientCa === undefined ? {} : { ca: clientCa }) });
  }
  if (credentials !== undefined) access.replace(credentials);
}

export async function listenTcp(app: Listener, { host, port }: { host: string; port: number }): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new ConfigError(`control.tcp.listen ${host}:${port} can't be listened on (${codeOf(error)}); give a free port of an address of this machine`);
  }
}
