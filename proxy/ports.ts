/**
 * What the inside asks of the outside. The control side sees the world through these interfaces
 * only; the edge implements them, tests replace them, and one contract test runs over both.
 *
 *   executor ──► Journal     watermarks on disk before a release depends on them
 *            ──► Gate        kernel side: programs, maps, the two cells (colour, commit)
 *            ──► HoldPlane   the hold loop in its worker thread
 *   HoldPlane ──► PlaneFact  what happened there; returns to the core as inputs and events
 */
import type { Acked, Colour, Epoch, Generation, GroupSpec, GroupState, HeldFate, LedgerView, Swap } from './core/types.ts';

/** Small number of a protected group: index of the kernel's cells, suffix of its hold devices. */
export type GroupId = number;
/** Global index of a nic (abi.h): 1..4095. */
export type NicIndex = number;

export interface NicPlace {
  readonly nic: NicIndex;
  readonly member: string;
  readonly port: string;
  readonly ifindex: number;
}

export type EdgeErrorCode = 'journal_failed' | 'plane_down' | 'ledger_down' | 'bad_request' | 'port_claimed';

/** An operating error of an edge, as a value the API can show. `fix`: one sentence, what to do. */
export class EdgeError extends Error {
  override readonly name = 'EdgeError';
  readonly code: EdgeErrorCode;
  readonly fix: string;
  constructor(code: EdgeError['code'], message: string, fix: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.fix = fix;
  }
}

/** Everything of a group that must outlive the daemon. */
export interface JournalRecord {
  readonly id: GroupId;
  readonly state: GroupState;
}

export interface Journal {
  /** The groups as last written. A torn tail is cut off; corruption before it throws EdgeError. */
  load(): Promise<readonly JournalRecord[]>;
  /** Appends. With `durable` it resolves after fdatasync. Throws EdgeError('journal_failed'). */
  append(record: JournalRecord, durable: boolean): Promise<void>;
  forget(group: string): Promise<void>;
  /** False after a failed write until one succeeds again. */
  readonly writable: boolean;
  close(): Promise<void>;
}

/**
 * What the hosts of a group share. Nobody leads: each host writes one ack an epoch, sees everybody's,
 * and takes the least of them for committed. Absent: the daemon is alone and the journal is enough.
 */
export interface Ledger {
  /** This daemon's name in it. */
  readonly self: string;
  /** What is there now, not a moment ago. Throws EdgeError('ledger_down'). */
  read(group: string): Promise<LedgerView>;
  /** False: the head or the witness moved meanwhile, nothing was changed. Throws EdgeError('ledger_down'): it may have been. */
  swap(group: string, swap: Swap): Promise<boolean>;
  /** Not waited for: tried until it is written, fenced, or replaced by a later one of the group. */
  publish(group: string, acked: Omit<Acked, 'host'>): void;
  /** The newest view of each group, and each later one; none is lost, some may be old or said twice. */
  onView(listener: (group: string, view: LedgerView) => void): void;
}

export interface AttachResult {
  readonly id: GroupId;
  readonly holdDevice: string; // slh<id>, the bridge's side
  readonly ringDevice: string; // slr<id>, the ring's side
  readonly poolDevice?: string; // where its ring is, which it shares; absent = its own, at ringDevice
  readonly nics: readonly NicPlace[];
}

/** Kernel side of protection. All calls are idempotent: they bring the kernel to what is asked. */
export interface Gate {
  /**
   * Devices, maps, guards and programs of one group, in the order in which nothing can leak: after
   * it returns, every frame of every member is classified. On failure nothing of the group stays.
   */
  attach(id: GroupId, spec: GroupSpec, colour: Colour, members: readonly GateMember[], wire?: GateWire): Promise<AttachResult>;
  /** The same for a changed spec of an attached group. `wire` is where it was: see setWire. */
  reattach(id: GroupId, spec: GroupSpec, members: readonly GateMember[], wire?: GateWire): Promise<AttachResult>;
  detach(id: GroupId): Promise<void>;
  /** One aligned 32-bit store each. */
  setColour(id: GroupId, colour: Colour): void;
  setMemberColour(id: GroupId, member: string, colour: Colour): void;
  /** The kernel's own bound on releases: no held frame of a later colour passes it. */
  setCommit(id: GroupId, colour: Colour): void;
  setReady(id: GroupId, member: string): void;
  /**
   * Generation and base by which frames between hosts are named. Undefined closes the wire: nothing is
   * sent to other hosts and nothing of them fits; so before the colour of a new generation. Absent: a
   * plane that carries nothing between hosts.
   */
  readonly setWire?: (id: GroupId, wire: GateWire | undefined) => void;
  /** Held frames may leave whatever their colour, and a nic with none left passes new ones. */
  setDraining(id: GroupId, member: string | undefined): void;
  /**
   * Resolves when every frame that had arrived has been decided. Only of a plane where that takes
   * longer than the arrival: before a cut it makes colours exact, before a rollback it keeps what
   * the dead execution sent last from being taken for the new one's.
   */
  readonly caughtUp?: () => Promise<void>;
}

/** A group across hosts, as its frames between hosts are named. */
export interface GateWire {
  /** Members of the spec with another `host` are remote; their ports mean nothing here. */
  readonly self: string;
  /** 0 = by VXLAN. */
  readonly vlan: number;
  readonly vxlan?: { readonly vni: number; /** IPv4 address of each host. */ readonly hosts: Readonly<Record<string, string>> };
  /** On the wire its low 4 bits. */
  readonly generation: Generation;
  /** Epoch e has colour base + e; on the wire the low 12 bits of e. */
  readonly base: Colour;
  /** Nothing is sent to other hosts, and nothing from them fits. */
  readonly closed: boolean;
}

