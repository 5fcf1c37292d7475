/**
 * The vocabulary of the core: what a group is, what may be asked of it, what it asks of the world.
 * Nothing here runs; nothing here is imported from anywhere else.
 *
 * Watermarks, and the one inequality that holds after every step:
 *
 *     released <= committed <= acked <= sealed      open = sealed + 1
 *
 *        1   2   3   4   5   6   7   8      epochs of one generation
 *        └released┘   │       │   └ open: being filled
 *                committed  sealed          (acked between them)
 *
 * An *epoch* is the number the engine knows; after a rollback to R it counts on from R + 1.
 * A *colour* is its name in the data plane: it only grows, so a frame of an execution that was
 * rolled back can never be taken for one of the execution that replaced it (I5, I7).
 */

declare const brand: unique symbol;
type Branded<T, B extends string> = T & { readonly [brand]: B };

/** Epoch number as the engine counts it: 1 is the first after protect; 0 is the state at protect. */
export type Epoch = Branded<number, 'epoch'>;
/** Fencing number of a group; only a takeover or a new protection raises it. At least 1. */
export type Generation = Branded<number, 'generation'>;
/** Monotonic number of an epoch in the data plane, u32, compared by serial arithmetic. */
export type Colour = Branded<number, 'colour'>;

export const epoch = (n: number): Epoch => n as Epoch;
export const generation = (n: number): Generation => n as Generation;
export const colour = (n: number): Colour => (n >>> 0) as Colour;

/** a - b on the serial circle of u32: negative, zero or positive. */
export const colourDiff = (a: Colour, b: Colour): number => (a - b) | 0;

/** Most epochs between `released` and the newest open one; a further cut is denied. */
export const EPOCHS_IN_FLIGHT_MAX = 1024;
/** Most epochs a member may be ahead of the group: a late frame's lead has 4 bits (abi.h). */
export const MEMBER_LEAD_MAX = 8;
/**
 * Most colours between the last one known released and the newest, rollbacks included; one more
 * rollback is denied. Half of the hold ring's window of 4096, an eighth of the stamps' circle.
 */
export const COLOURS_IN_FLIGHT_MAX = 2 * EPOCHS_IN_FLIGHT_MAX - 64;
/** Largest epoch or generation taken from outside: sums with a colour stay exact in a double. */
export const NUMBER_MAX = 2 ** 48;
/** Most nics of one group: the bound of the classifier's walk over them (abi.h). */
export const GROUP_NICS_MAX = 256;

export interface NicSpec {
  readonly port: string;
  /** Lower case, colon separated. */
  readonly mac: string;
  /** 0 = untagged. */
  readonly vlan: number;
  /** IP addresses to announce after a takeover, in their shortest form; absent = none. They decide nothing. */
  readonly addresses?: readonly string[];
}
export interface MemberSpec {
  readonly name: string;
  /** The host it lives on; absent = the daemon's own, in a group of one host. All members or none. */
  readonly host?: string;
  readonly nics: readonly NicSpec[];
}
/** By the outer VLAN id of a switched network, or by VXLAN: the VNI, and each host's IPv4 address. */
export type Wire = { readonly vlan: number } | { readonly vxlan: number; readonly hosts: Readonly<Record<string, string>> };
export interface GroupSpec {
  readonly group: string;
  readonly commit: 'explicit' | 'acks';
  readonly members: readonly MemberSpec[];
  readonly hold: { readonly bytes: number; readonly highWater: number };
  readonly foreignSource: 'hold' | 'drop';
  readonly intraPath: 'redirect' | 'bridge';
  /** How frames reach members elsewhere. Required across hosts, meaningless on one. */
  readonly wire?: Wire;
}
/** What becomes of held frames when protection ends. */
export type HeldFate = 'release' | 'discard';

