/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one header shared by the kernel programs (classify.bpf.c) and user space (abi.ts mirrors it;
 * a test compiles this file and proves the mirror equal). Everything here is the layout of maps,
 * marks and stamps; nothing here decides anything.
 *
 * Words: a *colour* is the monotonic number of an epoch (u32, serial arithmetic, never reused, not
 * even after a rollback: DESIGN of proxy/core). A *stamp* is what a frame carries across the hold
 * pair. A *nic* is one port of one member; its index is global to the daemon.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#define SLUICE_ABI_VERSION 2

#define SLUICE_GROUPS_MAX 256  /* groups of one daemon */
#define SLUICE_NICS_MAX 4096   /* member ports of one daemon: 12 bits of the stamp; index 0 is never used */
#define SLUICE_MEMBERS_MAX 4096 /* members of one daemon; index 0 is never used */
#define SLUICE_GROUP_NICS_MAX 256 /* nics of one group: the bound of a split's walk */
#define SLUICE_DEVICES_MAX 8192 /* devices of all guarded bridges */
#define SLUICE_NEAR_MAX 32768  /* devices below this ifindex are looked up without hashing */
#define SLUICE_VLANS_MAX 4096  /* ids of a VLAN */
#define SLUICE_RESIDUES 64     /* slots of groups[].heldIn: colour modulo this */
#define SLUICE_LANES 16        /* lanes of a group: colour modulo this picks one */

/*
 * Stamp, 32 bits:  | class 2 | nic 12 | lead 4 | colour 14 |
 * It rides in skb->hash towards the ring (the ring hands it over as tp_rxhash) and in skb->mark
 * both towards the ring and back (a sender sets it with SO_MARK). A stamp is never 0.
 *
 *   class HELD  nic = source nic.        lead: SPLIT, members already have a copy; SPILLED, came to the
 *                                        ring out of a lane; NOTICE, a copy that says a lane's first
 *                                        frame has come, and is no frame itself.
 *   class EARLY nic = destination nic.   lead = 0. Waits until the receiver's colour reaches colour.
 *                                        lead = LEAD_DELIVERED: was delivered, and is to be counted.
 *   class LATE  nic = destination nic.   lead = receiver's colour - colour (1..15). A record only:
 *                                        the frame itself was delivered.
 * Towards the wire the same stamp says what becomes of the frame: HELD re-enters the bridge at the
 * source nic's port; EARLY and LATE go straight to the destination nic's port.
 */
#define SLUICE_CLASS_NONE 0
#define SLUICE_CLASS_HELD 1
#define SLUICE_CLASS_EARLY 2
#define SLUICE_CLASS_LATE 3
#define SLUICE_CLASS_SHIFT 30
#define SLUICE_NIC_SHIFT 18
#define SLUICE_NIC_MASK 0xfffu
#define SLUICE_LEAD_SHIFT 14
#define SLUICE_LEAD_MASK 0xfu
#define SLUICE_LEAD_DELIVERED 1
#define SLUICE_LEAD_SPLIT 1u
#define SLUICE_LEAD_SPILLED 2u
#define SLUICE_LEAD_NOTICE 4u
#define SLUICE_COLOUR_BITS 14
#define SLUICE_COLOUR_MASK 0x3fffu

/*
 * What the hold loop itself sends into a lane has class NONE:  | 0: 2 | MARKER 14 | group 8 | ROUND, FILLER, lane |
 *   marker   comes out behind everything that was in the lane, goes round once more behind what that became,
 *            and is counted: nothing of the lane is on its way any more
 *   filler   takes what is left of the tokens of a gate that was just shut
 */
#define SLUICE_MARKER_SHIFT 16
#define SLUICE_MARKER 0x515u
#define SLUICE_MARKER_GROUP_SHIFT 8
#define SLUICE_MARKER_ROUND 0x10u
#define SLUICE_MARKER_FILLER 0x20u

