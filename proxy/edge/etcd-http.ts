/**
 * etcd's JSON gateway: one call, one watch stream, over whichever endpoint answers.
 *
 *    call ─► endpoint in use ─┬─ answer
 *                             └─ late (CALL_MS) or refused ─► the next endpoint is in use from now on; EdgeError
 *
 * Nothing waits longer than its deadline (`Patience`): without one, a call to a leader that was killed
 * hangs for seconds; nor for a connection that does not come about. Whether a call that failed took effect is not known; who makes it must be able to make it
 * again. Which of two endpoints has the truth is not asked: reads and writes are linearizable by
 * default, so a member cut off from the others fails them. Only a watch can be served a stale
 * silence; `etcd-ledger.ts` notices by its own heartbeat.
 */
import { Agent } from '../doors/client.ts';
import { EdgeError } from '../ports.ts';
import { whyOf } from './etcd-tls.ts';
import type { EtcdTls } from './etcd-tls.ts';

export interface EtcdConfig {
  /** http(s)://host:port each. */
  readonly endpoints: readonly string[];
  readonly tls: EtcdTls | undefined;
}

export const CALL_MS = 400;
/** A line of a watch is one response; a longer one ends the stream. 1,000 groups' heads fit. */
const LINE_BYTES_MAX = 16 * 1024 * 1024;
const CONNECTIONS_MAX = 10;

type Json = Readonly<Record<string, unknown>>;

export class EtcdHttp {
  readonly #endpoints: readonly string[];
  #agent: Agent;
  #tls: EtcdTls | undefined;
  #at = 0;

  constructor({ endpoints, tls }: EtcdConfig) {
    this.#endpoints = endpoints;
    this.#tls = tls;
    this.#agent = agentOf(tls);
  }

  /** Other certificates, from the next connection on; what is under way ends as it is. */
  show(tls: EtcdTls | undefined): void {
    const before = this.#agent;
    this.#tls = tls;
    this.#agent = agentOf(tls);
    before.close().catch(() => undefined); // closed already: so were we
  }

  get endpoint(): string {
    return this.#endpoints[this.#at % this.#endpoints.length] ?? '';
  }
  /** The next one from now on, unless somebody went on already. */
  avoid(endpoint: string): void {
    if (endpoint === this.endpoint) this.#at += 1;
  }

  /** Throws EdgeError('ledger_down'). */
  async call(path: string, body: Json, ms = CALL_MS): Promise<Json> {
    const { endpoint } = this;
    const patience = new Patience(ms);
    try {
      return await Promise.race([this.#ask(endpoint, path, body, patience.signal), patience.over]);
    } catch (error) {
      this.avoid(endpoint);
      throw this.#ledgerDown(endpoint, error);
    } finally {
      patience.end();
    }
  }

  /** Each response of a stream as it comes; ends by an error, or by `signal`. */
  async *stream(path: string, body: Json, signal: AbortSignal): AsyncGenerator<Json, void, undefined> {
    const { endpoint } = this;
    try {
      const { statusCode, body: answer } = await this.#agent.request({ origin: endpoint, path, method: 'POST', body: JSON.stringify(body), signal });
      if (statusCode !== 200) throw new Error(`${statusCode} ${(await answer.text()).slice(0, 200)}`);
      for await (const line of linesOf(answer)) yield objectOf(JSON.parse(line));
      throw new Error('the stream ended');
    } catch (error) {
      this.avoid(endpoint);
      throw this.#ledgerDown(endpoint, error);
    }
  }

  async #ask(origin: string, path: string, body: Json, signal: AbortSignal): Promise<Json> {
    const { statusCode, body: answer } = await this.#agent.request({ origin, path, method: 'POST', body: JSON.stringify(body), signal });
    const text = await answer.text();
    if (statusCode !== 200) throw new Error(`${statusCode} ${text.slice(0, 200)}`);
    return objectOf(JSON.parse(text));
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  #ledgerDown(endpoint: string, error: unknown): EdgeError {
    const why = whyOf(error, this.#tls, Date.now());
    const fix = /database space exceeded/.test(why) ? FULL_FIX : 'ask again; when it stays so, look at etcd: frames stay held';
    return new EdgeError('ledger_down', `etcd at ${endpoint} did not do it: ${why}`, fix, error);
  }
}

const FULL_FIX = 'etcdctl compact to its newest revision, etcdctl defrag, etcdctl alarm disarm; and start each node with --auto-compaction-mode periodic --auto-compaction-retention 5m, for it keeps every ack until it is compacted';
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
  /** Rejects then. A request that waits for its connection does not heed its signal: a peer that is cut off would cost it a second. */
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

function agentOf(tls: EtcdTls | undefined): Agent {
  const shown = tls === undefined ? {} : { ca: tls.ca, ...(tls.cert === undefined || tls.key === undefined ? {} : { cert: tls.cert, key: tls.key }) };
  return new Agent({ connections: CONNECTIONS_MAX, pipelining: 1, bodyTimeout: 0, headersTimeout: 0, connect: { ...shown, timeout: CALL_MS } });
}

async function* linesOf(chunks: AsyncIterable<unknown>): AsyncGenerator<string, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = Buffer.concat([rest, chunk instanceof Uint8Array ? chunk : Buffer.from(String(chunk))]);
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      yield rest.toString('utf8', 0, end);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > LINE_BYTES_MAX) throw new Error('a response is longer than it may be');
  }
}

export const objectOf = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});
export const listOf = (value: unknown): readonly Json[] => (Array.isArray(value) ? value.map(objectOf) : []);
