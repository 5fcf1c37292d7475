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
 * pool's ring had no room for are nobody's by name: who finds frames missing claims them (`missed`).
 */
import { BLOCK_BYTES, BLOCK_SHIFT, HoldMemory, Sender, VNET_BYTES, blocksOf } from '../edge/packet-socket.ts';
import type { Rows } from '../edge/packet-socket.ts';
import { PacketRing } from '../edge/packet-ring.ts';
import * as libc from '../edge/ffi/libc.ts';
import type { GroupId } from '../ports.ts';
import { BlockFill } from '../ring/block-fill.ts';
import { Intake } from '../ring/frames.ts';
import { CLASS_EARLY, CLASS_HELD, LEAD_NOTICE, stampClass, stampLead, stampNic } from '../ring/stamp.ts';
import { NIC_LAYOUT } from './cells.ts';
import type { HoldQueue } from './groups.ts';

const POOL_BYTES = 32 << 20;
const RETIRE_MS = 1;
/** Of one turn of the loop: it has others to look after. */
export const DRAIN_BLOCKS_MAX = 8;
const GROUP_BLOCKS_MIN = 64;
/** Whoever misses frames knows it long before: what is left then is of groups that closed, or in no count of theirs. */
const CLAIM_MS = 1000;
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
  /** Blocks that were taken of it: the number of the next. */
  block = 0;
  /** Frames it had no room for that nobody has missed. */
  #unclaimed = 0;
  /** When it was last seen that there were some. */
  #droppedMs = 0;

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

  /** So many blocks at most to their groups; returns how many there were. */
  drain(blocksMax: number): number {
    for (let blocks = 0; blocks < blocksMax; blocks++) {
      const block = this.ring.take(this.#intake);
      if (block < 0) return blocks;
      for (let i = 0; i < this.#intake.count; i++) this.#hand(i);
      this.ring.giveBack(block);
      this.block++;
    }
    return blocksMax;
  }
  /** A nic that is being freed is free before it loses its group: no other group gets its frame. */
  #hand(i: number): void {
    const { stamp, offset, length, arrivedMs } = this.#intake;
    const cell = (stampNic(stamp[i]!) * NIC_LAYOUT.size) >> 2;
    const group = Atomics.load(this.#nics, cell + (NIC_LAYOUT.group >> 2));
    if (Atomics.load(this.#nics, cell + (NIC_LAYOUT.member >> 2)) === 0) return;
    this.#queues.get(group)?.push(stamp[i]!, offset[i]!, length[i]!, arrivedMs[i]!);
  }

  /** How many of so many missing frames its ring had no room for; each is claimed once. */
  claim(frames: number): number {
    const dropped = this.ring.drops();
    const nowMs = performance.now();
    if (dropped > 0) this.#droppedMs = nowMs;
    else if (nowMs - this.#droppedMs > CLAIM_MS) this.#unclaimed = 0;
    this.#unclaimed += dropped;
    const claimed = Math.min(frames, this.#unclaimed);
    this.#unclaimed -= claimed;
    return claimed;
  }

  close(): void {
    this.ring.close();
  }
}

/** Records and words of a lane are in no count of the kernel's. */
const isMissed = (stamp: number): boolean => stampClass(stamp) === CLASS_EARLY || (stampClass(stamp) === CLASS_HELD && (stampLead(stamp) & LEAD_NOTICE) === 0);

export interface PooledQueueOptions {
  readonly id: GroupId;
  /** By which it sends: slr<g>. */
  readonly device: string;
  readonly bytes: number;
  /** Wall clock, with its fraction. */
  readonly wallMs: () => number;
  /** Called once. */
  readonly closed: () => void;
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
  readonly #options: PooledQueueOptions;
  /** Frames that it had no room for: they are counted, and will be found missing. */
  #toBeMissed = 0;
  #missed = 0;
  /** What the pool's block of this number has from before is an earlier life's. */
  #firstBlock = 0;
  #sinceMs = 0;
  #isClosed = false;

  constructor(pool: PacketPool, options: PooledQueueOptions) {
    const { id, device, bytes } = options;
    this.ringBlocks = blocksOf(bytes, GROUP_BLOCKS_MIN);
    this.arenaBlocks = this.ringBlocks;
    this.originSec = pool.ring.originSec;
    this.settleMs = pool.ring.settleMs;
    this.#id = id;
    this.#pool = pool;
    this.#options = options;
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

  /** From here on frames arrive. Those that are in the ring already were counted before anything of this life was (D8): they are nobody's. */
  bind(): void {
    this.#pool.drain(this.#pool.ring.ringBlocks);
    this.#firstBlock = this.#pool.block;
    this.#sinceMs = this.#options.wallMs() - this.originSec * 1000;
    this.#pool.add(this.#id, this);
  }
  /** A copy of a frame of the pool's ring waits from here on. */
  push(stamp: number, offset: number, length: number, arrivedMs: number): void {
    if (this.#pool.block === this.#firstBlock && arrivedMs < this.#sinceMs) return;
    const at = this.#fill.reserve(stamp, length, arrivedMs);
    if (at < 0) this.#toBeMissed += isMissed(stamp) ? 1 : 0;
    else this.#memory.copyIn(at - COPIED_BEFORE, this.#pool.ring.memory, offset - COPIED_BEFORE, length + COPIED_BEFORE);
  }
  get waiting(): boolean {
    return this.#fill.waiting;
  }
  /** -1: nothing of it is in the blocks that the pool had when it was asked either. */
  take(intake: Intake): number {
    for (let left = this.#pool.ring.ringBlocks; left > 0 && !this.#fill.waiting; ) {
      const drained = this.#pool.drain(Math.min(left, DRAIN_BLOCKS_MAX));
      if (drained === 0) break;
      left -= drained;
    }
    return this.#fill.take(intake);
  }
  giveBack(block: number): void {
    this.#fill.giveBack(block);
  }
  copy(to: number, from: number, bytes: number): void {
    this.#memory.copy(to, from, bytes);
  }
  drops(): number {
    const dropped = this.#fill.drops() + this.#missed;
    this.#missed = 0;
    return dropped;
  }
  missed(frames: number): void {
    const known = Math.min(this.#toBeMissed, frames);
    this.#toBeMissed -= known;
    this.#missed += this.#pool.claim(frames - known);
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
    this.#options.closed();
  }
}