/* States of a lane. FREE to FILLING: whoever cuts. All other changes: the hold loop. */
#define SLUICE_LANE_NONE 0     /* not in use: held frames go to the ring */
#define SLUICE_LANE_FREE 1     /* empty, its gate is shut */
#define SLUICE_LANE_FILLING 2  /* held frames of its colour go in */
#define SLUICE_LANE_OPEN 3     /* nothing goes in; what comes out leaves, if it is committed */
#define SLUICE_LANE_SPILLING 4 /* nothing goes in; what comes out goes to the ring */
#define SLUICE_FRAME_COST 768  /* bytes that a frame in a lane takes beside its own, as the group's bound counts them */
#define SLUICE_LANE_OUT_OF_ROOM 1 /* sluice_lane.full: the group's bound was met */
#define SLUICE_LANE_UNFIT 2       /* one was none for a queue */
#define SLUICE_LANE_SEGMENT_MIN 256 /* a super-frame of smaller segments is no lane's: the queue would take it apart */
#define SLUICE_LANE_FRAME_MAX 65560 /* bytes of one with its tags; a larger one is no lane's either */
#define SLUICE_HOLD_BUCKETS 18 /* counts of queues[].hold; their upper bounds, the last has none: */
#define SLUICE_HOLD_BOUNDS_US 100, 250, 500, 1000, 2500, 5000, 10000, 20000, 30000, 40000, 50000, 75000, 100000, 250000, 500000, 1000000, 5000000

/*
 * Marks: a field of skb->mark on the bridge's side of the hold pair, 3 bits inside a configurable
 * mask (struct sluice_config). Values of the field, before shifting:
 */
#define SLUICE_MARK_NONE 0
#define SLUICE_MARK_RELEASED 1       /* committed: may leave through any port. Believed at a member's
                                        port only together with the release hash: any sender with
                                        SO_MARK can set a mark */
#define SLUICE_MARK_RELEASED_SPLIT 2 /* the same, and the members have had their copies */
#define SLUICE_MARK_INTRA 3          /* only to members of the sender's group */
#define SLUICE_MARK_LOCAL 4          /* sent by the host itself through the bridge device */

/* The field's place unless the operator chooses another. */
#define SLUICE_MARK_MASK_DEFAULT 0x70000000u
#define SLUICE_MARK_SHIFT_DEFAULT 28

/* VLAN domain of a frame that no nic can be in: an outer tag other than 802.1Q. */
#define SLUICE_VLAN_OTHER 0xffff

/* nic flags */
#define SLUICE_NIC_PROTECTED 1u    /* hold what is not intra; without it every frame passes */
#define SLUICE_NIC_DRAIN 2u        /* protection ends: held frames leave, then new ones pass (I6) */
#define SLUICE_NIC_FOREIGN_DROP 4u /* a source MAC that is not the nic's: drop instead of hold */
#define SLUICE_NIC_INTRA_BRIDGE 8u /* intra frames go marked through the bridge, not redirected */
#define SLUICE_NIC_READY 16u       /* may receive intra frames; without it they queue as early */
#define SLUICE_NIC_GUARDED 32u     /* the guards enforce: nothing from before protection is on its way */

#define SLUICE_NIC_REMOTE 64u      /* lives on another host: its ifindex is the uplink */
#define SLUICE_NIC_FIRST 128u      /* by VXLAN: of its host's nics in this VLAN the one a split's copy is sent for */

/*
 * Colour on the wire between hosts: behind an outer 802.1ad tag with the group's VLAN id stands an
 * 802.1Q tag whose 16 bits are | generation 4 | epoch 12 |, both modulo. epoch = colour - base.
 * By VXLAN the same 16 bits are the group policy id, under the group's VNI.
 */
#define SLUICE_WIRE_EPOCH_BITS 12
#define SLUICE_WIRE_EPOCH_MASK 0xfffu
#define SLUICE_WIRE_GENERATION_MASK 0xfu
#define SLUICE_WIRE_CLOSED 0x10u  /* as the group's generation: nothing is sent, nothing fits */
#define SLUICE_WIRE_AHEAD_MAX 1024 /* a frame further ahead of the group is dropped: no epoch in flight is */
#define SLUICE_WIRE_GBP 0x400000u  /* beside the policy id ("don't learn"): the kernel sends an id of 0 only with a flag */