/**
 * idle       no program attached, every frame passes
 * protected  holding
 * draining   unprotect(release): held frames leave in order, then new ones pass (I6)
 * fenced     across hosts: the group went on in a higher generation without this host. It holds,
 *            releases nothing new, and waits for its own engine's word (across.ts)
 */
export type Phase = 'idle' | 'protected' | 'draining' | 'fenced';

export interface MemberState {
  readonly name: string;
  /** Last epoch this member has sealed; its open epoch is sealed + 1. >= the group's sealed. */
  readonly sealed: Epoch;
  /** Last epoch of this member that is durable at its backup. <= its sealed. */
  readonly acked: Epoch;
  /** False from a join under protection until every frame held for it before is released (I6). */
  readonly ready: boolean;
  /** Epoch that was open (the newest of any member) when it joined; 0 = member since protect. */
  readonly joinedAt: Epoch;
}

/** The whole of what the core knows of one group. Plain data: JSON in, JSON out (the journal). */
export interface GroupState {
  readonly spec: GroupSpec;
  readonly phase: Phase;
  /** Highest generation ever used; 0 = never protected. */
  readonly generation: Generation;
  readonly released: Epoch;
  readonly committed: Epoch;
  readonly acked: Epoch;
  readonly sealed: Epoch;
  /** colour of epoch e of the present execution = colourBase + e (u32). */
  readonly colourBase: Colour;
  /** Newest colour ever used: >= that of any member's open epoch, kept when a leading member leaves. */
  readonly colourNewest: Colour;
  /** Newest colour of which the data plane said that nothing is held any more. */
  readonly colourReleased: Colour;
  /**
   * The last rollback's target in the colours before it. A fact about an older colour, still on its
   * way when the base was raised, is read through this seam. Absent: none since protect or restart.
   */
  readonly seam?: { readonly colour: Colour; readonly epoch: Epoch };
  readonly members: readonly MemberState[];
  /** Generation and epoch of the takeover that began this generation, to know an exact repeat. */
  readonly takeover?: { readonly generation: Generation; readonly epoch: Epoch };
  /** Of a group across hosts: `members` are then this host's, and the ledger says what is committed. */
  readonly across?: Across;
}

/** What a host knows of its group's record in the ledger. */
export interface Across {
  readonly self: string;
  /** Of the newest head that was taken up. */
  readonly serial: number;
  /** Of the generation this host is in: see Head. */
  readonly life?: string | undefined;
  /** Of this host's epochs: see Head. */
  readonly line?: string | undefined;
  /** Highest generation that this host was told of by a fence it has left. */
  readonly told?: Generation | undefined;
  /** A generation that began by takeover and that this host's engine has not opened here yet. */
  readonly pending?: Head;
  /** Fenced once by a life that its own frames would pass for: nothing of it goes by the wire until it is opened or ended. */
  readonly mute?: true;
}

/** The group's record in the ledger, one for all hosts. Every change is a compare-and-swap. */
export interface Head {
  /** Counts the changes: the order in which heads were, however a watch shuffles them. */
  readonly serial: number;
  /** deleted: kept for its generation, so that a name used again still fences who was there before. */
  readonly phase: 'idle' | 'protected' | 'deleted';
  readonly generation: Generation;
  /**
   * A random name, given to this generation when it began. A ledger that was brought back from a
   * backup gives a number again: names tell the two apart (D84). Absent: begun before there were any.
   */
  readonly life?: string | undefined;
  readonly begun: 'protect' | 'takeover';
  /**
   * Of a takeover: the life of the protection at the root of it, whose epochs it counts on. It names its own life
   * beside: an older version copies what it does not know from one head to the next.
   */
  readonly line?: { readonly root: string; readonly life: string } | undefined;
  /** The generation whose epochs `start` counts in, and its name; 0 = none before. */
  readonly from: Generation;
  readonly fromLife?: string | undefined;
  /** All watermarks of this generation begin here: R, the last epoch all hosts had acked in `from`. */
  readonly start: Epoch;
  /** idle: what became of held frames. */
  readonly held: HeldFate;
  readonly spec: GroupSpec;
}
/** A group's record as somebody saw it: maybe old, never invented. */
export interface LedgerView {
  readonly head: Head | undefined;
  /** The store's number for this version of the head; 0 = there is none. For a compare-and-swap. */
  readonly revision: number;
  /** Last epoch each host acked in the head's life; a host may be missing. */
  readonly acks: Readonly<Record<string, Epoch>>;
}

