/**
 * The daemon's side of the plane's child: starts it, talks to it, ends it.
 *
 *   start ─► running ─► SIGKILL by `stop`      ─► stopped
 *                └────► ended by itself, killed ─► dead: the daemon must end (nobody forwards)
 *
 * A child that lives and does not answer (frozen, or out of processor time) is asked every BEAT_MS
 * whether it is there: `silence` says it, and what needs its word is refused within CAUGHT_UP_MS_MAX
 * instead of waiting for ever. It may come back; nothing is forwarded until then.
 *
 * It is the hold plane (HoldDesk), and passes on what the gate's kernel says. The child ends with
 * the daemon, whatever ends that. Nothing is kept for a child that is gone.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { HoldDesk } from '../plane/desk.ts';
import type { Meter } from '../plane/meter.ts';
import type { Message, Request } from '../plane/protocol.ts';
import { EdgeError } from '../ports.ts';
import type { GroupId, HeldEpoch, HeldFrame } from '../ports.ts';
import type { Shared } from './layout.ts';
import { Unpacker, packed } from './protocol.ts';
import type { PortWanted, SwitchRequest, ToChild } from './protocol.ts';

/** A process runs compiled code, also when this file itself is run from its source (tests). */
const CHILD = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/switch/switch-child.js' : './switch-child.js', import.meta.url);
const DAEMON_FD = 3;
/** What it said last, for the reason of its death. */
const SAID_BYTES_MAX = 4096;
const BEAT_MS = 500;
/** A child that has not answered for so long is silent: on a busy machine it may be late. */
const SILENT_MS = 3000;
const CAUGHT_UP_MS_MAX = 5000;

export class ChildLink extends HoldDesk {
  readonly #child: ChildProcess;
  readonly #stream: Socket;
  readonly #shared: Shared;
  readonly #gone: Promise<void>;
  readonly #beats: NodeJS.Timeout;
  /** When the question was asked that is not answered yet. */
  #askedAtMs: number | undefined;
  #running = true;
  #said = '';

  constructor(memory: string, shared: Shared) {
    super();
    this.#shared = shared;
    this.#child = spawn(process.execPath, [fileURLToPath(CHILD), memory], { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] });
    const stream = this.#child.stdio[DAEMON_FD];
    if (!(stream instanceof Socket)) throw new EdgeError('plane_down', 'the plane\'s child could not be started', 'see that the machine has processes and memory left');
    this.#stream = stream;
    const inbox = new Unpacker();
    this.#stream.on('data', (chunk: Buffer) => {
      inbox.add(chunk);
      for (let message = inbox.next(); message !== undefined; message = inbox.next()) this.receive(message as Message);
    });
    this.#stream.on('error', () => undefined); // its end is told by 'exit'
    this.#child.stderr?.on('data', (chunk: Buffer) => { this.#said = (this.#said + chunk.toString()).slice(-SAID_BYTES_MAX); });
    this.#beats = setInterval(() => { this.#beat(); }, BEAT_MS).unref();
    this.#gone = new Promise((resolve) => {
      this.#child.once('error', (error) => { this.#exited(error.message, resolve); });
      this.#child.once('close', (code, signal) => { this.#exited(`the plane's child ended with ${code ?? signal}${firstLineOf(this.#said)}`, resolve); });
    });
  }

  // ------------------------------------------------------------------------------- the switch

  say(request: Exclude<SwitchRequest, { call: number }>): void {
    this.#write(request);
  }
  /** Everything said before has been done. */
  async passed(): Promise<void> {
    await this.#askSwitch({ op: 'passed' });
  }
  /** Every frame that was at a port before has been decided. */
  async caughtUp(): Promise<void> {
    this.#mustAnswer();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => { reject(silent(`the plane's child has not read its ports up within ${CAUGHT_UP_MS_MAX} ms`)); }, CAUGHT_UP_MS_MAX);
    });
    try {
      await Promise.race([this.#askSwitch({ op: 'catchUp' }), late]);
    } finally {
      clearTimeout(timer);
    }
  }
  override async held(id: GroupId): Promise<readonly HeldEpoch[]> {
    this.#mustAnswer();
    return super.held(id);
  }
  override async *dump(id: GroupId, bytesMax: number): AsyncGenerator<readonly HeldFrame[], void, undefined> {
    this.#mustAnswer();
    yield* super.dump(id, bytesMax);
  }
  #mustAnswer(): void {
    const silence = this.silence();
    if (silence !== undefined) throw silent(silence);
  }
  /** One sentence while the child lives and does not answer. */
  silence(): string | undefined {
    if (!this.#running || this.#askedAtMs === undefined) return undefined;
    const ms = performance.now() - this.#askedAtMs;
    return ms < SILENT_MS ? undefined : `the plane's child has not answered for ${Math.round(ms / 1000)} s: nothing is forwarded`;
  }
  #beat(): void {
    if (this.#askedAtMs !== undefined) return;
    this.#askedAtMs = performance.now();
    this.passed().then(() => { this.#askedAtMs = undefined; }, () => undefined); // its end is told by 'exit'
  }
  /** Returns the ifindexes of those that are open now. */
  async serve(ports: readonly PortWanted[]): Promise<readonly number[]> {
    return (await this.#askSwitch({ op: 'ports', ports })) as readonly number[];
  }
  #askSwitch(request: SwitchAsked): Promise<unknown> {
    return this.askWith((call) => { this.#write({ ...request, call }); });
  }

  // ---------------------------------------------------------------------------------- the desk

  protected override meterOf(id: number): Meter {
    return this.#shared.meter(id).clear();
  }
  protected override post(request: Request): void {
    this.#write(request.op === 'open' ? { ...request, meter: new ArrayBuffer(0) } : request); // it has the same memory
  }
  protected override async end(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  #write(request: ToChild): void {
    if (this.#running && !this.#stream.destroyed) this.#stream.write(packed(request));
  }
  #exited(reason: string, then: () => void): void {
    if (this.#running) {
      this.#running = false;
      clearInterval(this.#beats);
      this.ended(reason);
    }
    then();
  }
}

type SwitchAsked = SwitchRequest extends infer R ? (R extends { call: number } ? Omit<R, 'call'> : never) : never;

const silent = (message: string): EdgeError =>
  new EdgeError('plane_down', message, 'see whether it was stopped (SIGCONT) or the machine has no processor time for it; the command may be given again');

const firstLineOf = (said: string): string => {
  const line = said.split('\n').find((one) => one.includes('Error')) ?? '';
  return line === '' ? '' : `: ${line.trim()}`;
};
