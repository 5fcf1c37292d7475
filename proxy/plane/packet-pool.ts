/**
 * One ring for all groups that have none of their own, and the hold queues it fills.
 *
 *   slr<g> ─┐                        ┌─► queue of g ─► pump of g          a copy of each frame, in
 *   slr<h> ─┼─► slrp: ring ─► drain ─┤                                    memory that is backed where
 *   slr<i> ─┘   one timer            └─► queue of h ─► pump of h          it was used
 *
 * The kernel sends what comes to a pooled group's ring device on to the pool's (`sink`, D102). Whose a
 * frame is says its stamp: the nic, and the nic's cell the group. A frame of no group that is here is
 * dropped: its nic has been freed, or its group has closed.
 *
 * Bounds: POOL_BYTES of ring for all of them, for as long as the loop is kept off its CPU; what a group
 * holds is in blocks of its own, so that one which is full costs the others nothing. Frames that the
 * pool's ring had no room for are nobody's by name: their groups find them missing (`missed`).
 */
import { BLOCK_BYTES, BLOCK_SHIFT, HoldMemory, Sender, VNET_BYTES, blocksOf } from '../edge/packet-socket.ts';
import type { Rows } from '../edge/packet-socket.ts';
import { PacketRing } from '../edge/packet-ring.ts';
import * as libc from '../edge/ffi/libc.ts';
import type { GroupId } from '../ports.ts';
import { BlockFill } from '../ring/block-fill.ts';
import { Intake } from '../ring/frames.ts';
import { stampNic } from '../ring/stamp.ts';
import { NIC_LAYOUT } from './cells.ts';
import type { HoldQueue } from './groups.ts';

const POOL_BYTES = 32 << 20;
const RETIRE_MS = 1;
/** Of one drain: the loop has others to look after. */
const BLOCKS_MAX = 8;
const GROUP_BLOCKS_MIN = 64;
/** Before a frame: its place's header, and what moves with it. */
const LEAD_BYTES = 32;
/** Its virtio_net_hdr and two bytes more: from there on both sides are whole words. */
const COPIED_BEFORE = VNET_BYTES + 2;

const NO_BLOCKS = new BlockFill({ words: new Int32Array(0), times: new Float64Array(0) }, { blocks: 0, blockBytes: BLOCK_BYTES, lead: LEAD_BYTES });

export const POOLED_BLOCK_FRAMES_MAX = BlockFill.framesMax(BLOCK_BYTES, LEAD_BYTES);

export class PacketPool {
  readonly ring: PacketRing;
  readonly #nics: Int32Array;
  readonly #intake: Intake;
  readonly #queues = new Map<GroupId, PooledQueue>();

  /** `nics`: the kernel's map of them. Throws what is wrong outside. */
  constructor(device: string, nics: ArrayBuffer, blockFramesMax: number) {
    this.#nics = new Int32Array(nics);
    this.#intake = new Intake(blockFramesMax);
    this.ring = new PacketRing(device, { bytes: POOL_BYTES, retireMs: RETIRE_MS });
    try {
      this.ring.bind();
    } catch (error) {
      this.ring.close();
      throw error;
    }
  }