/* verdicts: indices of struct sluice_stats.verdict */
#define SLUICE_VERDICT_PASS 0
#define SLUICE_VERDICT_INTRA 1
#define SLUICE_VERDICT_HELD 2
#define SLUICE_VERDICT_EARLY 3
#define SLUICE_VERDICT_LATE 4
#define SLUICE_VERDICT_SPLIT 5
#define SLUICE_VERDICT_DROP 6
#define SLUICE_VERDICT_RELEASED 7 /* a released frame on its way back into the bridge */
#define SLUICE_VERDICTS 8

#ifndef __SLUICE_NO_TYPES
/* map `groups`: array, mmapable, index = group id. The first line is read per frame. */
struct sluice_group {
	__u32 colour;       /* the group's open epoch. A group cut is one store to it */
	__u32 commit;       /* no held frame with a later colour passes the release program */
	__u32 holdIfindex;  /* slh<g>, the bridge's side of the hold pair */
	__u32 firstNic;     /* head of the list of the group's nics, 0 = none */
	/* Of a group across hosts: generation (four bits, or CLOSED) << 32 | colour of epoch 0. One store;
	   the colour changes only while it is CLOSED */
	__u64 wire;
	__u32 wireVlan;     /* the group's outer VLAN id, 0 = a group of one host */
	__u32 uplink;       /* ifindex, 0 = there is none */
	__u32 tunnel;       /* ifindex of the VXLAN device where wireVlan is 0; 0 = there is none */
	__u32 vni;
	__u32 here;         /* this host's own address there, IPv4 */
	__u32 ringIfindex;  /* slr<g>, the ring's side of the pair; 0 = nothing leaves from there at once, nor goes on to the pool */
	__u32 laneIfindex;  /* slq<g>, whose queues are the lanes; 0 = the group has none */
	__u32 exitIfindex;  /* slo<g>, where what was in a lane comes out */
	__u32 poolIfindex;  /* slrp, where what comes to slr<g> goes on to; 0 = the group's ring is at slr<g> */
	__u32 pad;
	__u64 heldIn[SLUICE_RESIDUES]; /* held frames, by ring or lane, by colour modulo RESIDUES */
};

/* map `lanes`: array, mmapable, index = group id * LANES + colour modulo LANES. Counts only grow. */
struct sluice_lane {
	__u32 colour;        /* meaningful from FILLING on */
	__u32 state;         /* SLUICE_LANE_* */
	__u32 full;          /* OUT_OF_ROOM, UNFIT: what comes now of its colour goes to the ring */
	__u32 pad;
	__u64 in;            /* frames that went in, or turned back at the last moment */
	__u64 inBytes;
	__u64 out;           /* frames that left */
	__u64 outBytes;
	__u64 spilled;       /* frames that went to the ring */
	__u64 spilledBytes;
	__u64 markers;       /* markers that came round */
	__u64 firstNs;       /* CLOCK_MONOTONIC, when the first frame of its colour went in */
	__u64 base;          /* user space: `in` when it was last made FREE */
	__u64 lost;          /* user space: frames that will never come out. In it now: in - turned - out - spilled - lost */
	__u64 lostBytes;     /* user space */
	__u64 turned;        /* frames that turned back: they went to the ring */
	__u64 more[2];
};

/* map `queues`: array, mmapable, index = group id: all lanes of a group. Bytes with FRAME_COST for each frame. */
struct sluice_queue {
	__u64 bytesMax;      /* user space; lanes take no frame beyond it */
	__u64 bytesGone;     /* user space: of frames that were lost in a lane. In lanes now: in - out - gone */
	__u64 pad[6];
	__u64 bytesIn;
	__u64 more[7];
	__u64 bytesOut;
	__u64 holdSumUs;     /* hold time of frames that left */
	__u64 hold[SLUICE_HOLD_BUCKETS];
	__u64 rest[4];
};

