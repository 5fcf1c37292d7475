/**
 * The relay: stands between an engine and the daemon on a socket of its own, writes down when each
 * command went in and was answered, and lets a test act between the two.
 *
 *   engine ─ http ─► relay ─ `before` ─ http ─► sluiced
 *                      ◄──── `after` ──────────────┘
 *
 * What it writes down is the outside oracle's knowledge of the commands: begin is before the daemon
 * can have read it, end after it has answered. Everything is passed on as it is, event streams too.
 * It adds a fraction of a millisecond to a command, so figures are not taken through it.
 */
import { createServer, request as ask, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { rmSync } from 'node:fs';
import { nowUs } from '../bed/libc.ts';

export interface Command {
  readonly verb: string;
  readonly epoch: number;
  readonly generation: number;
  readonly beginUs: number;
  /** Undefined while, or where no answer ever came. */
  endUs: number | undefined;
  accepted: boolean;
}

const VERB = /^\/v1\/groups\/[^/]+\/(protect|cut|ack|commit|rollback|takeover|unprotect)(\?|$)/;

export class Relay {
  readonly socket: string;
  readonly commands: Command[] = [];
  /** Before a command is passed on. */
  before: ((command: Command) => void) | undefined;
  /** After the daemon's answer, before the engine gets it. */
  after: ((command: Command) => void) | undefined;
  readonly #daemon: string;
  readonly #server: Server;

  private constructor(socket: string, daemon: string) {
    this.socket = socket;
    this.#daemon = daemon;
    this.#server = createServer((question, answer) => void this.#pass(question, answer));
  }

  static async create(socket: string, daemon: string): Promise<Relay> {
    const relay = new Relay(socket, daemon);
    rmSync(socket, { force: true });
    await new Promise<void>((resolve, reject) => {
      relay.#server.once('error', reject);
      relay.#server.listen(socket, resolve);
    });
    return relay;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #pass(question: IncomingMessage, answer: ServerResponse): Promise<void> {
    const body = await whole(question).catch(() => undefined);
    if (body === undefined) return;
    const command = this.#note(question.url ?? '', body);
    if (command !== undefined) this.before?.(command);
    const passed = ask({
      socketPath: this.#daemon, method: question.method, path: question.url, headers: question.headers,
    });
    passed.on('error', () => question.socket.destroy());
    passed.on('response', (reply) => {
      if (command !== undefined) {
        command.endUs = nowUs();
        command.accepted = reply.statusCode === 200;
        this.after?.(command);
      }
      answer.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(answer);
    });
    answer.on('close', () => passed.destroy());
    passed.end(body);
  }

  #note(path: string, body: Buffer): Command | undefined {
    const verb = VERB.exec(path)?.[1];
    if (verb === undefined) return undefined;
    const { epoch = 0, generation = 0 } = JSON.parse(body.toString() || '{}') as { epoch?: number; generation?: number };
    const command: Command = { verb, epoch, generation, beginUs: nowUs(), endUs: undefined, accepted: false };
    this.commands.push(command);
    return command;
  }
}

async function whole(message: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of message) if (Buffer.isBuffer(part)) parts.push(part);
  return Buffer.concat(parts);
}
