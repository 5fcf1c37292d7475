/**
 * The daemon's REST API as a test sees it, whatever the method and the body, and the raw answer.
 *
 * Not the product's client on purpose: the attack table sends what a good client would not. One
 * connection, kept alive; commands keep their order.
 */
import { Client } from 'undici';

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** A group's state as every command answers it (the part the bed reads). */
export interface GroupAnswer {
  readonly phase: string;
  readonly generation: number;
  readonly open: number;
  readonly sealed: number;
  readonly committed: number;
  readonly released: number;
  readonly held: { readonly frames: number; readonly bytes: number; readonly oldestMs: number };
  readonly dropped: { readonly overflow: number; readonly discarded: number; readonly refused: number };
}

/** The daemon refused: its code, its sentence. */
export class ApiRefusal extends Error {
  override readonly name = 'ApiRefusal';
  readonly status: number;
  readonly code: string;
  constructor(answer: Answer, what: string) {
    const body = isObject(answer.body) ? answer.body : {};
    super(`${what}: ${answer.status} ${String(body['code'])}: ${String(body['message'])}`);
    this.status = answer.status;
    this.code = String(body['code']);
  }
}

/** @throws ApiRefusal unless the status is of success. */
export function mustSucceed(answer: Answer, what: string): unknown {
  if (answer.status >= 300) throw new ApiRefusal(answer, what);
  return answer.body;
}

export function asGroup(answer: unknown, what: string): GroupAnswer {
  if (!isGroupAnswer(answer)) throw new Error(`${what} did not answer with a group: ${JSON.stringify(answer)}`);
  return answer;
}

export class Api {
  readonly #client: Client;

  constructor(socketPath: string, timeoutMs = 10_000) {
    this.#client = new Client('http://sluice', {
      socketPath, pipelining: 1, headersTimeout: timeoutMs, bodyTimeout: timeoutMs, keepAliveTimeout: 60_000,
    });
  }

  /** `body`: an object is sent as JSON, a string as it is. */
  async call(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object | string): Promise<Answer> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const text = typeof body === 'object' ? JSON.stringify(body) : body;
    const answer = await this.#client.request({ method, path, headers, ...(text === undefined ? {} : { body: text }) });
    const raw = await answer.body.text();
    return { status: answer.statusCode, body: parse(raw) };
  }

  /** The same, where only success will do. */
  async must(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object): Promise<unknown> {
    const answer = await this.call(method, path, body);
    return mustSucceed(answer, `${method} ${path}`);
  }

  async group(method: 'GET' | 'PUT' | 'POST', path: string, body?: object): Promise<GroupAnswer> {
    const answer = await this.must(method, path, body);
    return asGroup(answer, `${method} ${path}`);
  }

  close(): Promise<void> {
    return this.#client.destroy();
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

const isGroupAnswer = (value: unknown): value is GroupAnswer =>
  isObject(value) && typeof value['phase'] === 'string' && typeof value['generation'] === 'number' && typeof value['open'] === 'number'
  && isObject(value['held']) && isObject(value['dropped']);

function parse(raw: string): unknown {
  try {
    return JSON.parse(raw) as unknown;
  } catch {
    return raw;
  }
}