/** How far a host is in the newest generation. late: others wait for it, it keeps the least ack. */
export interface HostProgress {
  readonly host: string;
  readonly acked: Epoch;
  readonly late: boolean;
}

/**
 * A change of a group's head in the ledger: one transaction, all or nothing. It happens only if the
 * head is still of `revision` and the witness's ack is still what it was. With a new generation the
 * acks of the one before are removed and one at `head.start` is made for each host.
 */
export interface Swap {
  readonly revision: number;
  /** A host whose ack is the least: while it stands still, so does what is committed. */
  readonly witness?: Acked;
  readonly head: Head;
  /** Hosts of a generation that begins with this change; empty = none begins. */
  readonly begins: readonly string[];
}
/** Written only where this host's ack of this generation and life is there and lower: that is the fence. */
export interface Acked {
  readonly host: string;
  readonly generation: Generation;
  readonly life?: string | undefined;
  readonly epoch: Epoch;
}

/** Commands come from outside; facts come from the data plane. Time is in the input where needed. */
export type Command =
  | { readonly kind: 'apply'; readonly spec: GroupSpec }
  | { readonly kind: 'delete' }
  | { readonly kind: 'join'; readonly member: MemberSpec }
  | { readonly kind: 'leave'; readonly member: string; readonly held?: HeldFate }
  | { readonly kind: 'protect'; readonly generation?: Generation }
  | { readonly kind: 'cut'; readonly generation: Generation; readonly epoch: Epoch; readonly member?: string }
  | { readonly kind: 'ack'; readonly generation: Generation; readonly epoch: Epoch; readonly members?: readonly string[] }
  | { readonly kind: 'commit'; readonly generation: Generation; readonly epoch: Epoch }
  | { readonly kind: 'rollback'; readonly generation: Generation; readonly epoch: Epoch }
  /** members: the same ones at other ports, where the takeover's side of each guest is. */
  | { readonly kind: 'takeover'; readonly generation: Generation; readonly epoch: Epoch; readonly members?: readonly MemberSpec[] }
  | { readonly kind: 'unprotect'; readonly generation: Generation; readonly held: HeldFate };

export type Fact =
  /** Every held frame of colours <= `colour` was handed to the kernel. */
  | { readonly kind: 'released'; readonly colour: Colour }
  /** unprotect(release): nothing is held any more and new frames pass. */
  | { readonly kind: 'drained' }
  /** What the ledger says now. A level, not a change: old, repeated and shuffled ones do no harm. */
  | { readonly kind: 'ledger'; readonly self: string; readonly view: LedgerView };

export type Input = Command | Fact;

/** Why a command was denied. Codes are a contract (API): never renamed, never reused. */
export type DenialCode =
  | 'bad_request'
  | 'no_such_group'
  | 'no_such_member'
  | 'epoch_out_of_order'
  | 'not_acked'
  | 'fenced'
  | 'not_protected'
  | 'already_protected'
  | 'member_held'
  | 'too_many_epochs'
  /** A port of another group. */
  | 'port_claimed'
  /** The group's bounded queue of commands is full. */
  | 'busy'
  /** This host is cut off from what proves that the network is there: it takes nothing over. */
  | 'isolated';

export interface Denial {
  readonly code: DenialCode;
  /** One sentence: what is wrong and what to do. */
  readonly message: string;
}

