/**
 * The daemon's side of the plane's child: starts it, talks to it, ends it.
 *
 *   start ─► running ─► SIGKILL by `stop`      ─► stopped
 *                └────► ended by itself, killed ─► dead: the daemon must end (nobody forwards)
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
import type { Shared } from './layout.ts';
import { Unpacker, packed } from './protocol.ts';
import type { PortWanted, SwitchRequest, ToChild } from './protocol.ts';

/** A process runs compiled code, also when this file itself is run from its source (tests). */
const CHILD = new URL(import.meta.url.endsWith('.ts') ? '../../dist/proxy/switch/switch-child.js' : './switch-child.js', import.meta.url);
const DAEMON_FD = 3;
/** What it said last, for the reason of its death. */
const SAID_BYTES_MAX = 4096;

export class ChildLink extends HoldDesk {
  readonly #child: ChildProcess;
  readonly #stream: Socket;
  readonly #shared: Shared;
  readonly #gone: Promise<void>;
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
    await this.#askSwitch({ op: 'catchUp' });
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
      this.ended(reason);
    }
    then();
  }
}

type SwitchAsked = SwitchRequest extends infer R ? (R extends { call: number } ? Omit<R, 'call'> : never) : never;

const firstLineOf = (said: string): string => {
  const line = said.split('\n').find((one) => one.includes('Error')) ?? '';
  return line === '' ? '' : `: ${line.trim()}`;
};
