/**
 * The hold queue itself: a TPACKET_V3 ring on the ring's side of the hold pair, and the socket that
 * sends from the very same memory back into the pair.
 *
 *   one mapping   │ ring: blocks shared with the kernel          │ arena: our own blocks │
 *   one block     │ header 48 │ frame │ frame │ …
 *   one frame     │ tpacket3_hdr 48 │ sockaddr 20 │ free 14 │ virtio_net_hdr 10 │ frame … │
 *                                                  ▲ a VLAN tag goes in here, see below
 *
 * Taking a block reads its frames' headers; payload is never looked at. A VLAN tag arrives beside
 * the frame: it is put back at once by moving the 22 bytes before it (virtio_net_hdr and the two
 * addresses) 4 bytes down into the free ones, so every frame is one contiguous piece from there
 * on, as it was on the wire (I9). Checksum offsets in the virtio_net_hdr move with it.
 *
 * Sending: one message a frame, one iovec; the arrays are laid out once. A call takes up to 64. The
 * stamp travels as the frame's mark: the socket's own (SO_MARK) where the batch begins and ends with
 * it, else a control message, which the kernel copies and checks for each frame.
 *
 * What it does not do: decide, retry, or know colours. Blocks come and go back in any order.
 * Errors when it is opened are thrown with what to do; the caller closes on any error after that.
 * Bounds: 16 MiB to 1 GiB of ring and as much of arena (backed only where it was used).
 */
import * as libc from './ffi/libc.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
const ETH_P_ALL = 0x0003;
const SOL_SOCKET = 1;
const SOL_PACKET = 263;
const SO_SNDBUFFORCE = 32;
const SO_MARK = 36;
const PACKET_RX_RING = 5;
const PACKET_STATISTICS = 6;
const PACKET_VERSION = 10;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const TPACKET_V3 = 2;
const TP_FT_REQ_FILL_RXHASH = 1;
const TP_STATUS_USER = 1;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;

const BLOCK_SHIFT = 18;
const BLOCK_BYTES = 1 << BLOCK_SHIFT;
const RING_BYTES_MAX = 1 << 30;
/** A block is retired every ms under traffic, or less often: so long may the loop be kept off its CPU. */
const RING_BLOCKS_MIN = 64;
const VNET_BYTES = 10;
const ETHERNET_BYTES = 14;
/** What a frame takes of a block at least: its headers and its Ethernet header, aligned to 8. */
const SLOT_BYTES_MIN = 112;
/** Frames of one block at most. */
export const BLOCK_FRAMES_MAX = Math.ceil(BLOCK_BYTES / SLOT_BYTES_MIN);
const BATCH_MAX = 64;
const SEND_BUFFER_BYTES = 16 << 20;

const MSG_WORDS = 16; // struct mmsghdr, 64 bytes
const IOV_WORDS = 4;
const CMSG_WORDS = 6;
const CMSG_BYTES = 20; // CMSG_LEN(4)
/** msg_controllen of a message that carries its own mark. */
const CONTROL_BYTES = 4 * CMSG_WORDS;
const STATS_WORD = BATCH_MAX * (MSG_WORDS + IOV_WORDS + CMSG_WORDS);
const STATS_BYTES = 12; // struct tpacket_stats_v3; its length as the call wants it stands behind

/** The rows of a frame table that sending reads. */
interface Rows {
  readonly stamp: Int32Array;
  readonly offset: Int32Array;
  readonly length: Int32Array;
}
interface Arrivals extends Rows {
  readonly arrivedMs: Float64Array;
  count: number;
}

const gone = new Int32Array(0);
const goneBytes = new Uint8Array(0);

function linkAddress(ifindex: number, protocol: number): Uint8Array {
  const name = new DataView(new ArrayBuffer(20));
  name.setUint16(0, AF_PACKET, true);
  name.setUint16(2, protocol);
  name.setInt32(4, ifindex, true);
  return new Uint8Array(name.buffer);
}

function packetSocket(): number {
  return libc.must(libc.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'socket', 'AF_PACKET (needs CAP_NET_RAW)');
}

