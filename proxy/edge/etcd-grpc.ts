/**
 * etcd's gRPC API over Node's own HTTP/2: one call, one watch, over whichever endpoint answers.
 *
 *    call ─► endpoint in use ─┬─ answer
 *                             └─ late (CALL_MS) or refused ─► the next endpoint is in use from now on; EdgeError
 *
 * Nothing waits longer than its deadline (`Patience`): without one, a call to a leader that was killed
 * hangs for seconds; nor for a connection that does not come about. Whether a call that failed took effect is not known; who makes it must be able to make it
 * again. Which of two endpoints has the truth is not asked: reads and writes are linearizable by
 * default, so a member cut off from the others fails them. Only a watch can be served a stale
 * silence; `etcd-ledger.ts` notices by its own heartbeat.
 *
 * All calls share a connection, a watch has one of its own. A call that was late makes its connection
 * doubtful: what is under way there ends as it can, the next call makes a new one.
 */
import { connect, constants } from 'node:http2';
import { connect as connectTcp, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders, IncomingHttpStatusHeader } from 'node:http2';
import { EdgeError } from '../ports.ts';
import type { Method } from './etcd-messages.ts';
import { whyOf } from './etcd-tls.ts';
import type { EtcdTls } from './etcd-tls.ts';

export interface EtcdConfig {
  /** http(s)://host:port each. */
  readonly endpoints: readonly string[];
  readonly tls: EtcdTls | undefined;
}

export const CALL_MS = 400;
/** A longer message ends its stream. 1,000 groups' heads fit, and 1,000 revisions of 100 acks, which etcd tells a watch at once. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** What may be under way to us without our word: a burst of a watch is not held up by a round trip. */
const WINDOW_BYTES = 1024 * 1024;
/** A doubtful connection: its calls have ended by their own deadlines by then. */
const DOUBTFUL_MS = 2 * CALL_MS;

export class EtcdGrpc {
  readonly #endpoints: readonly string[];
  #tls: EtcdTls | undefined;
  #at = 0;
  /** Of calls; undefined = the next one makes it. */
  #link: Link | undefined;
  readonly #links = new Set<Link>();
  #isClosed = false;

  constructor({ endpoints, tls }: EtcdConfig) {
    this.#endpoints = endpoints;
    this.#tls = tls;
  }

  /** Other certificates, from the next connection on; what is under way ends as it is. */
  show(tls: EtcdTls | undefined): void {
    this.#tls = tls;
    this.#doubt(this.#link);
  }

  get endpoint(): string {
    return this.#endpoints[this.#at % this.#endpoints.length] ?? '';
  }
  /** The next one from now on, unless somebody went on already. */
  avoid(endpoint: string): void {
    if (endpoint === this.endpoint) this.#at += 1;
  }

  /** Throws EdgeError('ledger_down'). */
  async call<Q, A>(method: Method<Q, A>, question: Q, ms = CALL_MS): Promise<A> {
    const { endpoint } = this;
    const patience = new Patience(ms);
    let link: Link | undefined;
    try {
      link = this.#linkTo(endpoint);
      return await Promise.race([link.ask(method, question, patience.signal), patience.over]);
    } catch (error) {
      if (!(error instanceof Said)) this.#doubt(link);
      if (!(error instanceof Said) || error.isOfNode) this.avoid(endpoint);
      throw this.#ledgerDown(endpoint, error);
    } finally {
      patience.end();
    }
  }

