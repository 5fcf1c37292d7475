/**
 * What every command of `sluice` gets: where to write, which daemon to talk to, how to fail.
 *
 * Exit codes (a contract): 0 done · 1 refused or failed · 2 bad usage · 3 daemon not reachable.
 */
import { readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import type { CommandReply } from '../../proxy/api/contract.ts';
import { Refused, SluiceClient, SOCKET_DEFAULT, Unreachable } from '../client.ts';
import type { Target } from '../client.ts';
import { bytesText, maybeDurationMs, msText } from '../format.ts';
import { FileProblem } from '../group-file.ts';

const CONNECT_AGAIN_MS = 100;
export const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3 } as const;

/** The command line itself is wrong, in a way commander cannot see. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
/** It did not work, for a reason in one sentence. */
export class Failure extends Error {
  override readonly name = 'Failure';
}

export interface GlobalOptions {
  readonly socket?: string;
  readonly url?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Milliseconds. */
  readonly connectTimeout?: number;
  readonly json?: boolean;
}

/** One run of the command line. Closed once, at its end. */
export class Context {
  exitCode: number = EXIT.done;
  private opened: SluiceClient | undefined;

  /** The daemon that the global options name; connects at the first request. */
  client(command: Command): SluiceClient {
    this.opened ??= new SluiceClient(targetOf(command.optsWithGlobals<GlobalOptions>()));
    return this.opened;
  }

  /** Waits for a daemon that is just starting, no longer than it was told to; who is not there then is the command's to say. */
  async maybeWait(command: Command): Promise<void> {
    const { connectTimeout } = command.optsWithGlobals<GlobalOptions>();
    if (connectTimeout === undefined) return;
    const endMs = performance.now() + connectTimeout;
    while (performance.now() < endMs) {
      const isAway = await this.client(command).readyz().then(() => false, (error: unknown) => error instanceof Unreachable);
      if (!isAway) return;
      await sleep(CONNECT_AGAIN_MS);
    }
  }

  isJson(command: Command): boolean {
    return command.optsWithGlobals<GlobalOptions>().json === true;
  }

  out(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  /** The raw value under --json, the text for a person otherwise. */
  show(command: Command, value: unknown, text: () => string): void {
    this.out(this.isJson(command) ? JSON.stringify(value) : text());
  }

  async close(): Promise<void> {
    await this.opened?.close();
  }
}

export function targetOf(options: GlobalOptions): Target {
  const token = tokenOf(options);
  const shared = token === undefined ? {} : { token };
  if (options.url === undefined) return { socket: options.socket ?? process.env['SLUICE_CONTROL_SOCKET'] ?? SOCKET_DEFAULT, ...shared };
  if (!URL.canParse(options.url) || !/^https?:$/.test(new URL(options.url).protocol)) {
    throw new UsageError(`--url ${options.url}: expected https://HOST:PORT`);
  }
  const tls = {
    ...(options.ca === undefined ? {} : { ca: pem(options.ca, '--ca') }),
    ...(options.cert === undefined ? {} : { cert: pem(options.cert, '--cert') }),
    ...(options.key === undefined ? {} : { key: pem(options.key, '--key') }),
  };
  return { url: options.url, ...shared, tls };
}

/** What is said on the command line goes before the environment, each token before its file. */
function tokenOf(options: GlobalOptions): string | undefined {
  if (options.token !== undefined) return options.token;
  if (options.tokenFile !== undefined) return secret(options.tokenFile, '--token-file');
  const { SLUICE_TOKEN: token, SLUICE_TOKEN_FILE: file } = process.env;
  return token ?? (file === undefined ? undefined : secret(file, 'SLUICE_TOKEN_FILE'));
}

function secret(path: string, from: string): string {
  const text = pem(path, from).trim();
  if ((statSync(path).mode & 0o007) !== 0) throw new UsageError(`${from} ${path}: everyone can read it; chmod 600 ${path}`);
  if (!/^\S+$/.test(text)) throw new UsageError(`${from} ${path}: expected one token and nothing else`);
  return text;
}

function pem(path: string, flag: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${flag} ${path}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : 'cannot be read'}`);
  }
}

/** What went wrong, for stderr, and the exit code that goes with it. */
export function describeError(error: unknown): { readonly exitCode: number; readonly lines: readonly string[] } {
  if (error instanceof Unreachable) return { exitCode: EXIT.unreachable, lines: [error.message, error.fix] };
  if (error instanceof Refused) return { exitCode: EXIT.failed, lines: [`${error.message} (${error.code})`] };
  if (error instanceof UsageError) return { exitCode: EXIT.usage, lines: [error.message] };
  if (error instanceof FileProblem || error instanceof Failure) return { exitCode: EXIT.failed, lines: [error.message] };
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: EXIT.failed, lines: ['internal error; please report it with what follows', text] };
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('expected a whole number');
  return value;
}

/** The same for a number that is no option of its own. */
export function mustNumber(text: string, what: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new UsageError(`${what} "${text}": expected a whole number`);
  return value;
}

export function duration(text: string): number {
  const ms = maybeDurationMs(text);
  if (ms === undefined) throw new InvalidArgumentError('expected a duration, as 25ms, 1.5s or 800us');
  return ms;
}

/** One line for a person: what the group is after a command. */
export function replyLine(reply: CommandReply): string {
  const { held, dropped } = reply;
  const lost = dropped.overflow + dropped.discarded + dropped.refused;
  return [
    `${reply.group} ${reply.outcome}`,
    `generation ${reply.generation}`,
    `open ${reply.open}`,
    `sealed ${reply.sealed}`,
    `acked ${reply.acked}`,
    `committed ${reply.committed}`,
    `released ${reply.released}`,
    held.frames === 0 ? 'held 0' : `held ${held.frames} (${bytesText(held.bytes)}, oldest ${msText(held.oldestMs)})`,
    `dropped ${lost}`,
  ].join('  ');
}
