/** The dashboard's way into a browser: what any page or user of this machine may send to its port. */
import { get } from 'node:http';
import { connect } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Transport } from '../../checkpoint-hooks/transport.ts';
import { startUiProxy } from '../../checkpoint-hooks/ui-proxy.ts';
import type { UiProxy } from '../../checkpoint-hooks/ui-proxy.ts';
import { serve } from './cli-world.ts';
import type { Served } from './cli-world.ts';

let served: Served;
let transport: Transport;
let proxy: UiProxy;
let port: number;
let key: string;
beforeEach(async () => {
  served = await serve();
  transport = new Transport({ socket: served.socket });
  proxy = await startUiProxy(transport, 0);
  const url = new URL(proxy.url);
  port = Number(url.port);
  key = url.searchParams.get('key') ?? '';
});
afterEach(async () => {
  await proxy.close();
  await transport.close();
  await served.remove();
});

function ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<{ status: number | undefined; cookie: string; text: string }> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, headers, method, agent: false }, (reply) => {
      let text = '';
      reply.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      reply.on('end', () => resolve({ status: reply.statusCode, cookie: (reply.headers['set-cookie']?.[0] ?? '').split(';')[0] ?? '', text }));
    }).on('error', reject);
  });
}

test('the key is good once, and gives a session that looks and does nothing else', async () => {
  expect((await ask('/v1/figures')).status).toBe(403);
  const first = await ask(`/?key=${key}`);
  expect(first.status).toBe(303);
  expect((await ask(`/?key=${key}`)).status).toBe(403);
  const { cookie } = first;
  expect((await ask('/v1/figures', { cookie })).text).toContain('"groups"');
  expect((await ask('/v1/figures', { cookie, host: `rebound.example:${port}` })).status).toBe(403);
  expect((await ask('/v1/groups/web/protect', { cookie }, 'POST')).status).toBe(405);
  for (const path of ['/metrics', '/v1/groups/web/held.pcapng', '/openapi.json', '//ui/', '/v1/../metrics']) expect((await ask(path, { cookie })).status, path).toBe(404);
});

test('nothing that is sent to the port ends it: odd paths, odd letters in keys and cookies, halves of requests', async () => {
  const odd = `${'x'.repeat(31)}\xe9`;
  for (const path of ['//', '//[', '///', '/?key=%', `/?key=${encodeURIComponent(odd)}`, `/?key=${'%F0%9F%92%A7'.repeat(16)}`]) {
    expect((await ask(path)).status, path).toBe(403);
  }
  expect((await ask('/ui/', { cookie: `sluice-${port}=${odd}` })).status).toBe(403);
  for (const line of ['GET http://[ HTTP/1.1', 'OPTIONS * HTTP/1.1', 'GET / HTTP/9', 'CONNECT x:1 HTTP/1.1', 'GET']) {
    await new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.end(`${line}\r\nHost: 127.0.0.1:${port}\r\n\r\n`));
      socket.resume().on('close', () => resolve()).on('error', () => undefined);
    });
  }
  expect((await ask(`/?key=${key}`)).status).toBe(303);
});