  get isEmpty(): boolean {
    return this.#queues.size === 0;
  }
  add(id: GroupId, queue: PooledQueue): void {
    this.#queues.set(id, queue);
  }
  remove(id: GroupId, queue: PooledQueue): void {
    if (this.#queues.get(id) === queue) this.#queues.delete(id);
  }

  /** Some blocks to their groups. False: there was none. */
  drain(): boolean {
    for (let blocks = 0; blocks < BLOCKS_MAX; blocks++) {
      const block = this.ring.take(this.#intake);
      if (block < 0) return blocks > 0;
      for (let i = 0; i < this.#intake.count; i++) this.#hand(i);
      this.ring.giveBack(block);
    }
    return true;
  }
  #hand(i: number): void {
    const { stamp, offset, length, arrivedMs } = this.#intake;
    const cell = (stampNic(stamp[i]!) * NIC_LAYOUT.size) >> 2;
    if (this.#nics[cell + (NIC_LAYOUT.member >> 2)] === 0) return;
    this.#queues.get(this.#nics[cell + (NIC_LAYOUT.group >> 2)]!)?.push(stamp[i]!, offset[i]!, length[i]!, arrivedMs[i]!);
  }

  close(): void {
    this.ring.close();
  }
}

/** The hold queue of a group without a ring of its own. */
export class PooledQueue implements HoldQueue {
  readonly ringBlocks: number;
  readonly arenaBlocks: number;
  readonly blockShift = BLOCK_SHIFT;
  readonly batchMax = Sender.batchMax;
  readonly originSec: number;
  readonly settleMs: number;
  readonly #id: GroupId;
  readonly #pool: PacketPool;
  readonly #memory: HoldMemory;
  #fill: BlockFill;
  readonly #sender: Sender;
  readonly #closed: () => void;
  /** Frames that it had no room for and has counted: they will be found missing. */
  #toBeMissed = 0;
  #missed = 0;
  #isClosed = false;

  /** It sends by `device`. `closed` is called once. */
  constructor(id: GroupId, device: string, bytes: number, pool: PacketPool, closed: () => void) {
    this.ringBlocks = blocksOf(bytes, GROUP_BLOCKS_MIN);
    this.arenaBlocks = this.ringBlocks;
    this.originSec = pool.ring.originSec;
    this.settleMs = pool.ring.settleMs;
    this.#id = id;
    this.#pool = pool;
    this.#closed = closed;
    const ifindex = libc.ifNametoindex(device);
    this.#memory = new HoldMemory((this.ringBlocks + this.arenaBlocks) * BLOCK_BYTES);
    const { words, octets } = this.#memory;
    this.#fill = new BlockFill({ words, times: new Float64Array(octets.buffer) }, { blocks: this.ringBlocks, blockBytes: BLOCK_BYTES, lead: LEAD_BYTES });
    try {
      this.#sender = new Sender(ifindex, device, this.#memory);
    } catch (error) {
      this.#memory.close();
      throw error;
    }
  }

  bind(): void {
    this.#pool.add(this.#id, this);
  }
  /** A copy of a frame of the pool's ring waits from here on. */
  push(stamp: number, offset: number, length: number, arrivedMs: number): void {
    const at = this.#fill.reserve(stamp, length, arrivedMs);
    if (at >= 0) this.#memory.copyIn(at - COPIED_BEFORE, this.#pool.ring.memory, offset - COPIED_BEFORE, length + COPIED_BEFORE);
  }
  get waiting(): boolean {
    return this.#fill.waiting;
  }
  /** -1: nothing of it is in the pool either. */
  take(intake: Intake): number {
    while (!this.#fill.waiting && this.#pool.drain());
    return this.#fill.take(intake);
  }
  giveBack(block: number): void {
    this.#fill.giveBack(block);
  }
  copy(to: number, from: number, bytes: number): void {
    this.#memory.copy(to, from, bytes);
  }
  drops(): number {
    const full = this.#fill.drops();
    const dropped = full + this.#missed;
    this.#toBeMissed += full;
    this.#missed = 0;
    return dropped;
  }
  missed(frames: number): void {
    const known = Math.min(this.#toBeMissed, frames);
    this.#toBeMissed -= known;
    this.#missed += frames - known;
  }
  send(table: Rows, batch: Int32Array, count: number): number {
    return this.#sender.send(table, batch, count);
  }
  readInto(into: Uint8Array, at: number, offset: number, length: number): void {
    this.#memory.readInto(into, at, offset, length);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#pool.remove(this.#id, this);
    this.#fill = NO_BLOCKS; // it has views of the memory
    this.#memory.close();
    this.#sender.close();
    this.#closed();
  }
}
