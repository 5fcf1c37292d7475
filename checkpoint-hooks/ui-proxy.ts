/**
 * The dashboard for a browser on this machine: a small server on 127.0.0.1 before the daemon.
 *
 *     browser ── http://127.0.0.1:PORT/?key=K ──► key right, for the first time ─► cookie, redirect to /ui/
 *             ── GET /ui/… /v1/… with the cookie ─► the daemon, by its socket or with the token
 *
 * Any user and any page of this machine can reach the port, so: the key is good once; the cookie is
 * this process's own, HttpOnly and SameSite=Strict; the Host must be ours (a name that was rebound to
 * 127.0.0.1 is not); and only what looks is let through, never a command. It ends with the command.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Transport } from './transport.ts';

/** All that the page asks for. */
const LOOKS = /^\/(ui\/[\w./-]*|v1\/(figures|figures\/live|events|groups|groups\/[a-z0-9-]{1,32}|groups\/[a-z0-9-]{1,32}\/held)|readyz)$/;
const HEADERS_ON = ['content-type', 'content-security-policy', 'x-content-type-options', 'referrer-policy', 'cache-control'];
/** A stream has a heartbeat each 15 s. */
const SILENCE_MAX_MS = 60_000;

export interface UiProxy {
  /** With the key; good once. */
  readonly url: string;
  close(): Promise<void>;
}

function same(a: string, b: string): boolean {
  const [one, other] = [Buffer.from(a), Buffer.from(b)]; // as long in letters is not as long in bytes
  return one.length === other.length && timingSafeEqual(one, other);
}

export async function startUiProxy(transport: Transport, port: number): Promise<UiProxy> {
  const key = randomBytes(24).toString('base64url');
  const session = randomBytes(24).toString('base64url');
  let isKeyUsed = false;
  let origin = '';
  const server = createServer((request, reply) => {
    const cookie = `sluice-${portOf(server)}=${session}`;
    const refused = whyNot(request, origin);
    if (refused !== undefined) return say(reply, ...refused);
    const url = new URL(`http://sluice${request.url}`);
    const given = url.searchParams.get('key');
    if (given !== null) {
      if (isKeyUsed || !same(given, key)) return say(reply, 403, 'This key was used already or is not right. Run sluice ui again for another one.');
      isKeyUsed = true;
      reply.writeHead(303, { 'set-cookie': `${cookie}; HttpOnly; SameSite=Strict; Path=/`, 'location': '/ui/', 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' });
      return void reply.end();
    }
    const known = (request.headers.cookie ?? '').split('; ').some((one) => same(one, cookie));
    if (!known) return say(reply, 403, 'Open the address that sluice ui printed: it has the key.');
    if (!LOOKS.test(url.pathname)) return say(reply, 404, 'There is no such page.');
    void pass(transport, request, reply, `${url.pathname}${url.search}`);
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  origin = `127.0.0.1:${portOf(server)}`;
  return {
    url: `http://${origin}/?key=${key}`,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function whyNot(request: IncomingMessage, origin: string): [number, string] | undefined {
  if (request.headers.host !== origin) return [403, 'This server answers to its own address only.'];
  if (request.url?.startsWith('/') !== true) return [404, 'There is no such page.'];
  return request.method === 'GET' ? undefined : [405, 'This page only looks; commands go by the sluice command.'];
}

function say(reply: ServerResponse, status: number, text: string): void {
  reply.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
  reply.end(`${text}\n`);
}

async function pass(transport: Transport, request: IncomingMessage, reply: ServerResponse, path: string): Promise<void> {
  const gone = new AbortController();
  reply.once('close', () => gone.abort());
  const last = request.headers['last-event-id'];
  try {
    const answer = await transport.open('GET', path, {
      signal: gone.signal, bodyTimeoutMs: SILENCE_MAX_MS,
      headers: { accept: request.headers.accept ?? '*/*', ...(typeof last === 'string' ? { 'last-event-id': last } : {}) },
    });
    const headers = HEADERS_ON.flatMap((name) => (answer.headers[name] === undefined ? [] : [[name, String(answer.headers[name])] as const]));
    reply.writeHead(answer.statusCode, Object.fromEntries(headers));
    reply.flushHeaders();
    await pipeline(answer.body, reply);
  } catch (error) {
    if (reply.headersSent) reply.destroy();
    else say(reply, 502, error instanceof Error ? error.message : String(error));
  }
}