  /** Each answer of a stream as it comes; ends by an error, or by `signal`. */
  async *stream<Q, A>(method: Method<Q, A>, question: Q, signal: AbortSignal): AsyncGenerator<A, void, undefined> {
    const { endpoint } = this;
    const patience = new Patience(CALL_MS);
    let link: Link | undefined;
    const end = (): void => { link?.end(); };
    patience.signal.addEventListener('abort', () => { if (link?.isThere === false) link.end(asError(patience.signal.reason)); }, { once: true });
    signal.addEventListener('abort', end, { once: true });
    try {
      link = this.#open(endpoint);
      yield* link.follow(method, question);
      throw new Error('the stream ended');
    } catch (error) {
      if (!signal.aborted) this.avoid(endpoint);
      throw this.#ledgerDown(endpoint, error);
    } finally {
      patience.end();
      signal.removeEventListener('abort', end);
      end();
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const link of this.#links) link.end();
  }

  #linkTo(endpoint: string): Link {
    const known = this.#link;
    if (known?.endpoint === endpoint && known.isUsable) return known;
    this.#doubt(known);
    return (this.#link = this.#open(endpoint));
  }
  #open(endpoint: string): Link {
    if (this.#isClosed) throw new Error('this daemon is ending');
    const link = new Link(endpoint, this.#tls, () => this.#links.delete(link));
    this.#links.add(link);
    return link;
  }
  #doubt(link: Link | undefined): void {
    if (link === undefined) return;
    if (link === this.#link) this.#link = undefined;
    link.endSoon();
  }

  #ledgerDown(endpoint: string, error: unknown): EdgeError {
    const why = whyOf(error, this.#tls, Date.now());
    const fix = /database space exceeded/.test(why) ? FULL_FIX : 'ask again; when it stays so, look at etcd: frames stay held';
    return new EdgeError('ledger_down', `etcd at ${endpoint} did not do it: ${why}`, fix, error);
  }
}

const FULL_FIX = 'etcdctl compact to its newest revision, etcdctl defrag, etcdctl alarm disarm; and start each node with --auto-compaction-mode periodic --auto-compaction-retention 5m, for it keeps every ack until it is compacted';

/** etcd's own words: the connection is well. */
class Said extends Error {
  override readonly name = 'Said';
  /** Another node may do it: late or unavailable, of gRPC's status codes. */
  readonly isOfNode: boolean;
  constructor(status: string, message: string) {
    super(message);
    this.isOfNode = status === '4' || status === '14';
  }
}

/** One connection. */
class Link {
  readonly endpoint: string;
  readonly #session: ClientHttp2Session;
  /** A session that is destroyed leaves it to a peer that may never answer. */
  readonly #socket: Socket;
  /** Connected. */
  isThere = false;
  #why: Error | undefined;
  #isDoubtful = false;

  constructor(endpoint: string, tls: EtcdTls | undefined, gone: () => void) {
    this.endpoint = endpoint;
    const socket = socketTo(endpoint, tls);
    this.#socket = socket;
    this.#session = connect(endpoint, { createConnection: () => socket, settings: { initialWindowSize: WINDOW_BYTES, enablePush: false } });
    this.#session.on('connect', () => {
      if (this.#session.destroyed) return; // it was given up in that very moment
      this.isThere = true;
      this.#session.setLocalWindowSize(WINDOW_BYTES);
    });
    this.#session.on('error', (error: Error) => { this.#why ??= error; });
    this.#session.on('close', gone);
  }

  get isUsable(): boolean {
    return !this.#isDoubtful && !this.#session.closed && !this.#session.destroyed;
  }
  end(why?: Error): void {
    this.#why ??= why;
    this.#session.destroy();
    this.#socket.destroy();
  }
  /** What is under way ends first. */
  endSoon(): void {
    if (this.#isDoubtful) return;
    this.#isDoubtful = true;
    if (this.isThere) this.#session.close();
    setTimeout(() => { this.end(); }, DOUBTFUL_MS).unref();
  }

  /** One question, one answer. */
  async ask<Q, A>(method: Method<Q, A>, question: Q, signal: AbortSignal): Promise<A> {
    const stream = this.#begin(method.path);
    const giveUp = (): void => { stream.close(constants.NGHTTP2_CANCEL); };
    signal.addEventListener('abort', giveUp, { once: true });
    stream.end(framed(method.encode(question)));
    let answer: A | undefined;
    for await (const message of this.#messagesOf(stream)) answer = method.decode(message);
    signal.removeEventListener('abort', giveUp);
    if (answer === undefined) throw new Error('it ended without an answer');
    return answer;
  }
  /** One question, answers until it ends. */
  async *follow<Q, A>(method: Method<Q, A>, question: Q): AsyncGenerator<A, void, undefined> {
    const stream = this.#begin(method.path);
    stream.write(framed(method.encode(question)));
    for await (const message of this.#messagesOf(stream)) yield method.decode(message);
  }

  #begin(path: string): ClientHttp2Stream {
    const stream = this.#session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc+proto', te: 'trailers' });
    stream.on('error', () => undefined); // also of one that nobody waits for any more, when its connection ends
    return stream;
  }

  /** Ends where etcd says that all was well; throws what it said else, or why the connection ended. */
  async *#messagesOf(stream: ClientHttp2Stream): AsyncGenerator<Buffer, void, undefined> {
    let said: IncomingHttpHeaders = {};
    let status: number | undefined;
    stream.on('response', (headers: IncomingHttpHeaders & IncomingHttpStatusHeader) => {
      said = headers;
      status = headers[':status'];
    });
    stream.on('trailers', (headers: IncomingHttpHeaders) => { said = { ...said, ...headers }; });
    try {
      yield* messagesOf(stream);
    } catch (error) {
      throw this.#why ?? causeOf(error);
    }
    const outcome = said['grpc-status'];
    if (outcome === '0') return;
    if (outcome !== undefined) throw new Said(String(outcome), plain(String(said['grpc-message'] ?? `status ${String(outcome)}`)));
    throw this.#why ?? (status === undefined || status === OK ? new Closed() : new Error(`it answered ${status}: is that an etcd?`));
  }
}

function socketTo(endpoint: string, tls: EtcdTls | undefined): Socket {
  const { protocol, hostname, port } = new URL(endpoint);
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol !== 'https:') return connectTcp({ host, port: Number(port === '' ? '80' : port) });
  const shown = tls?.cert === undefined || tls.key === undefined ? {} : { cert: tls.cert, key: tls.key };
  return connectTls({ host, port: Number(port === '' ? '443' : port), ALPNProtocols: ['h2'], ...(isIP(host) === 0 ? { servername: host } : {}), ...(tls === undefined ? {} : { ca: tls.ca }), ...shown });
}

/** Percent-encoded, by who keeps to the rule. */
function plain(message: string): string {
  try {
    return decodeURIComponent(message);
  } catch {
    return message;
  }
}

class Closed extends Error {
  readonly code = 'ECONNRESET';
  constructor() {
    super('the connection was closed');
  }
}
/** A stream that waits for its connection is cancelled when that fails; why is below. */
function causeOf(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ERR_STREAM_PREMATURE_CLOSE') return new Closed();
  if (code !== 'ERR_HTTP2_STREAM_CANCEL') return error;
  return error instanceof Error && error.cause !== undefined ? error.cause : new Closed();
}

const OK = 200;
const PREFIX_BYTES = 5;
/** Not compressed, so long, so. */
function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, PREFIX_BYTES);
  return frame;
}

