/**
 * What hold queues are made of (packet-ring.ts, plane/packet-pool.ts): packet sockets, the memory
 * their frames lie in, and the sender that sends from that very memory back into the pair.
 *
 *   memory   │ blocks that frames arrive in │ arena: blocks of our own │ maybe more │   one mapping
 *   a frame  … free 4 │ virtio_net_hdr 10 │ frame …
 *                ▲ a VLAN tag goes in here, see `putTag`
 *
 * A VLAN tag arrives beside its frame: it is put back by moving the 22 bytes before it (virtio_net_hdr
 * and the two addresses) 4 bytes down, so every frame is one contiguous piece from there on, as it was
 * on the wire (I9). Checksum offsets in the virtio_net_hdr move with it.
 *
 * Sending: one message a frame, one iovec; the arrays are laid out once. A call takes up to 64. The
 * stamp travels as the frame's mark: the socket's own (SO_MARK) where the batch begins and ends with
 * it, else a control message, which the kernel copies and checks for each frame.
 */
import * as libc from './ffi/libc.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
export const ETH_P_ALL = 0x0003;
const SOL_SOCKET = 1;
export const SOL_PACKET = 263;
const SO_SNDBUFFORCE = 32;
const SO_MARK = 36;
const PACKET_STATISTICS = 6;
export const PACKET_VNET_HDR = 15;
export const PACKET_IGNORE_OUTGOING = 23;

export const BLOCK_SHIFT = 18;
export const BLOCK_BYTES = 1 << BLOCK_SHIFT;
/** Of memory that frames arrive in; as much of arena. */
const BYTES_MAX = 1 << 30;
export const VNET_BYTES = 10;
export const ETHERNET_BYTES = 14;
const BATCH_MAX = 64;
/** Of a call's own objects: beyond it they are few to the bytes. */
const LOOP_BYTES_MAX = 2048;
const SEND_BUFFER_BYTES = 16 << 20;

const MSG_WORDS = 16; // struct mmsghdr, 64 bytes
const IOV_WORDS = 4;
const CMSG_WORDS = 6;
const CMSG_BYTES = 20; // CMSG_LEN(4)
/** msg_controllen of a message that carries its own mark. */
const CONTROL_BYTES = 4 * CMSG_WORDS;
const SEND_WORDS = BATCH_MAX * (MSG_WORDS + IOV_WORDS + CMSG_WORDS);
const STATS_BYTES = 12; // struct tpacket_stats_v3; its length as the call wants it stands behind

/** The rows of a frame table that sending reads. */
export interface Rows {
  readonly stamp: Int32Array;
  readonly offset: Int32Array;
  readonly length: Int32Array;
}
/** What taking fills. */
export interface Arrivals extends Rows {
  readonly arrivedMs: Float64Array;
  count: number;
}

const gone = new Int32Array(0);
const goneBytes = new Uint8Array(0);

/** Blocks of `bytes` of hold memory, `leastBlocks` at least. */
export const blocksOf = (bytes: number, leastBlocks: number): number =>
  Math.max(leastBlocks, Math.ceil(Math.min(bytes, BYTES_MAX - BLOCK_BYTES) / BLOCK_BYTES));

export function linkAddress(ifindex: number, protocol: number): Uint8Array {
  const name = new DataView(new ArrayBuffer(20));
  name.setUint16(0, AF_PACKET, true);
  name.setUint16(2, protocol);
  name.setInt32(4, ifindex, true);
  return new Uint8Array(name.buffer);
}

