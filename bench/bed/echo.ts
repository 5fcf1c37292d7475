/**
 * ICMP echo from the outsider to a member: what a client outside feels. The member's reply is
 * output of the group, so it waits for its epoch's commit: round trip = hold time + a few
 * hundred microseconds.
 *
 * One request at a time, `spacingMs` apart; a request without a reply after `timeoutMs` is lost.
 */
import { createRequire } from 'node:module';
import type { Bed, Place } from './bed.ts';
import { namespacePath, sleep } from './commands.ts';
import { inNamespace, nowUs } from './libc.ts';

/** The part of raw-socket (untyped, CommonJS) that is used here. */
interface RawSocket {
  send(buffer: Buffer, offset: number, length: number, address: string, done: (error: Error | null) => void): void;
  on(event: 'message', listener: (buffer: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  close(): void;
}
interface RawModule {
  createSocket(options: { readonly protocol: number }): RawSocket;
  createChecksum(buffer: Buffer): number;
  writeChecksum(buffer: Buffer, offset: number, checksum: number): void;
  readonly Protocol: { readonly ICMP: number };
}
const raw = createRequire(import.meta.url)('raw-socket') as RawModule;

/**
 * Sockets in use. The package's native half is no root for the collector: while a request is under
 * way nothing else leads to its socket or to the promises that wait for it, and a collection then
 * takes all of them together. Nobody is ever called back.
 */
const inUse = new Set<RawSocket>();

export interface EchoResult {
  readonly roundTripMs: readonly number[];
  readonly lost: number;
}

export interface EchoOptions {
  readonly count: number;
  readonly spacingMs: number;
  /** More pause, at random between 0 and this: a client that keeps no step with the epochs. */
  readonly spreadMs?: number;
  readonly timeoutMs: number;
}

export async function echo(bed: Bed, to: Pick<Place, 'ip'>, options: EchoOptions): Promise<EchoResult> {
  const socket = inNamespace(namespacePath(bed.outsider.namespace ?? bed.host), () => raw.createSocket({ protocol: raw.Protocol.ICMP }));
  inUse.add(socket);
  const id = process.pid & 0xffff;
  const replies = new Map<number, number>();
  let failure: Error | undefined;
  socket.on('error', (error) => (failure = error));
  socket.on('message', (packet, source) => {
    const at = ((packet[0] ?? 0) & 15) * 4;
    if (source !== to.ip || packet.length < at + 8 || packet[at] !== 0 || packet.readUInt16BE(at + 4) !== id) return;
    replies.set(packet.readUInt16BE(at + 6), nowUs());
  });
  try {
    const roundTripMs: number[] = [];
    for (let seq = 1; seq <= options.count; seq++) {
      const sentUs = await request(socket, to.ip, id, seq);
      while (!replies.has(seq) && failure === undefined && nowUs() - sentUs < options.timeoutMs * 1e3) await sleep(1);
      const atUs = replies.get(seq);
      if (atUs !== undefined) roundTripMs.push((atUs - sentUs) / 1e3);
      await sleep(options.spacingMs + Math.random() * (options.spreadMs ?? 0));
    }
    if (failure !== undefined) throw failure;
    return { roundTripMs, lost: options.count - roundTripMs.length };
  } finally {
    inUse.delete(socket);
    socket.close();
  }
}

/** Sends one request; its time. */
function request(socket: RawSocket, to: string, id: number, seq: number): Promise<number> {
  const packet = Buffer.alloc(64);
  packet[0] = 8;
  packet.writeUInt16BE(id, 4);
  packet.writeUInt16BE(seq, 6);
  raw.writeChecksum(packet, 2, raw.createChecksum(packet));
  const sentUs = nowUs();
  return new Promise((resolve, reject) => {
    socket.send(packet, 0, packet.length, to, (error) => (error === null ? resolve(sentUs) : reject(error)));
  });
}
