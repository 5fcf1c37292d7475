/**
 * The prober's process: asks every isolation address each round by ICMP or ICMPv6, and says what it
 * did, one line of JSON each on standard output.
 *
 *    arguments: everyMs address…     ─► {"round"} {"answer": address} {"failed": address, "why"}
 *    standard input ends             ─► so does this process: its daemon is gone
 *
 * In a process of its own, because an error of the native package may end whoever loads it, and
 * because rounds must not wait for a busy event loop. Sockets are kept in `sockets`: the package
 * polls only while somebody holds on to them, and stops in silence otherwise.
 */
import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import { COOKIE_BYTES, echoRequest, isOurReply } from './icmp.ts';
import type { Family } from './icmp.ts';

interface RawSocket {
  on(event: 'message', listener: (bytes: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  send(bytes: Buffer, offset: number, length: number, address: string, done: (error: Error | null) => void): void;
}
interface RawPackage {
  readonly AddressFamily: { readonly IPv4: number; readonly IPv6: number };
  readonly Protocol: { readonly ICMP: number; readonly ICMPv6: number };
  createSocket(options: { readonly protocol: number; readonly addressFamily: number; readonly bufferSize: number }): RawSocket;
}

const RECEIVE_BYTES = 2048;
const say = (message: object): void => void process.stdout.write(`${JSON.stringify(message)}\n`);

const [everyText = '', ...addresses] = process.argv.slice(2);
const everyMs = Number(everyText);
if (!(everyMs > 0) || addresses.length === 0) throw new Error('usage: probe-child everyMs address…');

const cookie = randomBytes(COOKIE_BYTES);
const ident = process.pid & 0xffff;
const sockets = new Map<Family, RawSocket>();
const familyOf = (address: string): Family => (isIP(address) === 6 ? 6 : 4);
/** One spelling of an IPv6 address, as the package gives it and as it was written. */
const spelt = (address: string): string => (isIP(address) === 6 ? new URL(`http://[${address}]`).hostname : address);
const asked = new Map(addresses.map((address) => [spelt(address), address]));

function open(family: Family): void {
  const raw = createRequire(import.meta.url)('raw-socket') as RawPackage;
  const { AddressFamily, Protocol } = raw;
  const socket = raw.createSocket({
    protocol: family === 4 ? Protocol.ICMP : Protocol.ICMPv6,
    addressFamily: family === 4 ? AddressFamily.IPv4 : AddressFamily.IPv6,
    bufferSize: RECEIVE_BYTES,
  });
  socket.on('message', (bytes, source) => {
    const address = asked.get(spelt(source));
    if (address !== undefined && isOurReply(family, bytes, ident, cookie)) say({ answer: address });
  });
  socket.on('error', (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1); // the daemon starts another
  });
  sockets.set(family, socket);
}

let round = 0;
function ask(): void {
  say({ round });
  for (const address of addresses) {
    const family = familyOf(address);
    const bytes = echoRequest(family, ident, round, cookie);
    sockets.get(family)?.send(bytes, 0, bytes.length, address, (error) => {
      if (error !== null) say({ failed: address, why: error.message });
    });
  }
  round += 1;
}

for (const family of new Set(addresses.map(familyOf))) open(family);
process.stdin.on('end', () => process.exit(0)).resume();
ask();
setInterval(ask, everyMs);