/** Pieces are put together once, when a message is whole. */
async function* messagesOf(chunks: AsyncIterable<unknown>): AsyncGenerator<Buffer, void, undefined> {
  let pieces: Buffer[] = [];
  let bytes = 0;
  let wanted = PREFIX_BYTES;
  for await (const chunk of chunks) {
    const piece = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    pieces.push(piece);
    bytes += piece.length;
    while (bytes >= wanted) {
      const [first] = pieces;
      const whole = first !== undefined && pieces.length === 1 ? first : Buffer.concat(pieces);
      const length = whole.readUInt32BE(1);
      if (whole[0] !== 0 || length > MESSAGE_BYTES_MAX) throw new Error('an answer is longer than it may be, or compressed');
      const end = PREFIX_BYTES + length;
      pieces = [whole];
      wanted = end;
      if (bytes < end) break;
      yield whole.subarray(PREFIX_BYTES, end);
      pieces = [whole.subarray(end)];
      bytes -= end;
      wanted = PREFIX_BYTES;
    }
  }
}

const PIECES = 4;

/**
 * A deadline that is not used up while this process stands still: it attaches a group, or has no CPU.
 * Timers come before what has arrived meanwhile, so one timer would find every answer late then. A
 * pause counts for one piece at most, and the last word is after a look at what has come.
 */
class Patience {
  readonly #controller = new AbortController();
  readonly #ms: number;
  #pieces = PIECES;
  #timer: NodeJS.Timeout;

  constructor(ms: number) {
    this.#ms = ms;
    this.#timer = this.#next();
  }
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  /** Rejects then: a stream that waits for its connection would be told of nothing before. */
  get over(): Promise<never> {
    const { signal } = this;
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(asError(signal.reason)), { once: true }));
  }
  end(): void {
    clearTimeout(this.#timer);
  }
  #next(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#pieces -= 1;
      if (this.#pieces > 0) this.#timer = this.#next();
      else setImmediate(() => this.#controller.abort(new Error(`no answer within ${this.#ms} ms`)));
    }, this.#ms / PIECES);
  }
}

const asError = (reason: unknown): Error => (reason instanceof Error ? reason : new Error(String(reason)));
