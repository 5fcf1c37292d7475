/** One address of the network can't take all connections there are. */
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { expect, test, vi } from 'vitest';
import { Access } from '../../proxy/api/access.ts';
import { buildApp } from '../../proxy/api/app.ts';
import { neighbourhood } from '../../proxy/api/crowd.ts';
import { world } from './memory-control.ts';

test('an address that has its share is closed at once, another one is served, and a place that was left is free', async () => {
  const app = await buildApp(world().deps, { access: Access.guarded(undefined), perAddressMax: 3 });
  const open: Socket[] = [];
  const dial = (from: string): { socket: Socket; isClosed: () => boolean } => {
    let closed = false;
    const socket = connect({ host: '127.0.0.1', port: (app.server.address() as AddressInfo).port, localAddress: from });
    socket.on('error', () => undefined).once('close', () => (closed = true)).resume();
    open.push(socket);
    return { socket, isClosed: () => closed };
  };
  const answers = async (from: string): Promise<string> => {
    const { socket } = dial(from);
    let said = '';
    socket.on('data', (chunk: Buffer) => (said += chunk.toString()));
    socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    await new Promise((resolve) => socket.once('close', resolve));
    return said.slice(9, 12);
  };
  try {
    await app.listen({ host: '127.0.0.1', port: 0 });
    const held = [dial('127.0.0.2'), dial('127.0.0.2'), dial('127.0.0.2')];
    await vi.waitFor(async () => expect(await new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count)))).toBe(3), 20_000);
    expect(await answers('127.0.0.2')).toBe('');
    expect(await answers('127.0.0.3')).toBe('401');
    expect(held.map(({ isClosed }) => isClosed())).toEqual([false, false, false]);
    held[0]?.socket.destroy();
    await vi.waitFor(async () => expect(await answers('127.0.0.2')).toBe('401'), 20_000);
  } finally {
    for (const socket of open) socket.destroy();
    await app.close();
  }
});

test.each([
  ['192.0.2.7', '192.0.2.7'], ['::ffff:192.0.2.7', '192.0.2.7'], ['::1', '0:0:0:0'],
  ['2001:db8:0:1:aaaa:bbbb:cccc:dddd', '2001:db8:0:1'], ['2001:db8:0:1::9', '2001:db8:0:1'], ['2001:db8::1', '2001:db8:0:0'], ['fe80::1%eth0', 'fe80:0:0:0'],
])('%s counts as %s', (address, expected) => expect(neighbourhood(address)).toBe(expected));
