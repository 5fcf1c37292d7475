/**
 * A daemon to talk to, without kernel: the real app over the real core on a unix socket of its own;
 * and `sluice` as a process, compiled if the build is not older than the source.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { buildApp } from '../../proxy/api/app.ts';
import type { AppOptions } from '../../proxy/api/app.ts';
import { OPEN, world } from './memory-control.ts';
import type { World } from './memory-control.ts';

const root = resolve(import.meta.dirname, '../..');

export interface Served extends World {
  readonly socket: string;
  readonly dir: string;
  /** Ends the daemon; `start` begins another on the same socket and the same groups. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** stop, and remove the directory. */
  remove(): Promise<void>;
}

export async function serve(options: AppOptions = OPEN): Promise<Served> {
  const dir = mkdtempSync(join(tmpdir(), 'sl-cli-'));
  const socket = join(dir, 'control.sock');
  const made = world();
  let app: Awaited<ReturnType<typeof buildApp>> | undefined;
  const start = async (): Promise<void> => {
    app = await buildApp(made.deps, options);
    await app.listen({ path: socket });
  };
  const stop = async (): Promise<void> => {
    await app?.close();
    app = undefined;
  };
  await start();
  const remove = async (): Promise<void> => {
    await stop();
    rmSync(dir, { recursive: true, force: true });
  };
  return Object.assign(made, { socket, dir, start, stop, remove });
}

/** When any of these was last written. */
function newestMs(path: string): number {
  if (!statSync(path).isDirectory()) return statSync(path).mtimeMs;
  return Math.max(...readdirSync(path).map((name) => newestMs(join(path, name))));
}

function cliArgs(): readonly string[] {
  const built = join(root, 'dist/checkpoint-hooks/cli.js');
  const contract = readdirSync(join(root, 'proxy/api')).filter((name) => name.startsWith('contract')).map((name) => `proxy/api/${name}`);
  const sourceMs = Math.max(...['checkpoint-hooks', 'classifier/rules.ts', ...contract].map((path) => newestMs(join(root, path))));
  if (existsSync(built) && statSync(built).mtimeMs > sourceMs) return [built];
  return ['--import', 'tsx', join(root, 'checkpoint-hooks/cli.ts')];
}
const cli = cliArgs();
/** The same, for scripts that are told what to call. */
export const cliCommand = (socket: string): string => [process.execPath, ...cli, '--socket', socket].join(' ');

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export function sluice(args: readonly string[], env: Record<string, string> = {}, input?: string): Promise<Ran> {
  return new Promise((done) => {
    const child = execFile(process.execPath, [...cli, ...args], { cwd: root, env: { ...process.env, ...env }, maxBuffer: 1 << 26 }, (error, out, err) => {
      done({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : 128, out, err });
    });
    if (input !== undefined) child.stdin?.end(input);
  });
}

export function spawnSluice(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [...cli, ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
}

export const WEB = `group: web
commit: explicit
members:
  - { name: front, port: tap0, mac: "02:00:00:00:00:01" }
  - name: store
    nics:
      - { port: tap1, mac: "02:00:00:00:00:02" }
      - { port: tap2, mac: "02:00:00:00:00:03", vlan: 100 }
`;