/** A packet socket that is set up by `make`, or none. Throws SystemError. */
export function packetSocket(make: (fd: number) => void): number {
  const fd = libc.must(libc.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'socket', 'AF_PACKET (needs CAP_NET_RAW)');
  try {
    make(fd);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Writes the address into two words of a struct. */
function putAddress(words: Uint32Array, word: number, at: number): void {
  words[word] = at >>> 0;
  words[word + 1] = Math.floor(at / 2 ** 32);
}

/** Hold memory. Once closed, every view of it is empty. Backed only where it was used, but for a ring's part. */
export class HoldMemory {
  readonly at: number;
  readonly bytes: number;
  words: Int32Array;
  octets: Uint8Array;

  /** `ring`: the first bytes are this socket's ring, shared with the kernel. */
  constructor(bytes: number, ring?: { readonly fd: number; readonly bytes: number }) {
    this.bytes = bytes;
    const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE;
    this.at = libc.mustMap(0, bytes, flags, -1, `${bytes} bytes of hold memory`);
    try {
      if (ring !== undefined) libc.mustMap(this.at, ring.bytes, libc.MAP_SHARED | libc.MAP_FIXED, ring.fd, 'the packet ring');
    } catch (error) {
      libc.munmap(this.at, bytes);
      throw error;
    }
    const buffer = libc.view(this.at, bytes);
    this.words = new Int32Array(buffer);
    this.octets = new Uint8Array(buffer);
  }

  copy(to: number, from: number, bytes: number): void {
    this.octets.copyWithin(to, from, from + bytes);
  }
  /** The same, out of other memory. A few words are copied by a loop: it costs less than the call that copies many. */
  copyIn(to: number, other: HoldMemory, from: number, bytes: number): void {
    if (bytes > LOOP_BYTES_MAX || ((to | from) & 3) !== 0) {
      this.octets.set(other.octets.subarray(from, from + bytes), to);
      return;
    }
    const target = this.words;
    const source = other.words;
    const end = (from + bytes + 3) >> 2;
    for (let s = from >> 2, t = to >> 2; s < end; s++, t++) target[t] = source[s]!;
  }
  /** A copy of a frame, as it would leave. */
  read(offset: number, length: number): Uint8Array {
    return this.octets.slice(offset, offset + length);
  }
  /** The same, into a place of the caller's. */
  readInto(into: Uint8Array, at: number, offset: number, length: number): void {
    into.set(this.octets.subarray(offset, offset + length), at);
  }

  /** The frame at `offset` begins 4 bytes earlier, and has the tag again, from here on. */
  putTag(offset: number, tpid: number, tci: number): void {
    const { octets } = this;
    octets.copyWithin(offset - VNET_BYTES - 4, offset - VNET_BYTES, offset + 12);
    octets[offset + 8] = tpid >>> 8;
    octets[offset + 9] = tpid;
    octets[offset + 10] = tci >>> 8;
    octets[offset + 11] = tci;
    const vnet = offset - VNET_BYTES - 4;
    if (octets[vnet + 1] !== 0) this.#raise(vnet + 2); // hdr_len, where there is a gso_type
    if ((octets[vnet]! & 1) !== 0) this.#raise(vnet + 6); // csum_start
  }
  #raise(at: number): void {
    const { octets } = this;
    const value = (octets[at]! | (octets[at + 1]! << 8)) + 4;
    octets[at] = value;
    octets[at + 1] = value >>> 8;
  }

  close(): void {
    if (this.octets.length === 0) return;
    this.words = gone;
    this.octets = goneBytes;
    libc.munmap(this.at, this.bytes);
  }
}

/** Frames the kernel had no room for since the last call. Its struct has a place of its own. */
export class Drops {
  readonly #block = libc.nativeBlock(STATS_BYTES + 4, 'statistics of a packet socket');
  #words = new Uint32Array(this.#block.buffer);

  since(fd: number): number {
    this.#words[STATS_BYTES >> 2] = STATS_BYTES;
    libc.must(libc.getOption(fd, SOL_PACKET, PACKET_STATISTICS, this.#block.at, this.#block.at + STATS_BYTES), 'getsockopt', 'PACKET_STATISTICS');
    return this.#words[1]!;
  }
  close(): void {
    this.#words = new Uint32Array(0);
    libc.freeBlock(this.#block);
  }
}

export class Sender {
  static readonly batchMax = BATCH_MAX;
  readonly fd: number;
  readonly #memoryAt: number;
  readonly #arrays: libc.NativeBlock;
  #words: Uint32Array;
  /** The socket's SO_MARK. */
  #mark = 0;

  /** Sends through this device what lies in this memory. Throws SystemError. */
  constructor(ifindex: number, device: string, memory: HoldMemory) {
    this.fd = packetSocket((fd) => {
      libc.setOption(fd, SOL_PACKET, PACKET_VNET_HDR, [1], 'PACKET_VNET_HDR');
      libc.setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, [SEND_BUFFER_BYTES], 'SO_SNDBUFFORCE (needs CAP_NET_ADMIN)');
      libc.bind(fd, linkAddress(ifindex, 0), `sender to ${device}`);
    });
    this.#memoryAt = memory.at;
    this.#arrays = libc.nativeBlock(4 * SEND_WORDS, 'message headers');
    this.#words = new Uint32Array(this.#arrays.buffer);
    this.#layOut();
  }

  /** The parts of the message arrays that never change. */
  #layOut(): void {
    const words = this.#words;
    const iov = BATCH_MAX * MSG_WORDS;
    const cmsg = iov + BATCH_MAX * IOV_WORDS;
    for (let i = 0; i < BATCH_MAX; i++) {
      const m = i * MSG_WORDS;
      const c = cmsg + i * CMSG_WORDS;
      putAddress(words, m + 4, this.#arrays.at + 4 * (iov + i * IOV_WORDS));
      words[m + 6] = 1;
      putAddress(words, m + 8, this.#arrays.at + 4 * c);
      words[c] = CMSG_BYTES;
      words[c + 2] = SOL_SOCKET;
      words[c + 3] = SO_MARK;
    }
  }

  send(table: Rows, batch: Int32Array, count: number): number {
    const words = this.#words;
    const { stamp } = table;
    this.#maybeMark(stamp[batch[0]!]!, stamp[batch[count - 1]!]!);
    const atLow = this.#memoryAt >>> 0;
    const atHigh = Math.floor(this.#memoryAt / 2 ** 32);
    let iov = BATCH_MAX * MSG_WORDS;
    let cmsg = iov + BATCH_MAX * IOV_WORDS;
    for (let i = 0; i < count; i++) {
      const row = batch[i]!;
      const low = atLow + table.offset[row]! - VNET_BYTES;
      words[iov] = low;
      words[iov + 1] = low >= 2 ** 32 ? atHigh + 1 : atHigh;
      words[iov + 2] = table.length[row]! + VNET_BYTES;
      words[i * MSG_WORDS + 10] = stamp[row] === this.#mark ? 0 : CONTROL_BYTES;
      words[cmsg + 4] = stamp[row]!;
      iov += IOV_WORDS;
      cmsg += CMSG_WORDS;
    }
    const sent = libc.sendmmsg(this.fd, this.#arrays.at, count, libc.MSG_DONTWAIT);
    return sent < 0 ? -libc.errno() : sent;
  }

  /** An epoch's frames of one nic have one stamp: then a call for all of them is cheaper than a message for each. */
  #maybeMark(first: number, last: number): void {
    if (first !== last || first === this.#mark) return;
    libc.setOption(this.fd, SOL_SOCKET, SO_MARK, [first], 'SO_MARK');
    this.#mark = first;
  }

  close(): void {
    libc.close(this.fd);
    this.#words = new Uint32Array(0);
    libc.freeBlock(this.#arrays);
  }
}
