/**
 * What reached the guests from outside and is in no durable checkpoint yet.
 *
 * When a group goes back to checkpoint R, what outsiders had sent it since is lost with the guests
 * that heard it: the senders find out by their retransmission timers, 200 ms and more. So it is
 * kept, and given to the new sides as soon as they are members:
 *
 *     devices ─► one socket, filtered: from outside, to a guest ─┐  (the kernel's buffer is the record)
 *                                                               │
 *     mark 7 (a checkpoint begins) ─► taken out, kept as "before 7" ◄┘
 *     7 is durable ─► forgotten: the state has them
 *     takeover ─► all that is kept ─► the guest's new tap, in order
 *
 * To the surviving execution these frames are in transit, as I3 says of frames between members. One
 * that came between a mark and its guests' stop is in the state and sent again: a duplicate, which
 * networks make as well. Frames of members are not kept: their senders went back too.
 *
 * It is help, not safety: without it (no CAP_NET_RAW, the bound reached) the senders repeat
 * themselves, later. Not kept: tagged frames, group-addressed ones, those of the host itself, and
 * everything on bridges of other namespaces than the engine's.
 *
 * Bounds: BUFFER_BYTES in the kernel between two marks, KEPT_BYTES_MAX here; then newer ones are
 * not kept. A record lost with the engine is no loss of state.
 */
import koffi from 'koffi';
import type { GuestSpec } from './guest.ts';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int, int, int)') as (domain: number, type: number, protocol: number) => number;
const setsockopt = libc.func('int setsockopt(int, int, int, void *, uint32_t)') as (fd: number, level: number, name: number, value: Buffer, bytes: number) => number;
/** struct sock_fprog. Its pointer is the library's to fill in, so that the program lives until the call is back. */
const FILTER = koffi.struct({ count: 'uint16_t', program: 'const uint8_t *' });
const FILTER_BYTES = koffi.sizeof(FILTER);
type Filter = (fd: number, level: number, name: number, filter: { readonly count: number; readonly program: Buffer }, bytes: number) => number;
const setFilter = libc.func('setsockopt', 'int', ['int', 'int', 'int', koffi.pointer(FILTER), 'uint32_t']) as Filter;
const bind = libc.func('int bind(int, void *, uint32_t)') as (fd: number, address: Buffer, bytes: number) => number;
const recv = libc.func('long recv(int, void *, size_t, int)') as (fd: number, into: Buffer, bytes: number, flags: number) => number;
const sendto = libc.func('long sendto(int, void *, size_t, int, void *, uint32_t)') as (fd: number, from: Buffer, bytes: number, flags: number, to: Buffer, toBytes: number) => number;
const closeFd = libc.func('int close(int)') as (fd: number) => number;
const ifindexOf = libc.func('uint32_t if_nametoindex(const char *)') as (name: string) => number;

const AF_PACKET = 17;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const ETH_P_ALL = 3;
const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const MSG_DONTWAIT = 0x40;
const EINTR = 4;
const EINVAL = 22;

const VNET_HEADER_BYTES = 10;
const FRAME_BYTES_MAX = VNET_HEADER_BYTES + 65_536 + 18;
const BUFFER_BYTES = 4 << 20;
const KEPT_BYTES_MAX = 8 << 20;

interface Kept {
  readonly mark: number;
  /** With its virtio_net_hdr: offloads that the sender's stack left open are closed by the guest's. */
  readonly frame: Buffer;
}