/** ignored: an exact repeat of something already done; nothing changed. */
export type Reply =
  | { readonly outcome: 'accepted' | 'ignored' }
  | { readonly outcome: 'denied'; readonly denial: Denial };

/**
 * What the step asks of the world: data, in order. The executor performs them one after the other
 * and stops at the first that fails. `persist` stands before anything that lets a frame out.
 */
export type Effect =
  /** Write the state to the journal. durable: fsync before the next effect. */
  | { readonly kind: 'persist'; readonly durable: boolean }
  | { readonly kind: 'forget' }
  /** Attach programs, fill maps, open the ring: from here on frames are held, in `colour`. */
  | { readonly kind: 'attach'; readonly colour: Colour; readonly epoch: Epoch }
  /** Take everything down; what is still held is dropped. */
  | { readonly kind: 'detach' }
  /** Bring attached nics in line with the spec (a member joined or left, or an option changed). */
  | { readonly kind: 'reattach' }
  /** One store: the group's open epoch. The hold plane labels `colour` as `epoch`. */
  | { readonly kind: 'cutGroup'; readonly colour: Colour; readonly epoch: Epoch }
  | { readonly kind: 'cutMember'; readonly member: string; readonly colour: Colour; readonly epoch: Epoch }
  /** Every held frame of colours <= colour leaves; in-transit records no longer needed are dropped. */
  | { readonly kind: 'release'; readonly colour: Colour }
  /**
   * The group is at `restored` again and goes on in `next` (labelled `epoch`): held frames of
   * colours in (restored, next) are discarded, recorded in-transit frames of colours <= restored
   * that their receivers got after `restored` are delivered again.
   */
  | { readonly kind: 'restore'; readonly restored: Colour; readonly next: Colour; readonly epoch: Epoch }
  /** Frames held from or for this member: release or discard them, then let its new ones pass. */
  | { readonly kind: 'drainMember'; readonly member: string; readonly held: HeldFate }
  /** The member may receive intra frames: everything held for it before has left. */
  | { readonly kind: 'ready'; readonly member: string }
  /** Release everything, then let new frames pass; the fact `drained` follows. */
  | { readonly kind: 'drain' }
  /** Across hosts: this host's members are durable up to here. Written until it is there or fenced. */
  | { readonly kind: 'publish'; readonly generation: Generation; readonly life: string | undefined; readonly epoch: Epoch }
  /** Across hosts: what its members send looks like another life's. From here on nothing goes to other hosts or comes from them. */
  | { readonly kind: 'closeWire' }
  /** Announce the members' places through the bridge: each nic's MAC, and the addresses it is given. */
  | { readonly kind: 'announce' }
  | { readonly kind: 'emit'; readonly event: CoreEvent };

export type CoreEvent =
  | { readonly type: 'protected' }
  | { readonly type: 'unprotected'; readonly held: HeldFate }
  | { readonly type: 'cut'; readonly epoch: Epoch; readonly member?: string }
  | { readonly type: 'acked'; readonly epoch: Epoch; readonly members: readonly string[] }
  | { readonly type: 'committed'; readonly epoch: Epoch }
  | { readonly type: 'released'; readonly epoch: Epoch }
  | { readonly type: 'rolled-back'; readonly epoch: Epoch }
  | { readonly type: 'taken-over'; readonly epoch: Epoch }
  /** epoch: where the newer generation goes on. */
  | { readonly type: 'fenced'; readonly epoch: Epoch }
  | { readonly type: 'joined'; readonly member: string }
  | { readonly type: 'left'; readonly member: string };

export interface Step {
  readonly state: GroupState | undefined;
  readonly effects: readonly Effect[];
  readonly reply: Reply;
  /**
   * What a failure after `persist` means. back: nothing irrevocable happened, the executor restores
   * the state before (attach, reattach). forward: it is decided, the rest is owed and tried again.
   */
  readonly onFailure: 'back' | 'forward';
}
