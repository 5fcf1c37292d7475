import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Refused, SluiceClient, Unreachable } from '../../checkpoint-hooks/client.ts';
import type { EventMessage } from '../../checkpoint-hooks/client.ts';
import { SseParser } from '../../checkpoint-hooks/sse.ts';
import { buildApp } from '../../proxy/api/app.ts';
import { serve } from './cli-world.ts';
import type { Served } from './cli-world.ts';
import { guarded, world } from './memory-control.ts';

const body = { members: [{ name: 'front', port: 'tap0', mac: '02:00:00:00:00:01' }, { name: 'store', port: 'tap1', mac: '02:00:00:00:00:02' }] };
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function started(): Promise<{ served: Served; client: SluiceClient }> {
  const served = await serve();
  const client = new SluiceClient({ socket: served.socket });
  cleanups.push(() => served.remove(), () => client.close());
  return { served, client };
}

describe('one method a route', () => {
  test('a group lives through all commands', async () => {
    const { client } = await started();
    expect((await client.apply('web', body)).outcome).toBe('accepted');
    expect((await client.groups()).map(({ group }) => group)).toEqual(['web']);
    const { generation, open } = await client.protect('web', { generation: 4 });
    expect({ generation, open }).toEqual({ generation: 4, open: 1 });
    expect((await client.cut('web', { generation: 4, epoch: 1 })).sealed).toBe(1);
    expect((await client.ack('web', { generation: 4, epoch: 1, members: ['front'] })).acked).toBe(0);
    expect((await client.ack('web', { generation: 4, epoch: 1 })).acked).toBe(1);
    expect((await client.commit('web', { generation: 4, epoch: 1 })).committed).toBe(1);
    expect((await client.cut('web', { generation: 4, epoch: 2, member: 'front' })).open).toBe(2);
    const [cut, refused] = await client.commands([{ group: 'web', command: 'cut', generation: 4, epoch: 2 }, { group: 'web', command: 'commit', generation: 4, epoch: 9 }]);
    expect([cut, refused]).toMatchObject([{ outcome: 'accepted', open: 3 }, { code: 'epoch_out_of_order' }]);
    expect((await client.rollback('web', { generation: 4, epoch: 1 })).open).toBe(2);
    expect((await client.takeover('web', { generation: 5, epoch: 1 })).generation).toBe(5);
    expect((await client.held('web')).frames).toBe(0);
    expect((await client.join('web', 'third', { port: 'tap7', mac: '02:00:00:00:00:07' })).outcome).toBe('accepted');
    expect((await client.group('web')).members.map(({ name }) => name)).toEqual(['front', 'store', 'third']);
    expect((await client.leave('web', 'third', 'discard')).outcome).toBe('accepted');
    expect((await client.unprotect('web', { generation: 5, held: 'discard' })).outcome).toBe('accepted');
    expect((await client.delete('web')).group).toBe('web');
    expect(await client.groups()).toEqual([]);
    expect(await client.readyz()).toEqual({ ready: true, missing: [] });
    expect(await client.metrics()).toContain('sluice_');
  });

  test('a commit that waits answers once everything was released', async () => {
    const { served, client } = await started();
    await client.apply('web', body);
    await client.protect('web');
    await client.cut('web', { generation: 1, epoch: 1 });
    const waiting = client.commit('web', { generation: 1, epoch: 1 }, { wait: true });
    while (served.control.get('web')?.committed !== 1) await new Promise((done) => setImmediate(done));
    served.control.released('web');
    expect((await waiting).released).toBe(1);
  });

  test('what is held comes as a capture', async () => {
    const { client } = await started();
    await client.apply('web', body);
    const chunks: Buffer[] = [];
    for await (const chunk of await client.heldCapture('web')) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).readUInt32LE(0)).toBe(0x0a0d0d0a);
  });
});

