/**
 * Other programs: run one to its end, or start one and own its end.
 *
 * Programs run in a bed's namespace through `nsenter --net`, which keeps the mount namespace (and
 * so bpffs); `ip netns exec` would hide it.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';

const OUTPUT_BYTES_MAX = 64 << 20;

export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** Runs to the end; its standard output. A failure carries what it said on standard error. */
export function run(program: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new CommandError(`${program} ${args.join(' ')}: ${stderr.trim() || stdout.trim() || error.message}`));
    });
    if (input !== undefined) child.stdin?.end(input);
  });
}

export const namespacePath = (name: string): string => `/run/netns/${name}`;

export const runIn = (namespace: string, program: string, args: readonly string[], input?: string): Promise<string> =>
  run('nsenter', [`--net=${namespacePath(namespace)}`, program, ...args], input);

/** `ip -batch`: many changes in one process. The first that fails stops it. */
export const ipBatch = (namespace: string | undefined, lines: readonly string[]): Promise<string> =>
  run('ip', [...(namespace === undefined ? [] : ['-n', namespace]), '-batch', '-'], lines.join('\n') + '\n');

/** A running program with all it has said. */
export interface Running {
  readonly child: ChildProcess;
  output(): string;
  /** Exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
}

const SAID_BYTES_MAX = 4 << 20; // older output is forgotten

export function start(program: string, args: readonly string[], env: Record<string, string> = {}): Running {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let said = '';
  const hear = (chunk: Buffer): void => {
    said += chunk.toString();
    if (said.length > SAID_BYTES_MAX) said = said.slice(-SAID_BYTES_MAX / 2);
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  const ended = new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
  return { child, output: () => said, ended };
}

export const startIn = (namespace: string, program: string, args: readonly string[], env?: Record<string, string>): Running =>
  start('nsenter', [`--net=${namespacePath(namespace)}`, program, ...args], env);

/** Ends a program by signal and waits; a program that does not listen is killed after `graceMs`. */
export async function end(running: Running, signal: NodeJS.Signals = 'SIGTERM', graceMs = 5000): Promise<number | string> {
  if (running.child.exitCode === null && running.child.signalCode === null) {
    running.child.kill('SIGCONT');
    running.child.kill(signal);
  }
  const timer = setTimeout(() => running.child.kill('SIGKILL'), graceMs);
  try {
    return await running.ended;
  } finally {
    clearTimeout(timer);
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `ready` says true; throws with `what` after `timeoutMs`. */
export async function until(what: string, ready: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await ready())) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await sleep(5);
  }
}
