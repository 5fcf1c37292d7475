/**
 * Following /v1/events, or /v1/figures/live, across disconnections.
 *
 *   connect ─► messages … ─► lost ─► wait 0.1 s, 0.2 s, … 5 s ─► connect with Last-Event-ID ─► …
 *      └ first attempt fails: Unreachable or Refused is thrown
 *
 * The daemon repeats what was missed from its history, or says `gap` when it no longer can. A
 * refusal that does not pass by itself ends the following: it would be refused for ever. Events of a type
 * this version does not know are left out. It stops only by its signal, or by the loop being left.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiEvent as ApiEventSchema, Figures as FiguresSchema, checker } from '../proxy/api/contract.ts';
import type { ApiEvent, Figures } from '../proxy/api/contract.ts';
import { SseParser } from './sse.ts';
import { Refused, Unreachable } from './transport.ts';
import type { Transport } from './transport.ts';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 5000;
/** Several of the daemon's heartbeats: a stream silent for longer is dead. */
const SILENCE_MAX_MS = 60_000;

export interface EventMessage {
  readonly id: string | undefined;
  readonly event: ApiEvent;
}
export interface FollowOptions {
  readonly group?: string;
  readonly lastEventId?: string;
  readonly signal?: AbortSignal;
  /** The stream stands: told at the first connection and at each one after a loss. */
  readonly onConnected?: () => void;
  /** The stream is lost and will be tried again. */
  readonly onLost?: (reason: string) => void;
}

export async function* followEvents(transport: Transport, options: FollowOptions): AsyncGenerator<EventMessage, void> {
  for await (const { id, value } of follow(transport, '/v1/events', readEvent, options)) yield { id, event: value };
}

/** Four a second; after a break from the next one on. */
export async function* followFigures(transport: Transport, options: FollowOptions): AsyncGenerator<Figures, void> {
  for await (const { value } of follow(transport, '/v1/figures/live', readFigures, options)) yield value;
}

interface Message<T> {
  readonly id: string | undefined;
  readonly value: T;
}
type Read<T> = (value: unknown) => T | undefined;

async function* follow<T>(transport: Transport, path: string, read: Read<T>, options: FollowOptions): AsyncGenerator<Message<T>, void> {
  let lastId = options.lastEventId;
  let connectedOnce = false;
  let backoffMs = BACKOFF_FIRST_MS;
  while (options.signal?.aborted !== true) {
    try {
      for await (const message of oneStream({ transport, path, read }, lastId, options, () => {
        connectedOnce = true;
        backoffMs = BACKOFF_FIRST_MS;
        options.onConnected?.();
      })) {
        lastId = message.id ?? lastId;
        yield message;
      }
      options.onLost?.('the daemon closed the stream');
    } catch (error) {
      if (options.signal?.aborted) return;
      if (!connectedOnce || !passes(error)) throw error;
      options.onLost?.(error.message);
    }
    if (!(await pause(backoffMs, options.signal))) return;
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
  }
}

/** Not there, stopping, or with too many clients at the moment. */
function passes(error: unknown): error is Error {
  return error instanceof Unreachable || (error instanceof Refused && (error.status === 503 || error.status === 429));
}

async function* oneStream<T>(
  { transport, path, read }: { readonly transport: Transport; readonly path: string; readonly read: Read<T> },
  lastId: string | undefined,
  options: FollowOptions,
  connected: () => void,
): AsyncGenerator<Message<T>, void> {
  const reply = await transport.open('GET', path, {
    headers: { accept: 'text/event-stream', ...(lastId === undefined ? {} : { 'last-event-id': lastId }) },
    bodyTimeoutMs: SILENCE_MAX_MS,
    ...(options.group === undefined ? {} : { query: { group: options.group } }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  if (reply.statusCode !== 200) throw await transport.refusal(reply);
  connected();
  const parser = new SseParser();
  reply.body.setEncoding('utf8');
  try {
    for await (const chunk of reply.body) {
      for (const { id, data } of parser.push(String(chunk))) {
        const value = read(maybeJson(data));
        if (value !== undefined) yield { id, value };
      }
    }
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Unreachable('the event stream broke off', 'see that sluiced runs', error);
  } finally {
    reply.body.destroy();
  }
}

let checkEvent: ReturnType<typeof checker<typeof ApiEventSchema>> | undefined;
let checkFigures: ReturnType<typeof checker<typeof FiguresSchema>> | undefined;

function readEvent(value: unknown): ApiEvent | undefined {
  checkEvent ??= checker(ApiEventSchema);
  const parsed = checkEvent(value);
  return parsed.ok ? parsed.value : undefined;
}

function readFigures(value: unknown): Figures | undefined {
  checkFigures ??= checker(FiguresSchema);
  const parsed = checkFigures(value);
  return parsed.ok ? parsed.value : undefined;
}

function maybeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** False when the signal ended the pause. */
async function pause(ms: number, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
    return true;
  } catch {
    return false;
  }
}