describe('errors are typed', () => {
  test('a refusal carries code, status, generation and open epoch', async () => {
    const { client } = await started();
    await client.apply('web', body);
    await client.protect('web');
    const refused = await client.cut('web', { generation: 1, epoch: 9 }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(Refused);
    expect(refused).toMatchObject({ code: 'epoch_out_of_order', status: 409, group: 'web', generation: 1, open: 1 });
    await expect(client.group('nope')).rejects.toMatchObject({ code: 'no_such_group', status: 404 });
  });

  test('readyz that says no is an answer', async () => {
    const { served, client } = await started();
    served.missing = ['port tap0 is not attached'];
    expect(await client.readyz()).toEqual({ ready: false, missing: ['port tap0 is not attached'] });
  });

  test('no socket, nobody listening, a wrong server: each says what to do', async () => {
    const { served, client } = await started();
    const none = new SluiceClient({ socket: join(served.dir, 'none.sock') });
    cleanups.push(() => none.close());
    await expect(none.groups()).rejects.toMatchObject({ name: 'Unreachable', message: expect.stringMatching(/no such socket/) as string, fix: expect.stringMatching(/start sluiced/) as string });
    await served.stop();
    await expect(client.groups()).rejects.toBeInstanceOf(Unreachable);
    const tcp = new SluiceClient({ url: 'http://127.0.0.1:1' });
    cleanups.push(() => tcp.close());
    await expect(tcp.groups()).rejects.toMatchObject({ name: 'Unreachable', message: expect.stringMatching(/nobody listens/) as string });
  });

  test('something else on the socket is not taken for sluiced', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sl-other-'));
    const socket = join(dir, 's');
    const other = createServer((_request, response) => response.end('hello'));
    await new Promise<void>((done) => other.listen(socket, done));
    const client = new SluiceClient({ socket });
    cleanups.push(() => new Promise((done) => other.close(done)), () => client.close(), () => Promise.resolve(other.closeAllConnections()));
    try {
      await expect(client.groups()).rejects.toMatchObject({ code: 'unexpected' });
      await expect(client.readyz()).rejects.toMatchObject({ code: 'unexpected' });
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  test('a token is sent, and a wrong one is refused', async () => {
    const app = await buildApp(world().deps, guarded('right-0123456789a'));
    await app.listen({ host: '127.0.0.1', port: 0 });
    const address = app.server.address();
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
    const [right, wrong] = [new SluiceClient({ url, token: 'right-0123456789a' }), new SluiceClient({ url, token: 'wrong' })];
    cleanups.push(() => app.close(), () => right.close(), () => wrong.close());
    expect(await right.groups()).toEqual([]);
    await expect(wrong.groups()).rejects.toMatchObject({ status: 401 });
  });
});

describe('events', () => {
  test('go on after a restart of the daemon, from the last one seen', async () => {
    const { served, client } = await started();
    const seen: EventMessage[] = [];
    const stop = new AbortController();
    let [connected, lost] = [0, 0];
    const following = (async () => {
      for await (const message of client.events({ signal: stop.signal, onConnected: () => (connected += 1), onLost: () => (lost += 1) })) seen.push(message);
    })();
    const until = async (what: () => boolean): Promise<void> => {
      while (!what()) await new Promise((done) => setTimeout(done, 5));
    };
    await until(() => connected === 1);
    served.deps.events.publish({ type: 'cut', atMs: 1, group: 'web', epoch: 1 });
    await until(() => seen.length === 1);
    await served.stop();
    await until(() => lost === 1);
    served.deps.events.publish({ type: 'committed', atMs: 2, group: 'web', epoch: 1 });
    await served.start();
    await until(() => connected === 2 && seen.length === 2);
    stop.abort();
    await following;
    expect(seen.map(({ id, event }) => [id, event.type, event.epoch])).toEqual([['life1-1', 'cut', 1], ['life1-2', 'committed', 1]]);
  });

  test('an id that nobody knows gives a gap; a group hears of itself alone', async () => {
    const { served, client } = await started();
    const stop = new AbortController();
    const types: string[] = [];
    const following = (async () => {
      for await (const { event } of client.events({ signal: stop.signal, group: 'web', lastEventId: 'other-7' })) {
        types.push(event.type);
        if (event.type === 'gap') {
          served.deps.events.publish({ type: 'cut', atMs: 1, group: 'db' });
          served.deps.events.publish({ type: 'released', atMs: 1, group: 'web' });
        } else break;
      }
    })();
    await following;
    expect(types).toEqual(['gap', 'released']);
  });

  test('the first connection fails loudly', async () => {
    const client = new SluiceClient({ socket: '/nonexistent/s' });
    cleanups.push(() => client.close());
    await expect(client.events().next()).rejects.toBeInstanceOf(Unreachable);
  });

  test('the parser gives the same messages wherever the stream is cut', () => {
    const text = ': hi\nretry: 1000\n\nid: a-1\nevent: cut\ndata: {"x":1}\n\nid: a-2\r\ndata: one\r\ndata:two\r\n\r\n: beat\n\ndata\n\n';
    const whole = [...new SseParser().push(text)];
    expect(whole).toEqual([
      { id: 'a-1', event: 'cut', data: '{"x":1}' },
      { id: 'a-2', event: 'message', data: 'one\ntwo' },
      { id: 'a-2', event: 'message', data: '' },
    ]);
    for (let size = 1; size < text.length; size += 1) {
      const parser = new SseParser();
      const messages = [];
      for (let at = 0; at < text.length; at += size) messages.push(...parser.push(text.slice(at, at + size)));
      expect(messages).toEqual(whole);
    }
  });

  test('a stream without end of message is not kept for ever', () => {
    const parser = new SseParser();
    expect(() => {
      for (let i = 0; i < 40; i += 1) expect([...parser.push(`data: ${'x'.repeat(50_000)}\n`)]).toEqual([]);
    }).toThrow(RangeError);
  });
});
