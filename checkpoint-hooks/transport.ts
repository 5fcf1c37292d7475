/**
 * One daemon, reached by its unix socket or by TCP: requests in, replies or typed errors out.
 *
 *   ask(method, path, body) ─► undici Pool ─┬─ 2xx ─► JSON
 *                                           ├─ other ─► Refused   (the daemon's own code and sentence)
 *                                           └─ no answer ─► Unreachable (what to do about it)
 *
 * Bounds: CONNECTIONS_MAX sockets, REPLY_TIMEOUT_MS for an answer to begin, unless the call says
 * otherwise. Nothing is sent twice: whoever gets Unreachable does not know whether a command was
 * performed, and asks for the group's state (an exact repeat is answered with `ignored`).
 */
import { Pool } from '../proxy/doors/client.ts';
import type { Dispatcher } from 'undici';
import { checker, Refusal as RefusalSchema } from '../proxy/api/contract.ts';
import type { Refusal } from '../proxy/api/contract.ts';

const CONNECTIONS_MAX = 16;
const REPLY_TIMEOUT_MS = 30_000;
export const SOCKET_DEFAULT = '/run/sluice/control.sock';

export interface Target {
  /** Unix socket; used when there is no url. */
  readonly socket?: string;
  /** https://host:port; http:// only makes sense to a daemon behind something else. */
  readonly url?: string;
  readonly token?: string;
  /** PEM texts: the CA of the daemon's certificate, and this client's own certificate. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
}

/** The daemon answered: no. `code` is one of the contract's, or `unexpected` for a reply that is none of ours. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly status: number;
  readonly code: Refusal['code'] | 'unexpected';
  readonly group: string | undefined;
  readonly generation: number | undefined;
  readonly open: number | undefined;

  constructor(status: number, refusal: Omit<Refusal, 'code'> & { readonly code: Refused['code'] }) {
    super(refusal.message);
    this.status = status;
    this.code = refusal.code;
    this.group = refusal.group;
    this.generation = refusal.generation;
    this.open = refusal.open;
  }
}

/** Nobody answered. `fix`: one sentence, what to do. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable';
  readonly fix: string;

  constructor(message: string, fix: string, cause?: unknown) {
    super(message, { cause });
    this.fix = fix;
  }
}

export interface AskOptions {
  readonly query?: Record<string, string | number>;
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly replyTimeoutMs?: number;
  readonly headers?: Record<string, string>;
  /** Longest silence within the reply's body. */
  readonly bodyTimeoutMs?: number;
}

const checkRefusal = checker(RefusalSchema);

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  const { code } = error as NodeJS.ErrnoException;
  return code ?? codeOf(error.cause);
}

export class Transport {
  /** For messages: where the daemon was looked for. */
  readonly place: string;
  private readonly pool: Pool;
  private readonly headers: Record<string, string>;
  private readonly overSocket: boolean;

  constructor(target: Target) {
    this.overSocket = target.url === undefined;
    this.place = target.url ?? target.socket ?? SOCKET_DEFAULT;
    const connect = this.overSocket ? { socketPath: this.place } : { ...target.tls };
    this.pool = new Pool(this.overSocket ? 'http://sluice' : new URL(this.place).origin, { connect, connections: CONNECTIONS_MAX });
    this.headers = target.token === undefined ? {} : { authorization: `Bearer ${target.token}` };
  }

  /** The reply as it comes, whatever its status; the caller reads or dumps the body. */
  async open(method: Dispatcher.HttpMethod, path: string, options: AskOptions = {}): Promise<Dispatcher.ResponseData> {
    const hasBody = options.body !== undefined;
    try {
      return await this.pool.request({
        method,
        path: withQuery(path, options.query),
        headers: { ...this.headers, ...options.headers, ...(hasBody ? { 'content-type': 'application/json' } : {}) },
        body: hasBody ? JSON.stringify(options.body) : null,
        headersTimeout: options.replyTimeoutMs ?? REPLY_TIMEOUT_MS,
        ...(options.bodyTimeoutMs === undefined ? {} : { bodyTimeout: options.bodyTimeoutMs }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
    } catch (error) {
      if (options.signal?.aborted === true) throw error;
      throw this.unreachable(error);
    }
  }

  /** A JSON reply of status 2xx; anything else throws. */
  async ask(method: Dispatcher.HttpMethod, path: string, options: AskOptions = {}): Promise<unknown> {
    const reply = await this.open(method, path, options);
    if (reply.statusCode < 200 || reply.statusCode > 299) throw await this.refusal(reply);
    const text = await this.text(reply);
    if (text === '') return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw new Refused(reply.statusCode, { code: 'unexpected', message: `what answers at ${this.place} is not sluiced: ${text.slice(0, 60)}` });
    }
  }

  async text(reply: Dispatcher.ResponseData): Promise<string> {
    try {
      return await reply.body.text();
    } catch (error) {
      throw this.unreachable(error);
    }
  }

  async refusal(reply: Dispatcher.ResponseData): Promise<Refused> {
    const text = await this.text(reply);
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      body = undefined;
    }
    const parsed = checkRefusal(body);
    if (parsed.ok) return new Refused(reply.statusCode, parsed.value);
    return new Refused(reply.statusCode, { code: 'unexpected', message: `status ${reply.statusCode} from ${this.place}: ${text.slice(0, 200)}` });
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }

  private unreachable(error: unknown): Unreachable {
    const code = codeOf(error);
    const where = this.overSocket ? `the socket ${this.place}` : this.place;
    switch (code) {
      case 'ENOENT':
        return new Unreachable(`no daemon at ${this.place}: there is no such socket`, 'start sluiced, or name its socket with --socket or SLUICE_CONTROL_SOCKET', error);
      case 'ECONNREFUSED':
        return new Unreachable(`no daemon at ${this.place}: nobody listens`, 'start sluiced (systemctl start sluiced)', error);
      case 'EACCES':
      case 'EPERM':
        return new Unreachable(`${where} may not be opened by this user`, 'join the group that owns the socket (sluice), or use sudo', error);
      case 'UND_ERR_HEADERS_TIMEOUT':
      case 'UND_ERR_BODY_TIMEOUT':
        return new Unreachable(`the daemon at ${this.place} does not answer`, 'look at its log; it may be stopped or out of processor time', error);
      default:
        break;
    }
    if (/CERT|TLS|SSL|SELF_SIGNED/.test(code)) {
      return new Unreachable(`TLS with ${this.place} failed: ${code}`, 'give the CA of its certificate with --ca, and your own certificate with --cert and --key', error);
    }
    const reason = code === '' && error instanceof Error ? error.message : code;
    return new Unreachable(`the daemon at ${this.place} went away (${reason})`, 'see that sluiced runs and that the address is right; then ask for the group\'s state', error);
  }
}

function withQuery(path: string, query: Record<string, string | number> | undefined): string {
  const entries = Object.entries(query ?? {}).map(([key, value]): [string, string] => [key, String(value)]);
  return entries.length === 0 ? path : `${path}?${new URLSearchParams(entries).toString()}`;
}
