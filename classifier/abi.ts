/**
 * The mirror of abi.h: every constant, offset and layout, under the same names less the prefix.
 * A unit test compiles abi.h and proves the two equal. Nothing here allocates.
 *
 *   stamp   | class 2 | nic 12 | lead 4 | colour 14 |      u32, never 0
 *   mark    three bits of skb->mark inside MARK_MASK_DEFAULT (or the operator's mask)
 */
export const ABI_VERSION = 2;

export const GROUPS_MAX = 256;
export const NICS_MAX = 4096;
export const MEMBERS_MAX = 4096;
export const GROUP_NICS_MAX = 256;
export const DEVICES_MAX = 8192;
export const NEAR_MAX = 32768;
export const VLANS_MAX = 4096;
export const RESIDUES = 64;
/** Lanes of a group: colour modulo this picks one. */
export const LANES = 16;

export const STAMP_CLASS = { none: 0, held: 1, early: 2, late: 3 } as const;
export type StampClass = (typeof STAMP_CLASS)[keyof typeof STAMP_CLASS];

export const CLASS_SHIFT = 30;
export const NIC_SHIFT = 18;
export const NIC_MASK = 0xfff;
export const LEAD_SHIFT = 14;
export const LEAD_MASK = 0xf;
/** Lead of an early frame that was delivered and comes by once more to be counted. */
export const LEAD_DELIVERED = 1;
/** Leads of a held frame: members have had copies; out of a lane; no frame, but the word that a lane's first one has come. */
export const LEAD = { split: 1, spilled: 2, notice: 4 } as const;
export const COLOUR_BITS = 14;
export const COLOUR_MASK = 0x3fff;

/** What the hold loop sends into a lane: | 0: 2 | marker 14 | group 8 | round, filler, lane |. */
export const MARKER = { shift: 16, marker: 0x515, groupShift: 8, round: 0x10, filler: 0x20 } as const;
export const LANE_STATE = { none: 0, free: 1, filling: 2, open: 3, spilling: 4 } as const;
/** Bytes that a frame in a lane takes beside its own. */
export const FRAME_COST = 768;
export const LANE_FULL = { outOfRoom: 1, unfit: 2 } as const;
export const LANE_SEGMENT_MIN = 256;
export const LANE_FRAME_MAX = 65_560;
export const HOLD_BUCKETS = 18;

export const MARK = { none: 0, released: 1, releasedSplit: 2, intra: 3, local: 4 } as const;
export type Mark = (typeof MARK)[keyof typeof MARK];
export const MARK_MASK_DEFAULT = 0x70000000;
export const MARK_SHIFT_DEFAULT = 28;

/** VLAN domain of a frame that no nic can be in: an outer tag other than 802.1Q. */
export const VLAN_OTHER = 0xffff;

export const NIC_FLAG = { protected: 1, drain: 2, foreignDrop: 4, intraBridge: 8, ready: 16, guarded: 32, remote: 64, first: 128 } as const;

/** The inner tag between hosts, or VXLAN's policy id: | generation 4 | epoch 12 |, both modulo. */
export const WIRE_EPOCH_BITS = 12;
export const WIRE_EPOCH_MASK = 0xfff;
export const WIRE_GENERATION_MASK = 0xf;
/** As a group's generation: nothing is sent, nothing fits. */
export const WIRE_CLOSED = 0x10;
/** A frame further ahead of the group than any epoch in flight is dropped. */
export const WIRE_AHEAD_MAX = 1024;
/** Beside the policy id: the kernel sends an id of 0 only with a flag. */
export const WIRE_GBP = 0x400000;

/** Index of each verdict in `sluice_stats.verdict`, in order. */
export const VERDICTS = ['pass', 'intra', 'held', 'early', 'late', 'split', 'drop', 'released'] as const;
export type Verdict = (typeof VERDICTS)[number];

/** Programs of the object, and the hook each is made for. */
export const PROGRAMS = ['classify', 'arrive', 'land', 'guard', 'guard_self', 'depart', 'local', 'enter', 'release', 'express', 'sink', 'board', 'alight'] as const;
export type Program = (typeof PROGRAMS)[number];