export class Inbound {
  private readonly fd: number;
  private readonly scratch = Buffer.alloc(FRAME_BYTES_MAX);
  private kept: Kept[] = [];
  private keptBytes = 0;
  private marks = 0;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** From now on. Throws when this process may not listen. */
  static open(guests: readonly GuestSpec[]): Inbound {
    const fd = socket(AF_PACKET, SOCK_RAW_CLOEXEC, 0);
    if (fd < 0) throw failed('a packet socket');
    try {
      const flag = Buffer.alloc(4);
      flag.writeInt32LE(1);
      option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, flag);
      option(fd, SOL_PACKET, PACKET_VNET_HDR, flag);
      const bytes = Buffer.alloc(4);
      bytes.writeInt32LE(BUFFER_BYTES / 2); // the kernel doubles it
      option(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes);
      const program = filterOf(macsOf(guests));
      const code = Buffer.from(program.buffer, program.byteOffset, program.byteLength);
      if (setFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, { count: code.length / 8, program: code }, FILTER_BYTES) < 0) throw failed('the filter');
      const everywhere = addressOf(0);
      if (bind(fd, everywhere, everywhere.length) < 0) throw failed('bind');
      return new Inbound(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** A checkpoint begins: what came until now will be in it. */
  mark(): number {
    this.drain();
    this.marks += 1;
    return this.marks;
  }

  /** The checkpoint of that mark is durable. */
  forget(mark: number): void {
    this.kept = this.kept.filter((one) => one.mark >= mark);
    this.keptBytes = this.kept.reduce((sum, { frame }) => sum + frame.length, 0);
  }

  /**
   * To the taps of these guests' sides, as if it came just now. It stays kept: the next death may
   * come before the next checkpoint. Returns the frames sent.
   */
  replay(places: ReadonlyMap<string, string>): number {
    this.drain();
    const to = new Map([...places].map(([mac, port]) => [mac, addressOf(ifindexOf(port))]));
    let sent = 0;
    for (const { frame } of this.kept) {
      const address = to.get(frame.toString('hex', VNET_HEADER_BYTES, VNET_HEADER_BYTES + 6));
      if (address !== undefined && sendto(this.fd, frame, frame.length, MSG_DONTWAIT, address, address.length) === frame.length) sent += 1;
    }
    return sent;
  }

  close(): void {
    closeFd(this.fd);
  }

  private drain(): void {
    for (;;) {
      const bytes = recv(this.fd, this.scratch, this.scratch.length, MSG_DONTWAIT);
      if (bytes < 0) {
        // EINVAL: a frame whose offloads this header cannot say; it is gone, the next one may do.
        if (koffi.errno() === EINVAL || koffi.errno() === EINTR) continue;
        return;
      }
      if (this.keptBytes + bytes > KEPT_BYTES_MAX) continue;
      this.keptBytes += bytes;
      this.kept.push({ mark: this.marks, frame: Buffer.from(this.scratch.subarray(0, bytes)) });
    }
  }
}

const failed = (what: string): Error => new Error(`${what}: errno ${koffi.errno()}`);

function option(fd: number, level: number, name: number, value: Buffer): void {
  if (setsockopt(fd, level, name, value, value.length) < 0) throw failed(`setsockopt ${name}`);
}

/** sockaddr_ll of every protocol; device 0 is all of them. */
function addressOf(ifindex: number): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(ETH_P_ALL, 2);
  address.writeInt32LE(ifindex, 4);
  return address;
}

/** Of untagged nics, without colons. */
const macsOf = (guests: readonly GuestSpec[]): string[] =>
  guests.flatMap(({ nics }) => nics.filter(({ vlan }) => vlan === undefined).map(({ mac }) => plainMac(mac)));

export const plainMac = (mac: string): string => mac.replaceAll(':', '').toLowerCase();

const LOAD_WORD = 0x20;
const LOAD_HALF = 0x28;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;
const VLAN_TAG_PRESENT = 0xfffff000 + 48;
const WHOLE = 0xffffffff;

/** Classic BPF: 1 = untagged, from none of these MACs, to one of them. Exported for its test. */
export function filterOf(macs: readonly string[]): Uint32Array {
  const words: number[] = [];
  const step = (code: number, k: number, yes = 0, no = 0): void => void words.push((code | (yes << 16) | (no << 24)) >>> 0, k >>> 0);
  const each = (at: number, verdict: number): void => {
    for (const mac of macs) {
      step(LOAD_WORD, at + 2);
      step(JUMP_IF_EQUAL, Number.parseInt(mac.slice(4), 16), 0, 3);
      step(LOAD_HALF, at);
      step(JUMP_IF_EQUAL, Number.parseInt(mac.slice(0, 4), 16), 0, 1);
      step(RETURN, verdict);
    }
  };
  step(LOAD_HALF, VLAN_TAG_PRESENT);
  step(JUMP_IF_EQUAL, 0, 1, 0);
  step(RETURN, 0);
  each(6, 0);
  each(0, WHOLE);
  step(RETURN, 0);
  return Uint32Array.from(words);
}