function openRing(device: string, blocks: number, retireMs: number): number {
  const fd = packetSocket();
  try {
    const set = (name: number, values: readonly number[], about: string): void => libc.setOption(fd, SOL_PACKET, name, values, about);
    set(PACKET_VERSION, [TPACKET_V3], 'PACKET_VERSION 3');
    set(PACKET_VNET_HDR, [1], 'PACKET_VNET_HDR');
    set(PACKET_IGNORE_OUTGOING, [1], 'PACKET_IGNORE_OUTGOING');
    const frameBytes = 2048;
    const frames = (BLOCK_BYTES / frameBytes) * blocks;
    const request = [BLOCK_BYTES, blocks, frameBytes, frames, retireMs, 0, TP_FT_REQ_FILL_RXHASH];
    set(PACKET_RX_RING, request, `PACKET_RX_RING of ${blocks} blocks for ${device}`);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

function openSender(ifindex: number, device: string): number {
  const fd = packetSocket();
  try {
    libc.setOption(fd, SOL_PACKET, PACKET_VNET_HDR, [1], 'PACKET_VNET_HDR');
    libc.setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, [SEND_BUFFER_BYTES], 'SO_SNDBUFFORCE (needs CAP_NET_ADMIN)');
    libc.bind(fd, linkAddress(ifindex, 0), `sender to ${device}`);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Memory of ring and arena, one after the other. Once closed, every view of it is empty. */
class Region {
  readonly at: number;
  readonly bytes: number;
  words: Int32Array;
  octets: Uint8Array;

  constructor(fd: number, ringBytes: number, arenaBytes: number) {
    this.bytes = ringBytes + arenaBytes;
    const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE;
    this.at = libc.mustMap(0, this.bytes, flags, -1, `${this.bytes} bytes of hold memory`);
    try {
      libc.mustMap(this.at, ringBytes, libc.MAP_SHARED | libc.MAP_FIXED, fd, 'the packet ring');
    } catch (error) {
      libc.munmap(this.at, this.bytes);
      throw error;
    }
    const buffer = libc.view(this.at, this.bytes);
    this.words = new Int32Array(buffer);
    this.octets = new Uint8Array(buffer);
  }

  close(): void {
    if (this.octets.length === 0) return;
    this.words = gone;
    this.octets = goneBytes;
    libc.munmap(this.at, this.bytes);
  }
}

export class HoldSocket {
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift = BLOCK_SHIFT;
  readonly batchMax = BATCH_MAX;
  /** Arrival times count from this second of the wall clock. */
  readonly originSec: number;
  readonly settleMs: number;
  readonly ringFd: number;
  readonly senderFd: number;
  readonly #device: string;
  readonly #ifindex: number;
  readonly #region: Region;
  /** Blocks we have not given back still say "yours": the kernel comes round to them. */
  readonly #taken: Uint8Array;
  readonly #arrays: libc.NativeBlock;
  #send: Uint32Array;
  #nextBlock = 0;
  /** The sender's SO_MARK. */
  #mark = 0;
  #closed = false;

  /** `retireMs`: a block that is not full is handed over after this time, at least 1. */
  constructor(device: string, bytes: number, retireMs = 1) {
    const ifindex = libc.ifNametoindex(device);
    this.ringBlocks = Math.max(RING_BLOCKS_MIN, Math.ceil(Math.min(bytes, RING_BYTES_MAX - BLOCK_BYTES) / BLOCK_BYTES));
    this.arenaBlocks = this.ringBlocks;
    this.settleMs = 2 * retireMs + 1;
    this.#taken = new Uint8Array(this.ringBlocks);
    this.originSec = Math.floor(Date.now() / 1000);
    this.#arrays = libc.nativeBlock(4 * (STATS_WORD + 4), 'message headers');
    this.#send = new Uint32Array(this.#arrays.buffer);
    this.#layOut();
    const open: number[] = [];
    let mapped: Region | undefined;
    try {
      this.ringFd = openRing(device, this.ringBlocks, retireMs);
      open.push(this.ringFd);
      mapped = new Region(this.ringFd, this.ringBlocks * BLOCK_BYTES, this.arenaBlocks * BLOCK_BYTES);
      this.#region = mapped;
      this.senderFd = openSender(ifindex, device);
    } catch (error) {
      if (mapped !== undefined) mapped.close();
      open.forEach(libc.close);
      throw error;
    }
    this.#device = device;
    this.#ifindex = ifindex;
  }

  /** From here on frames arrive. */
  bind(): void {
    libc.bind(this.ringFd, linkAddress(this.#ifindex, ETH_P_ALL), `ring to ${this.#device}`);
  }

  /** The parts of the message arrays that never change. */
  #layOut(): void {
    const words = this.#send;
    const iov = BATCH_MAX * MSG_WORDS;
    const cmsg = iov + BATCH_MAX * IOV_WORDS;
    const address = (word: number, at: number): void => {
      words[word] = at >>> 0;
      words[word + 1] = Math.floor(at / 2 ** 32);
    };
    for (let i = 0; i < BATCH_MAX; i++) {
      const m = i * MSG_WORDS;
      const c = cmsg + i * CMSG_WORDS;
      address(m + 4, this.#arrays.at + 4 * (iov + i * IOV_WORDS));
      words[m + 6] = 1;
      address(m + 8, this.#arrays.at + 4 * c);
      words[c] = CMSG_BYTES;
      words[c + 2] = SOL_SOCKET;
      words[c + 3] = SO_MARK;
    }
  }

  /** A block may be taken. */
  get waiting(): boolean {
    const base = this.#nextBlock << (BLOCK_SHIFT - 2);
    return this.#taken[this.#nextBlock] === 0 && (Atomics.load(this.#region.words, base + 2) & TP_STATUS_USER) !== 0;
  }

  take(intake: Arrivals): number {
    if (!this.waiting) return -1;
    const { words } = this.#region;
    const block = this.#nextBlock;
    const base = block << (BLOCK_SHIFT - 2);
    this.#nextBlock = block + 1 === this.ringBlocks ? 0 : block + 1;
    this.#taken[block] = 1;
    const frames = words[base + 3]!;
    let at = base + (words[base + 4]! >>> 2);
    for (let i = 0; i < frames; i++) {
      this.#frame(words, at, intake, i);
      at += words[at]! >>> 2;
    }
    intake.count = frames;
    return block;
  }

  #frame(words: Int32Array, at: number, intake: Arrivals, i: number): void {
    const bytes = words[at + 3]!;
    const whole = bytes === words[at + 4]! && bytes >= ETHERNET_BYTES;
    const status = words[at + 5]!;
    let offset = (at << 2) + (words[at + 6]! & 0xffff);
    let length = whole ? bytes : 0;
    if ((status & TP_STATUS_VLAN_VALID) !== 0 && whole) {
      const tpid = (status & TP_STATUS_VLAN_TPID_VALID) !== 0 ? words[at + 9]! & 0xffff : 0x8100;
      this.#putTag(offset, tpid, words[at + 8]!);
      offset -= 4;
      length += 4;
    }
    intake.stamp[i] = words[at + 7]!;
    intake.offset[i] = offset;
    intake.length[i] = length;
    intake.arrivedMs[i] = ((words[at + 1]! >>> 0) - this.originSec) * 1000 + words[at + 2]! / 1e6;
  }

  #putTag(offset: number, tpid: number, tci: number): void {
    const { octets } = this.#region;
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
    const { octets } = this.#region;
    const value = (octets[at]! | (octets[at + 1]! << 8)) + 4;
    octets[at] = value;
    octets[at + 1] = value >>> 8;
  }

  giveBack(block: number): void {
    this.#taken[block] = 0;
    Atomics.store(this.#region.words, (block << (BLOCK_SHIFT - 2)) + 2, 0);
  }

  copy(to: number, from: number, bytes: number): void {
    this.#region.octets.copyWithin(to, from, from + bytes);
  }

  /** Frames the kernel had no room for since the last call. */
  drops(): number {
    const words = this.#send;
    words[STATS_WORD + 3] = STATS_BYTES;
    const at = this.#arrays.at + 4 * STATS_WORD;
    libc.must(libc.getOption(this.ringFd, SOL_PACKET, PACKET_STATISTICS, at, at + STATS_BYTES), 'getsockopt', 'PACKET_STATISTICS');
    return words[STATS_WORD + 1]!;
  }

  send(table: Rows, batch: Int32Array, count: number): number {
    const words = this.#send;
    const { stamp } = table;
    this.#maybeMark(stamp[batch[0]!]!, stamp[batch[count - 1]!]!);
    const atLow = this.#region.at >>> 0;
    const atHigh = Math.floor(this.#region.at / 2 ** 32);
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
    const sent = libc.sendmmsg(this.senderFd, this.#arrays.at, count, libc.MSG_DONTWAIT);
    return sent < 0 ? -libc.errno() : sent;
  }

  /** An epoch's frames of one nic have one stamp: then a call for all of them is cheaper than a message for each. */
  #maybeMark(first: number, last: number): void {
    if (first !== last || first === this.#mark) return;
    libc.setOption(this.senderFd, SOL_SOCKET, SO_MARK, [first], 'SO_MARK');
    this.#mark = first;
  }

  /** A copy of a frame, as it would leave. */
  read(offset: number, length: number): Uint8Array {
    return this.#region.octets.slice(offset, offset + length);
  }

  /** The same, into a place of the caller's. */
  readInto(into: Uint8Array, at: number, offset: number, length: number): void {
    into.set(this.#region.octets.subarray(offset, offset + length), at);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#region.close();
    libc.close(this.ringFd);
    libc.close(this.senderFd);
    this.#send = new Uint32Array(0);
    libc.freeBlock(this.#arrays);
  }
}
