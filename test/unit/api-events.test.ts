import { mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildApp } from '../../proxy/api/app.ts';
import type { App } from '../../proxy/api/commands.ts';
import { ApiEvent, checker } from '../../proxy/api/contract.ts';
import { EventHub } from '../../proxy/api/events.ts';
import { guarded, OPEN, world } from './memory-control.ts';
import type { World } from './memory-control.ts';

let here: World;
let app: App;
let directory: string;
let socketPath: string;
beforeEach(async () => {
  here = world();
  directory = mkdtempSync(join(tmpdir(), 'sl-events-'));
  socketPath = join(directory, 'api.sock');
  app = await buildApp(here.deps, { ...OPEN, heartbeatMs: 20, queueBytesMax: 64 * 1024, clientsMax: 2 });
  await app.listen({ path: socketPath });
});
afterEach(async () => {
  await app.close();
  rmSync(directory, { recursive: true });
});

interface Client {
  readonly response: IncomingMessage;
  text: string;
  ended: boolean;
}
async function follow(query = '', headers: Record<string, string> = {}, read = true): Promise<Client> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get({ socketPath, path: `/v1/events${query}`, headers, agent: false }, resolve).on('error', reject);
  });
  const client: Client = { response, text: '', ended: false };
  if (read) response.setEncoding('utf8').on('data', (chunk: string) => (client.text += chunk));
  response.on('close', () => (client.ended = true)).on('error', () => (client.ended = true));
  return client;
}
const cut = (group: string, epoch: number): void => here.deps.events.publish({ type: 'cut', group, epoch, atMs: epoch });
const dataOf = (text: string): unknown[] => [...text.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json ?? '') as unknown);

test('events of one group, as they happen, each in the contract\'s shape', async () => {
  const client = await follow('?group=web');
  expect(client.response.headers['content-type']).toBe('text/event-stream');
  cut('web', 1);
  cut('db', 2);
  here.deps.events.publish({ type: 'leak-blocked', port: 'eth0', frames: 1, atMs: 3 }); // of no group: for all
  await vi.waitFor(() => expect(dataOf(client.text)).toHaveLength(2));
  expect(client.text).toContain('id: life1-1\nevent: cut\ndata: {"type":"cut","group":"web","epoch":1,"atMs":1}\n\n');
  for (const data of dataOf(client.text)) expect(checker(ApiEvent)(data).ok).toBe(true);
  await vi.waitFor(() => expect(client.text).toContain(': beat'));
  client.response.destroy();
  await vi.waitFor(() => expect(here.deps.events.subscribers).toBe(0));
});

test('a client that comes back misses nothing, or is told that it did', async () => {
  for (let epoch = 1; epoch <= 5; epoch++) cut('web', epoch);
  const back = await follow('', { 'last-event-id': 'life1-3' });
  await vi.waitFor(() => expect(dataOf(back.text)).toMatchObject([{ epoch: 4 }, { epoch: 5 }]));
  back.response.destroy();
  const stranger = await follow('', { 'last-event-id': 'life0-3' });
  await vi.waitFor(() => expect(dataOf(stranger.text)).toMatchObject([{ type: 'gap' }]));
  cut('web', 6);
  await vi.waitFor(() => expect(dataOf(stranger.text)).toMatchObject([{ type: 'gap' }, { epoch: 6 }]));
  stranger.response.destroy();
});

test('a client that does not read is closed; the publisher and the others go on', async () => {
  const slow = await follow('', {}, false);
  const quick = await follow();
  const before = process.memoryUsage().external;
  // Far more than the socket and the queue hold together; the quick one must get all of it.
  for (let round = 0; round < 200 && !slow.ended; round++) {
    for (let i = 0; i < 20; i++) here.deps.events.publish({ type: 'port-lost', port: 'x'.repeat(2000), atMs: round * 20 + i });
    await new Promise((resolve) => setImmediate(resolve));
    if (here.deps.events.subscribers === 1) break;
  }
  await vi.waitFor(() => expect(here.deps.events.subscribers).toBe(1));
  cut('web', 77);
  await vi.waitFor(() => expect(quick.text).toContain('"epoch":77'));
  expect(process.memoryUsage().external - before).toBeLessThan(64 * 1024 * 1024);
  expect((await app.inject('/metrics')).body).toContain('sluice_event_slow_clients_total 1');
  slow.response.destroy();
  quick.response.destroy();
});

test('clients are bounded, and closing ends them all', async () => {
  const clients = [await follow(), await follow()];
  const third = await follow();
  await vi.waitFor(() => expect(third.text).toContain('too_many_clients'));
  expect(third.response.statusCode).toBe(429);
  await app.close();
  await vi.waitFor(() => expect(clients.every(({ ended }) => ended)).toBe(true));
});

test('the history is bounded: what fell out of it is a gap', () => {
  const hub = new EventHub('a', 3);
  for (let n = 1; n <= 5; n++) hub.publish({ type: 'cut', epoch: n, atMs: n });
  const types = (id: string): unknown[] => hub.since(id, 9).map(({ event }) => event.epoch ?? event.type);
  expect(types('a-2')).toEqual([3, 4, 5]);
  expect(types('a-5')).toEqual([]);
  for (const id of ['a-1', 'a-6', 'b-3', 'a-', 'a-x', '', '-', 'a-1e9']) expect(types(id), id).toEqual(['gap']);
});

test('a message longer than the queue, as a picture of many groups is, reaches a client that reads', async () => {
  const client = await follow();
  for (let n = 1; n <= 3; n++) {
    here.deps.events.publish({ type: 'port-lost', port: 'x'.repeat(1024 * 1024), atMs: n });
    await vi.waitFor(() => expect(client.text.match(/"atMs":/g) ?? []).toHaveLength(n));
  }
  expect(client.ended).toBe(false);
  client.response.destroy();
});

test('one caller of the network takes no more than half of the streams', async () => {
  const lines = ['one', 'two'].map((who) => `${who} ${who}-0123456789abcdef observe:*`);
  const remote = await buildApp(here.deps, { ...guarded(...lines), clientsMax: 4 });
  const path = join(directory, 'remote.sock');
  await remote.listen({ path });
  const status = (who: string): Promise<number | undefined> => new Promise((resolve, reject) => {
    get({ socketPath: path, path: '/v1/events', headers: { authorization: `Bearer ${who}-0123456789abcdef` }, agent: false }, (reply) => {
      reply.resume().on('error', () => undefined);
      resolve(reply.statusCode);
    }).on('error', reject);
  });
  try {
    expect([await status('one'), await status('one'), await status('one'), await status('two')]).toEqual([200, 200, 429, 200]);
  } finally {
    await remote.close();
  }
});
