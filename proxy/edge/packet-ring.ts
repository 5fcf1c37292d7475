/**
 * A TPACKET_V3 ring: the kernel writes frames into memory that it shares with us.
 *
 *   memory      │ ring: blocks shared with the kernel │ more, of the owner's own │
 *   one block   │ header 48 │ frame │ frame │ …
 *   one frame   │ tpacket3_hdr 48 │ sockaddr 20 │ free 14 │ virtio_net_hdr 10 │ frame … │
 *
 * Taking a block reads its frames' headers; payload is not looked at. The kernel hands a block over
 * when it is full or its timer runs out, and that timer fires for ever, traffic or not (D32): so rings
 * are few. `RingQueue` is the hold queue of a group that has one of its own, packet-pool.ts of all others.
 *
 * What it does not do: decide, retry, or know colours. Blocks come and go back in any order.
 * Errors when it is opened are thrown with what to do; the caller closes on any error after that.
 * Bounds: 16 MiB to 1 GiB of ring, the kernel's from the start.
 */
import * as libc from './ffi/libc.ts';
import {
  BLOCK_BYTES, BLOCK_SHIFT, Drops, ETHERNET_BYTES, ETH_P_ALL, HoldMemory, PACKET_IGNORE_OUTGOING, PACKET_VNET_HDR, SOL_PACKET, Sender,
  blocksOf, linkAddress, packetSocket,
} from './packet-socket.ts';
import type { Arrivals, Rows } from './packet-socket.ts';

const PACKET_RX_RING = 5;
const PACKET_VERSION = 10;
const TPACKET_V3 = 2;
const TP_FT_REQ_FILL_RXHASH = 1;
const TP_STATUS_USER = 1;
const TP_STATUS_VLAN_VALID = 0x10;
const TP_STATUS_VLAN_TPID_VALID = 0x40;

/** A block is retired every ms under traffic, or less often: so long may the loop be kept off its CPU. */
const BLOCKS_MIN = 64;
const FRAME_BYTES = 2048;
/** What a frame takes of a block at least: its headers and its Ethernet header, aligned to 8. */
const SLOT_BYTES_MIN = 112;
/** Frames of one block at most. */
export const BLOCK_FRAMES_MAX = Math.ceil(BLOCK_BYTES / SLOT_BYTES_MIN);

function openRing(device: string, blocks: number, retireMs: number): number {
  return packetSocket((fd) => {
    const set = (name: number, values: readonly number[], about: string): void => libc.setOption(fd, SOL_PACKET, name, values, about);
    set(PACKET_VERSION, [TPACKET_V3], 'PACKET_VERSION 3');
    set(PACKET_VNET_HDR, [1], 'PACKET_VNET_HDR');
    set(PACKET_IGNORE_OUTGOING, [1], 'PACKET_IGNORE_OUTGOING');
    const request = [BLOCK_BYTES, blocks, FRAME_BYTES, (BLOCK_BYTES / FRAME_BYTES) * blocks, retireMs, 0, TP_FT_REQ_FILL_RXHASH];
    set(PACKET_RX_RING, request, `PACKET_RX_RING of ${blocks} blocks for ${device}`);
  });
}

export class PacketRing {
  readonly ringBlocks: number;
  readonly ifindex: number;
  /** Arrival times count from this second of the wall clock. */
  readonly originSec: number;
  readonly settleMs: number;
  readonly fd: number;
  readonly memory: HoldMemory;
  readonly #device: string;
  readonly #drops: Drops;
  /** Blocks we have not given back still say "yours": the kernel comes round to them. */
  readonly #taken: Uint8Array;
  #nextBlock = 0;
  #closed = false;

  /** `retireMs`: a block that is not full is handed over after this time, at least 1. `arena`: as much memory besides. */
  constructor(device: string, { bytes, retireMs, arena = false }: { readonly bytes: number; readonly retireMs: number; readonly arena?: boolean }) {
    this.ifindex = libc.ifNametoindex(device);
    this.ringBlocks = blocksOf(bytes, BLOCKS_MIN);
    this.settleMs = 2 * retireMs + 1;
    this.#taken = new Uint8Array(this.ringBlocks);
    this.originSec = Math.floor(Date.now() / 1000);
    this.#device = device;
    this.fd = openRing(device, this.ringBlocks, retireMs);
    this.#drops = new Drops();
    const ringBytes = this.ringBlocks * BLOCK_BYTES;
    try {
      this.memory = new HoldMemory(arena ? 2 * ringBytes : ringBytes, { fd: this.fd, bytes: ringBytes });
    } catch (error) {
      libc.close(this.fd);
      this.#drops.close();
      throw error;
    }
  }

  /** From here on frames arrive. */
  bind(): void {
    libc.bind(this.fd, linkAddress(this.ifindex, ETH_P_ALL), `ring to ${this.#device}`);
  }

  /** A block may be taken. */
  get waiting(): boolean {
    const base = this.#nextBlock << (BLOCK_SHIFT - 2);
    return this.#taken[this.#nextBlock] === 0 && (Atomics.load(this.memory.words, base + 2) & TP_STATUS_USER) !== 0;
  }

  take(intake: Arrivals): number {
    if (!this.waiting) return -1;
    const { words } = this.memory;
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
      this.memory.putTag(offset, tpid, words[at + 8]!);
      offset -= 4;
      length += 4;
    }
    intake.stamp[i] = words[at + 7]!;
    intake.offset[i] = offset;
    intake.length[i] = length;
    intake.arrivedMs[i] = ((words[at + 1]! >>> 0) - this.originSec) * 1000 + words[at + 2]! / 1e6;
  }

  giveBack(block: number): void {
    this.#taken[block] = 0;
    Atomics.store(this.memory.words, (block << (BLOCK_SHIFT - 2)) + 2, 0);
  }
  drops(): number {
    return this.#drops.since(this.fd);
  }

  get isClosed(): boolean {
    return this.#closed;
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.memory.close();
    libc.close(this.fd);
    this.#drops.close();
  }
}

/** The hold queue of a group that has a ring of its own, on the ring's side of its hold pair: frames stay where the kernel has written them. */
export class RingQueue extends PacketRing {
  readonly arenaBlocks: number;
  readonly blockShift = BLOCK_SHIFT;
  readonly batchMax = Sender.batchMax;
  readonly #sender: Sender;

  constructor(device: string, bytes: number, retireMs = 1) {
    super(device, { bytes, retireMs, arena: true });
    this.arenaBlocks = this.ringBlocks;
    try {
      this.#sender = new Sender(this.ifindex, device, this.memory);
    } catch (error) {
      super.close();
      throw error;
    }
  }
  copy(to: number, from: number, bytes: number): void {
    this.memory.copy(to, from, bytes);
  }
  send(table: Rows, batch: Int32Array, count: number): number {
    return this.#sender.send(table, batch, count);
  }
  readInto(into: Uint8Array, at: number, offset: number, length: number): void {
    this.memory.readInto(into, at, offset, length);
  }
  override close(): void {
    if (this.isClosed) return;
    super.close();
    this.#sender.close();
  }
}
