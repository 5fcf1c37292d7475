/**
 * GET /v1/events and /v1/figures/live: server-sent events over a connection of its own.
 *
 *     hub, sampler ──► write ──► socket buffer ──► client
 *                         └─ more than QUEUE_BYTES_MAX still waiting: the client is closed
 *
 * The queue of a client is its socket's: bounded by that and one message (a picture of many groups is
 * longer than the bound), and never waited for. A client that was closed
 * comes back with Last-Event-ID and misses nothing while the history reaches back. A comment every
 * HEARTBEAT_MS keeps middle boxes from closing a quiet connection. It does not retry or acknowledge.
 */
import type { ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Access } from './access.ts';
import { callerOf, may } from './caller.ts';
import type { Caller } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import type { Stamped } from './events.ts';
import { FigureSampler, seenBy } from './figures.ts';
import { Refused } from './refuse.ts';

const HEARTBEAT_MS = 15_000;
/** Bytes waiting for one client when there is more to say; beyond it the client is closed. */
const QUEUE_BYTES_MAX = 256 * 1024;
/** A picture is left out while the last one is under way; beyond ten seconds the client is slow. */
const PICTURES_SKIPPED_MAX = 40;
const CLIENTS_MAX = 64;
/** Share of them that one caller of the network may take: the others' engines need theirs. */
const CALLER_SHARE = 0.5;

export interface SseOptions {
  readonly heartbeatMs?: number;
  readonly queueBytesMax?: number;
  readonly clientsMax?: number;
}

export class EventStreams {
  readonly #deps: ApiDeps;
  readonly #queueBytesMax: number;
  readonly #clientsMax: number;
  readonly #clients = new Map<ServerResponse, string>();
  readonly #callerMax: number;
  readonly #timer: NodeJS.Timeout;
  readonly #figures: FigureSampler;
  #closing = false;

  constructor(deps: ApiDeps, options: SseOptions & { readonly access: Access }) {
    this.#deps = deps;
    this.#figures = new FigureSampler(deps);
    this.#queueBytesMax = options.queueBytesMax ?? QUEUE_BYTES_MAX;
    this.#clientsMax = options.clientsMax ?? CLIENTS_MAX;
    this.#callerMax = options.access.isOpen ? this.#clientsMax : Math.ceil(this.#clientsMax * CALLER_SHARE);
    this.#timer = setInterval(() => this.#beat(), options.heartbeatMs ?? HEARTBEAT_MS);
    this.#timer.unref();
  }

  /** Events from now on, or from the one after Last-Event-ID. */
  open(request: FastifyRequest, reply: FastifyReply, group: string | undefined): void {
    const last = request.headers['last-event-id'];
    const caller = callerOf(request);
    const raw = this.#take(reply, caller);
    const send = (stamped: Stamped): void => {
      const about = stamped.event.group;
      const mine = group === undefined || about === undefined || about === group;
      const shown = stamped.event.type === 'gap' || may(caller, 'observe', about);
      if (mine && shown) this.#write(raw, stamped.text);
    };
    if (typeof last === 'string') for (const missed of this.#deps.events.since(last, Date.now())) send(missed);
    raw.once('close', this.#deps.events.subscribe(send));
  }

  /** A picture at once and then several a second; nothing is repeated after a break. */
  openFigures(request: FastifyRequest, reply: FastifyReply, group: string | undefined): void {
    const caller = callerOf(request);
    const raw = this.#take(reply, caller);
    let skipped = 0;
    raw.once('close', this.#figures.watch((figures) => {
      if (raw.writableLength > 0 && skipped++ < PICTURES_SKIPPED_MAX) return;
      skipped = 0;
      this.#write(raw, `event: figures\ndata: ${JSON.stringify(seenBy(caller, figures, group))}\n\n`);
    }));
  }

  /** Takes the connection over from fastify; it stays open until either side closes it. */
  #take(reply: FastifyReply, { name }: Caller): ServerResponse {
    if (this.#closing) throw new Refused('stopping', 'the daemon is stopping');
    if (this.#clients.size >= this.#clientsMax) {
      throw new Refused('too_many_clients', `${this.#clientsMax} clients follow events already; close one first`);
    }
    if ([...this.#clients.values()].filter((one) => one === name).length >= this.#callerMax) {
      throw new Refused('too_many_clients', `${name} follows events ${this.#callerMax} times already; close one first`);
    }
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
    raw.write('retry: 1000\n\n');
    this.#clients.set(raw, name);
    raw.once('close', () => this.#clients.delete(raw));
    // A reset connection is an ordinary end; `close` follows and cleans up.
    raw.on('error', () => raw.destroy());
    return raw;
  }

  /** Ends every stream; clients come again, and show again who they are. */
  drop(): void {
    for (const raw of this.#clients.keys()) raw.end();
  }

  /** Ends every stream: the daemon stops. */
  close(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    for (const raw of this.#clients.keys()) raw.end();
  }

  #write(raw: ServerResponse, text: string): void {
    if (raw.destroyed || raw.writableEnded) return;
    if (raw.writableLength <= this.#queueBytesMax) return void raw.write(text);
    this.#deps.metrics.slowClient();
    this.#deps.log.info({ queuedBytes: raw.writableLength }, 'an event client was too slow and is closed');
    raw.destroy();
  }

  #beat(): void {
    for (const raw of this.#clients.keys()) if (raw.writableLength === 0) this.#write(raw, ': beat\n\n');
  }
}
