/**
 * Connections by address: one host of the network must not take all that there are.
 *
 *     connection ─► how many has this address? ─┬─ room ──► counted until it closes
 *                                               └─ none ──► closed at once, nothing read, nothing said
 *
 * An IPv6 host has a whole /64 to speak from, so that counts as one address; an IPv4 address that
 * came by an IPv6 socket is itself. A unix socket has no address and is not counted. The table has a
 * line for each address that is connected now, no more than there are connections.
 */
import type { Server, Socket } from 'node:net';

export function boundByAddress(server: Server, max: number): void {
  const connected = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined) return;
    const from = neighbourhood(remoteAddress);
    const before = connected.get(from) ?? 0;
    if (before >= max) {
      socket.destroy();
      return;
    }
    connected.set(from, before + 1);
    socket.once('close', () => {
      const left = (connected.get(from) ?? 1) - 1;
      if (left === 0) connected.delete(from);
      else connected.set(from, left);
    });
  });
}

/** An IPv4 address, or the /64 of an IPv6 one. */
export function neighbourhood(address: string): string {
  const mapped = /^::ffff:([0-9.]+)$/i.exec(address)?.[1];
  if (mapped !== undefined || !address.includes(':')) return mapped ?? address;
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const parts = (text: string): string[] => text.split(':').filter((part) => part !== '');
  const [first, last] = [parts(head), parts(tail ?? '')];
  const gap = tail === undefined ? 0 : 8 - first.length - last.length;
  return [...first, ...Array.from({ length: Math.max(0, gap) }, () => '0'), ...last].slice(0, 4).map((part) => Number.parseInt(part, 16).toString(16)).join(':');
}
