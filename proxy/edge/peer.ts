/** Who is at the other end of a unix socket: the kernel knows, and the peer can't say otherwise. */
import type { Socket } from 'node:net';
import { peerCredentials } from './ffi/sys.ts';

const names = new WeakMap<Socket, string>();

/** `uid 1000 pid 4711`; asked once a connection. */
export function peerName(socket: Socket): string {
  const known = names.get(socket);
  if (known !== undefined) return known;
  const handle: unknown = Reflect.get(socket, '_handle'); // node has no public way to the descriptor
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  const peer = typeof fd === 'number' && fd >= 0 ? peerCredentials(fd) : undefined;
  const name = peer === undefined ? 'socket' : `uid ${peer.uid} pid ${peer.pid}`;
  names.set(socket, name);
  return name;
}
