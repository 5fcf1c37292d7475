/**
 * Commands as bytes on the control socket: what an engine in any language pays, without the cost
 * of an HTTP client. One connection, one request under way; a call's time runs from the moment its
 * bytes are given to the kernel to the moment the whole answer is here.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { asGroup, mustSucceed, type GroupAnswer } from './api.ts';
import { nowUs } from './libc.ts';

/** Well below what a daemon allows to a connection before its first request. */
const IDLE_MS_MAX = 5000;

export interface Timed {
  readonly beginUs: number;
  readonly us: number;
  readonly status: number;
  readonly body: string;
}

export class WireClient {
  readonly #socket: Socket;
  #received = '';
  #done: ((answer: { status: number; body: string }) => void) | undefined;
  #failed: ((why: Error) => void) | undefined;
  #gone: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => (this.#gone ??= error));
    socket.on('close', () => {
      this.#gone ??= new Error('the daemon closed the connection');
      this.#failed?.(this.#gone);
    });
    socket.on('data', (bytes) => {
      this.#received += bytes.toString('latin1');
      this.#maybeDone();
    });
  }

  static async open(path: string): Promise<WireClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new WireClient(socket);
  }

  async call(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object): Promise<Timed> {
    if (this.#done !== undefined) throw new Error('one request at a time');
    if (this.#gone !== undefined) throw this.#gone;
    const text = body === undefined ? '' : JSON.stringify(body);
    const type = body === undefined ? '' : `content-type: application/json\r\ncontent-length: ${text.length}\r\n`;
    const request = `${method} ${path} HTTP/1.1\r\nhost: sluice\r\n${type}\r\n${text}`;
    const answer = new Promise<{ status: number; body: string }>((resolve, reject) => [this.#done, this.#failed] = [resolve, reject]);
    const beginUs = nowUs();
    this.#socket.write(request);
    const { status, body: answered } = await answer;
    return { beginUs, us: nowUs() - beginUs, status, body: answered };
  }

  get isGone(): boolean {
    return this.#gone !== undefined;
  }
  close(): void {
    this.#socket.destroy();
  }

  #maybeDone(): void {
    const head = this.#received.indexOf('\r\n\r\n');
    if (head < 0) return;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(this.#received)?.[1] ?? 0);
    const end = head + 4 + length;
    if (this.#received.length < end) return;
    const answer = { status: Number(this.#received.slice(9, 12)), body: this.#received.slice(head + 4, end) };
    this.#received = this.#received.slice(end);
    const done = this.#done;
    this.#done = undefined;
    done?.(answer);
  }
}

/**
 * What an engine asks of the daemon, over a connection of its own: as an engine in C would, so that
 * a measurement's CPU is the daemon's and the traffic's. A call whose connection breaks throws. The
 * daemon ends connections over which nothing is asked for long, so after a pause it connects anew.
 * Over one that stays silent it waits for ever.
 */
export class WireApi {
  readonly #path: string;
  #client: WireClient;
  #lastMs = performance.now();

  private constructor(path: string, client: WireClient) {
    this.#path = path;
    this.#client = client;
  }

  static async open(path: string): Promise<WireApi> {
    return new WireApi(path, await WireClient.open(path));
  }

  async must(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object): Promise<unknown> {
    const nowMs = performance.now();
    if (this.#client.isGone || nowMs - this.#lastMs > IDLE_MS_MAX) {
      this.#client.close();
      this.#client = await WireClient.open(this.#path);
    }
    this.#lastMs = nowMs;
    const call = await this.#client.call(method, path, body);
    return mustSucceed({ status: call.status, body: call.body === '' ? {} : JSON.parse(call.body) as unknown }, `${method} ${path}`);
  }

  async group(method: 'GET' | 'PUT' | 'POST', path: string, body?: object): Promise<GroupAnswer> {
    return asGroup(await this.must(method, path, body), `${method} ${path}`);
  }

  close(): void {
    this.#client.close();
  }
}