/* map `nics`: array, mmapable, index = nic */
struct sluice_nic {
	__u32 ifindex;
	__u32 bridge;   /* ifindex of the bridge the port is in */
	__u32 group;
	__u32 member;   /* index into `members` */
	__u32 next;     /* next nic of the group, 0 = end */
	__u32 flags;    /* SLUICE_NIC_* */
	__u16 vlan;     /* 0 = untagged */
	__u8 mac[6];
	__u64 heldIn;   /* held frames from this nic, by ring or lane */
	__u64 heldOut;  /* of these, came back at the port's ingress */
	__u64 earlyIn;  /* early frames for this nic sent to the ring */
	__u64 earlyOut; /* of these, read by the receiver's device or refused by the release program */
	/* Written by user space alone (the cells above by the kernel alone, so no update is lost): */
	__u64 heldGone;  /* held frames from this nic that will never come back: discarded, lost */
	__u64 earlyGone; /* early frames for this nic that will never be delivered */
	/* A queue is empty when in == out + gone. */
};

/* map `members`: array, mmapable. A member's colour is max(group's, its own), serially. */
struct sluice_member {
	__u32 colour;
	__u32 pad;
};

/* map `ports`: hash ifindex -> nic index (u32) */

/* map `macs`: hash -> nic index (u32) */
struct sluice_mac_key {
	__u32 bridge;
	__u16 vlan;
	__u8 mac[6];
};

/* map `guarded`: hash -> nic index (u32): every protected source MAC, whatever its VLAN */
struct sluice_guard_key {
	__u32 bridge;
	__u16 zero;
	__u8 mac[6];
};

/* map `devices`: hash ifindex -> bridge ifindex (u32): ports that user space has looked at */

/* map `wires`: hash outer VLAN id (u32) -> group id (u32) */

/*
 * map `near`: array, mmapable, index = ifindex: what `ports` and `devices` say of it. The programs look here
 * for every ifindex below NEAR_MAX and in the two hashes for all others; user space writes both, the hash
 * first when it adds, last when it removes: what the hashes say is what is to be.
 */
struct sluice_near {
	__u32 nic;    /* 0 = none */
	__u32 bridge; /* 0 = none */
};

/* map `vlans`: array, mmapable, index = outer VLAN id: what `wires` says of it, plus 1; 0 = no group's */

/* map `vnis`: hash VNI (u32) -> group id (u32) */

/* map `peers`: hash nic index (u32) -> IPv4 address (u32) of the host it lives on, of groups by VXLAN */

/* map `stats`: per-CPU hash ifindex -> counters. Entries are made by user space. */
struct sluice_count {
	__u64 frames;
	__u64 bytes;
};
struct sluice_stats {
	struct sluice_count in;                        /* every frame at a member port's or the uplink's ingress */
	struct sluice_count verdict[SLUICE_VERDICTS];  /* their sum equals `in` */
	__u64 splitCopies;  /* copies given to members by split */
	__u64 leakBlocked;  /* egress: from a protected port or MAC, without the released mark. Must stay 0 */
	__u64 unvetted;     /* egress: came from a port user space has not looked at yet */
	__u64 confined;     /* egress: intra frame at a port outside its group */
	__u64 duplicate;    /* egress: released multicast the member already had */
	__u64 refused;      /* hold pair: stamp not valid, or not committed. Must stay 0. The host's own
	                       frames into the pair have no stamp: dropped, not counted */
	__u64 redelivered;  /* hold pair: recorded in-transit frames delivered again */
	__u64 remote;       /* member port: frames and split copies sent to other hosts, tagged or by VXLAN */
	/* uplink's and VXLAN device's ingress; these five are its verdict DROP (skewed also counts copies, and elsewhere) */
	__u64 stale;        /* of another generation (I7) */
	__u64 unknown;      /* of no group here, or without a colour */
	__u64 foreign;      /* claims an address that it can't have: untagged a member's, tagged another's; by
	                       VXLAN also one of a host where its member does not live */
	__u64 elsewhere;    /* for a member that is not here: the switch flooded it */
	__u64 skewed;       /* so far ahead or behind that no stamp can say it */
	__u64 forged;       /* egress: a group's outer tag, or a frame into the VXLAN device, that no classifier sent */
};

/* .rodata of the programs, set before they are loaded */
struct sluice_config {
	__u32 markMask;   /* 3 adjacent bits */
	__u32 markShift;
	__u32 releaseHash; /* a secret of this load: skb->hash between `release` and `classify` */
};
#endif

#endif