export const MAPS = ['groups', 'nics', 'members', 'lanes', 'queues', 'ports', 'macs', 'guarded', 'devices', 'near', 'wires', 'vlans', 'vnis', 'peers', 'stats'] as const;
export type MapName = (typeof MAPS)[number];

/** Offsets inside `struct sluice_group`. */
export const GROUP = {
  size: 576, colour: 0, commit: 4, holdIfindex: 8, firstNic: 12, wire: 16, wireVlan: 24, uplink: 28, tunnel: 32, vni: 36, here: 40, ringIfindex: 44,
  laneIfindex: 48, exitIfindex: 52, poolIfindex: 56, heldIn: 64,
} as const;

/** Offsets inside `struct sluice_nic`. */
export const NIC = {
  size: 80, ifindex: 0, bridge: 4, group: 8, member: 12, next: 16, flags: 20, vlan: 24, mac: 26,
  heldIn: 32, heldOut: 40, earlyIn: 48, earlyOut: 56, heldGone: 64, earlyGone: 72,
} as const;

/** Offsets inside `struct sluice_lane`. */
export const LANE = {
  size: 128, colour: 0, state: 4, full: 8, in: 16, inBytes: 24, out: 32, outBytes: 40, spilled: 48, spilledBytes: 56, markers: 64, firstNs: 72,
  base: 80, lost: 88, lostBytes: 96, turned: 104,
} as const;

/** Offsets inside `struct sluice_queue`. */
export const QUEUE = { size: 320, bytesMax: 0, bytesGone: 8, bytesIn: 64, bytesOut: 128, holdSumUs: 136, hold: 144 } as const;

/** Offsets inside `struct sluice_member`. */
export const MEMBER = { size: 8, colour: 0 } as const;

/** Offsets inside `struct sluice_near`. */
export const NEAR = { size: 8, nic: 0, bridge: 4 } as const;

/** Key of `macs` and, with vlan 0, of `guarded`. */
export const MAC_KEY = { size: 12, bridge: 0, vlan: 4, mac: 6 } as const;

/** Offsets inside `struct sluice_stats`; each count is frames, then bytes. */
export const STATS = {
  size: 256, in: 0, verdict: 16, countSize: 16, splitCopies: 144, leakBlocked: 152, unvetted: 160,
  confined: 168, duplicate: 176, refused: 184, redelivered: 192,
  remote: 200, stale: 208, unknown: 216, foreign: 224, elsewhere: 232, skewed: 240, forged: 248,
} as const;

export const CONFIG = { size: 12, markMask: 0, markShift: 4, releaseHash: 8 } as const;

/** Bytes of one entry and number of entries, for maps that user space maps into its memory. */
export const CELLS = {
  groups: { stride: GROUP.size, entries: GROUPS_MAX },
  nics: { stride: NIC.size, entries: NICS_MAX },
  members: { stride: MEMBER.size, entries: MEMBERS_MAX },
} as const;

/** nic 1..4095, lead 0..15; only the lower 14 bits of colour go in. */
export const stampPack = (cls: StampClass, nic: number, lead: number, colour: number): number =>
  ((cls << CLASS_SHIFT) | (nic << NIC_SHIFT) | (lead << LEAD_SHIFT) | (colour & COLOUR_MASK)) >>> 0;

export const stampClass = (stamp: number): number => stamp >>> CLASS_SHIFT;
export const stampNic = (stamp: number): number => (stamp >>> NIC_SHIFT) & NIC_MASK;
export const stampLead = (stamp: number): number => (stamp >>> LEAD_SHIFT) & LEAD_MASK;
/** The lower 14 bits of the colour. */
export const stampColour = (stamp: number): number => stamp & COLOUR_MASK;

/** a - b on the circle of 14 bits; either may be a whole colour. */
export const serial14 = (a: number, b: number): number => ((a - b) << 18) >> 18;
/** a - b on the circle of 32 bits. */
export const serial32 = (a: number, b: number): number => (a - b) | 0;
/** a - b on the circle of the wire's twelve bits. */
export const serial12 = (a: number, b: number): number => ((a - b) << 20) >> 20;
/** The whole colour whose lower bits are `bits` and that is nearest to `near`. */
export const colourNear = (bits: number, near: number): number => (near + serial14(bits, near)) >>> 0;
