/**
 * Real TCP to a daemon in a bed's namespace: the socket is made and connected there, and then is
 * node's. `say` puts raw bytes on the wire, `request` speaks HTTP.
 */
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { Socket } from 'node:net';
import koffi from 'koffi';
import { namespacePath } from '../../bench/bed/commands.ts';
import { inNamespace, must, socket } from '../../bench/bed/libc.ts';

const AF_INET = 2;
const SOCK_STREAM = 1;
const connectRaw = koffi.load('libc.so.6').func('int connect(int fd, const void *address, uint32_t bytes)') as (fd: number, address: Uint8Array, bytes: number) => number;

export interface Place {
  readonly namespace: string;
  readonly port: number;
}

/** Connected to 127.0.0.1 of that namespace. */
export function connectIn({ namespace, port }: Place): Socket {
  const fd = inNamespace(namespacePath(namespace), () => {
    const made = socket(AF_INET, SOCK_STREAM, 0);
    const address = new Uint8Array(16);
    new DataView(address.buffer).setUint16(0, AF_INET, true);
    new DataView(address.buffer).setUint16(2, port);
    address.set([127, 0, 0, 1], 4);
    must('connect', connectRaw(made, address, address.length));
    return made;
  });
  const stream = new Socket({ fd, readable: true, writable: true });
  stream.on('error', () => undefined); // a reset is one of the answers
  return stream;
}

export interface Heard {
  readonly text: string;
  /** The other side ended or reset the connection. */
  readonly closed: boolean;
  readonly tookMs: number;
}
/** Says this and listens until the other side closes, or `untilMs` have passed, or `enough` has come. */
export async function say(place: Place, bytes: string | Uint8Array, { untilMs = 3000, enough = /\}$/ }: { untilMs?: number; enough?: RegExp } = {}): Promise<Heard> {
  const stream = connectIn(place);
  const beganMs = performance.now();
  let [text, closed] = ['', false];
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, untilMs);
    const end = (): void => {
      clearTimeout(timer);
      resolve();
    };
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (enough.test(text)) end();
    });
    stream.once('close', () => {
      closed = true;
      end();
    });
    stream.write(bytes);
  });
  stream.destroy();
  return { text, closed, tookMs: performance.now() - beganMs };
}

export const statusOf = ({ text }: Heard): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0);

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly token?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}
export interface Replied {
  readonly status: number;
  readonly text: string;
}

/** One connection, requests one after the other; it comes again when the daemon closed it. */
export class Line {
  readonly #place: Place;
  #stream: Socket | undefined;
  constructor(place: Place) {
    this.#place = place;
  }
  /** Status 0 where the connection was ended without an answer. */
  async ask({ method, path, token, body, headers }: Asked): Promise<Replied> {
    if (this.#stream === undefined || this.#stream.destroyed || !this.#stream.writable) this.#stream = connectIn(this.#place);
    const stream = this.#stream;
    const request = httpRequest({
      method, path, createConnection: () => stream, setHost: true,
      headers: {
        connection: 'keep-alive',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        ...headers,
      },
    });
    const answered = new Promise<Replied>((resolve) => {
      request.once('error', () => resolve({ status: 0, text: '' }));
      request.once('response', (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.once('close', () => resolve({ status: response.statusCode ?? 0, text }));
      });
    });
    request.end(body);
    const answer = await answered;
    this.#stream = undefined; // the agentless client ends its side
    stream.destroy();
    return answer;
  }
}

export async function closed(stream: Socket): Promise<void> {
  if (!stream.destroyed) await once(stream, 'close');
}