/**
 * Tells the network where a group now lives: each nic's MAC, and the addresses the spec gives it. Said
 * once when it resolves, and again later while `isStill` says so: a frame on a wire may be lost.
 */
export interface Announcer {
  announce(id: GroupId, spec: GroupSpec, nics: readonly NicPlace[], isStill: () => boolean): Promise<void>;
}

export interface GateMember {
  readonly name: string;
  readonly colour: Colour;
  readonly ready: boolean;
}

export interface HoldOptions {
  readonly holdDevice: string;
  readonly ringDevice: string;
  /** Where its ring is, which it shares; absent = its own, at ringDevice. */
  readonly poolDevice?: string;
  readonly bytes: number;
  readonly highWater: number;
  readonly colour: Colour;
  readonly epoch: Epoch;
  /** The newest that any member has: `colour`, or later. Frames of it may have come already. */
  readonly newest: Colour;
}

/** Held frames of one epoch, oldest first in a list. Bytes are frame bytes. */
export interface HeldEpoch {
  readonly epoch: Epoch;
  readonly frames: number;
  readonly bytes: number;
  readonly oldestMs: number;
}
export interface HeldFrame {
  readonly epoch: Epoch;
  readonly nic: NicIndex;
  readonly class: 'held' | 'early' | 'late';
  readonly arrivedNs: bigint; // wall clock
  readonly bytes: Uint8Array; // as they would leave, VLAN tags in place
  readonly wireBytes: number; // length before any bound on the copy
}

/** The hold loop. Commands keep their order; those that return void are not waited for. */
export interface HoldPlane {
  open(id: GroupId, options: HoldOptions): Promise<void>;
  /** Drops what is held and frees the ring. */
  close(id: GroupId): Promise<void>;
  /** `colour` is in use from now on and is epoch `epoch`. */
  advance(id: GroupId, colour: Colour, epoch: Epoch): void;
  release(id: GroupId, colour: Colour): void;
  /** See Effect 'restore'. Resolves when the in-transit frames were handed to the kernel. */
  restore(id: GroupId, restored: Colour, next: Colour, epoch: Epoch): Promise<void>;
  /** Early frames for these nics with colours <= colour may go. */
  receiver(id: GroupId, nics: readonly NicIndex[], colour: Colour): void;
  /**
   * Everything held from (and early for) these nics, now and as it arrives, leaves or is dropped.
   * undefined = all nics. Resolves when nothing is left of them, with the frames it covered; while
   * a sender never pauses, what came after the call is dropped after a bound, so it ends anyway.
   */
  drain(id: GroupId, nics: readonly NicIndex[] | undefined, held: HeldFate): Promise<number>;
  held(id: GroupId): Promise<readonly HeldEpoch[]>;
  /**
   * A copy of what is held, at most `bytesMax` bytes of frames, in pieces as fast as they are asked
   * for: what goes out first comes first, within each class. What leaves meanwhile may be missing.
   */
  dump(id: GroupId, bytesMax: number): AsyncIterable<readonly HeldFrame[]>;
  counters(id: GroupId): HoldCounters;
  onFact(listener: (fact: PlaneFact) => void): void;
  stop(): Promise<void>;
}

/** A snapshot; frames and bytes only grow except where said. */
export interface HoldCounters {
  /** Now held for the outside (gauge). */
  readonly heldFrames: number;
  readonly heldBytes: number;
  /** Age of the oldest held frame, 0 when none (gauge). */
  readonly oldestMs: number;
  /** Share of the tightest bound in use: bytes, ring blocks or descriptors (gauge, 0..1). */
  readonly occupancy: number;
  readonly arrived: number;
  readonly arrivedBytes: number;
  readonly releasedFrames: number;
  readonly releasedBytes: number;
  readonly discardedFrames: number;
  /** Dropped because the ring was full. */
  readonly overflowFrames: number;
  /** Given up after the kernel kept refusing them. */
  readonly refusedFrames: number;
  readonly earlyFrames: number;
  readonly lateRecorded: number;
  readonly redelivered: number;
  /** Hold time of released frames: counts by bucket, bounds in HOLD_BUCKETS_MS (+Inf last). */
  readonly holdHistogram: readonly number[];
  readonly holdSumMs: number;
  /** Release command to first frame handed to the kernel, same buckets in microseconds table. */
  readonly wireHistogram: readonly number[];
  readonly wireSumMs: number;
}

export const HOLD_BUCKETS_MS: readonly number[] = [
  0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 40, 50, 75, 100, 250, 500, 1000, 5000,
];
export const WIRE_BUCKETS_MS: readonly number[] = [
  0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 25, 100,
];

export type PlaneFact =
  /** No held frame of colours <= colour is left, in the ring or on its way to it. */
  | { readonly kind: 'released'; readonly id: GroupId; readonly colour: Colour }
  /** First external frame of an epoch. */
  | { readonly kind: 'output-pending'; readonly id: GroupId; readonly epoch: Epoch }
  | { readonly kind: 'high-water'; readonly id: GroupId; readonly occupancy: number; readonly heldBytes: number }
  | { readonly kind: 'overflow'; readonly id: GroupId; readonly frames: number }
  /** The group has no lanes, although its frames wanted some: they are copied into the ring. */
  | { readonly kind: 'no-lanes'; readonly id: GroupId; readonly reason: string }
  /** The loop stopped; nothing is released any more. The daemon must end. */
  | { readonly kind: 'dead'; readonly reason: string };
