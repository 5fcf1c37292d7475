// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel side of the gate: decides what becomes of each frame, carries what stays inside a
 * group, and stamps what must wait. All state is in maps that user space fills (abi.h); the only
 * cells written here are counters.
 *
 *   VM ─► member port ingress: classify ─┬─ pass ───────────────────► bridge
 *                                        ├─ intra ─ mark INTRA ─────► member's port egress: guard ─► VM
 *                                        ├─ split ─ a copy to each member; the original ↓
 *                                        └─ held, early ─ stamp ────► slh<g> egress: enter ═► slr<g>: ring, sink
 *
 *   hold loop ─► slr<g> ═► slh<g> ingress: release ─┬─ held ─ mark RELEASED ─► member port ingress again
 *                                                   └─ early, late ─ INTRA ──► member's port egress
 *
 *   bridge ─► any port egress: guard     bridge ─► host: guard_self     host ─► bridge: local
 *
 * Rules of this file:
 *  - The default is to hold. Passing is the exception that has been proved (I1).
 *  - A frame's source is its ingress port; MAC and VLAN only confirm it.
 *  - groups[].colour is read once per frame: sender and receiver are compared at one instant.
 *  - Every frame counted `in` by classify gets exactly one verdict.
 *  - Queues are counted in before the frame is sent and out after it was delivered (D5), so
 *    in == out + gone really means that nothing of the queue is on its way.
 *
 * It does not look behind the Ethernet header and at most one VLAN tag; it never drops a member's
 * frame for its contents; it does not know epochs, only colours.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

char LICENSE[] SEC("license") = "GPL";

#ifdef SLUICE_SOURCE_SHA256
/* Proves which source an object was built from; nothing reads it at run time. */
const char sluice_source[] SEC("sluice.source") = SLUICE_SOURCE_SHA256;
#endif

const volatile struct sluice_config sluice_config = {
	.markMask = SLUICE_MARK_MASK_DEFAULT,
	.markShift = SLUICE_MARK_SHIFT_DEFAULT,
};

/* ------------------------------------------------------------------------------------------ maps */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_GROUPS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_group);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_nic);
} nics SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_MEMBERS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_member);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, struct sluice_mac_key);
	__type(value, __u32);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, struct sluice_guard_key);
	__type(value, __u32);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_DEVICES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/* Not preallocated: user space makes the entries, and there are few of them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SLUICE_DEVICES_MAX);
	__type(key, __u32);
	__type(value, struct sluice_stats);
} stats SEC(".maps");

/* -------------------------------------------------------------------------------------- helpers */

#define always static __always_inline
#define ONCE(x) (*(volatile typeof(x) *)&(x))

always struct sluice_stats *stats_of(__u32 ifindex)
{
	return bpf_map_lookup_elem(&stats, &ifindex);
}

#define BUMP(s, field)                     \
	do {                               \
		if (s)                     \
			(s)->field++;      \
	} while (0)

always void count(struct sluice_stats *s, __u32 verdict, __u32 bytes)
{
	if (!s || verdict >= SLUICE_VERDICTS)
		return;
	s->in.frames++;
	s->in.bytes += bytes;
	s->verdict[verdict].frames++;
	s->verdict[verdict].bytes += bytes;
}

/* 0 = none. */
always __u32 nic_index_at(__u32 ifindex)
{
	__u32 *index = bpf_map_lookup_elem(&ports, &ifindex);

	return index ? *index : 0;
}

/* A cell without a member is free. */
always struct sluice_nic *nic_of(__u32 index)
{
	struct sluice_nic *nic = index ? bpf_map_lookup_elem(&nics, &index) : 0;

	return nic && ONCE(nic->member) ? nic : 0;
}

always struct sluice_group *group_of(__u32 id)
{
	return bpf_map_lookup_elem(&groups, &id);
}

always __u32 bridge_of(__u32 ifindex)
{
	__u32 *bridge = bpf_map_lookup_elem(&devices, &ifindex);

	return bridge ? *bridge : 0;
}

/* A member's colour: the later of the group's and its own. */
always __u32 member_colour(__u32 member, __u32 groupColour)
{
	struct sluice_member *m = bpf_map_lookup_elem(&members, &member);
	__u32 own;

	if (!m)
		return groupColour;
	own = ONCE(m->colour);
	return (__s32)(own - groupColour) > 0 ? own : groupColour;
}

/* a - b where a is a stamp's 14 bits and b a whole colour. */
always __s32 serial14(__u32 a, __u32 b)
{
	return (__s32)((a - b) << (32 - SLUICE_COLOUR_BITS)) >> (32 - SLUICE_COLOUR_BITS);
}

always __u32 stamp_of(__u32 class, __u32 nic, __u32 lead, __u32 colour)
{
	return class << SLUICE_CLASS_SHIFT | (nic & SLUICE_NIC_MASK) << SLUICE_NIC_SHIFT |
	       (lead & SLUICE_LEAD_MASK) << SLUICE_LEAD_SHIFT | (colour & SLUICE_COLOUR_MASK);
}

always void put_stamp(struct __sk_buff *skb, __u32 stamp)
{
	bpf_set_hash(skb, stamp);
	skb->mark = stamp;
}

always __u32 mark_field(struct __sk_buff *skb)
{
	return (skb->mark & sluice_config.markMask) >> sluice_config.markShift;
}

always void put_field(struct __sk_buff *skb, __u32 mark, __u32 field)
{
	skb->mark = (mark & ~sluice_config.markMask) | field << sluice_config.markShift;
}

/* What a frame shows of itself: addresses and VLAN domain. */
struct frame {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
	__u16 vlan; /* 0 = untagged or priority-tagged; SLUICE_VLAN_OTHER matches no nic */
};

/*
 * The outer tag is normally beside the frame (the kernel takes it out on reception); a tag that is
 * still in the data counts the same. An outer 802.1ad tag is a domain of its own that no nic is in.
 */
always __u16 vlan_of(struct __sk_buff *skb, __be16 type)
{
	__be16 tci;

	if (skb->vlan_present)
		return skb->vlan_proto == bpf_htons(ETH_P_8021Q) ? skb->vlan_tci & 0xfff : SLUICE_VLAN_OTHER;
	if (type == bpf_htons(ETH_P_8021AD))
		return SLUICE_VLAN_OTHER;
	if (type != bpf_htons(ETH_P_8021Q))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &tci, sizeof(tci)))
		return SLUICE_VLAN_OTHER;
	return bpf_ntohs(tci) & 0xfff;
}

/* 0, or negative for a frame without an Ethernet header. */
always int frame_read(struct __sk_buff *skb, struct frame *f)
{
	int err = bpf_skb_load_bytes(skb, 0, f, ETH_HLEN);

	if (err)
		return err;
	f->vlan = vlan_of(skb, f->type);
	return 0;
}

/* 01:80:c2:00:00:0x, which a bridge does not forward (D9). */
always int is_link_local(const __u8 *mac)
{
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && !mac[3] && !mac[4] &&
	       (mac[5] & 0xf0) == 0;
}

always int same_mac(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

always void copy_mac(__u8 *to, const __u8 *from)
{
	__builtin_memcpy(to, from, 6);
}

/* ------------------------------------------------------------------------- delivery to a member */

/* A frame of a protected nic, seen once, and what all its copies share. */
struct origin {
	struct __sk_buff *skb;
	struct sluice_stats *stats;
	__u32 index;       /* of its nic */
	__u32 group;
	__u32 colour;      /* the frame's */
	__u32 groupColour; /* as read for this frame */
	__u32 holdIfindex;
	__u32 bridge;
	__u32 mark;        /* as it came */
	__u32 next;        /* walk of a split */
	__u16 vlan;
};

/*
 * What receiver d is to get now, given the frame's colour (I2, I3):
 *   EARLY  the receiver is behind, may not receive yet, or frames for it are still queued (I6)
 *   INTRA  same colour
 *   LATE   the receiver is ahead by *lead: deliver and record
 *   DROP   ahead by more than a stamp can say
 * Read out and gone before in: the other way round, frames that came meanwhile could hide others.
 */
always __u32 fate_of(struct sluice_nic *d, __u32 colour, __u32 groupColour, __u32 *lead)
{
	__s32 ahead = (__s32)(member_colour(ONCE(d->member), groupColour) - colour);
	__u64 left = ONCE(d->earlyOut) + ONCE(d->earlyGone);

	*lead = 0;
	if (!(ONCE(d->flags) & SLUICE_NIC_READY) || ahead < 0 || ONCE(d->earlyIn) != left)
		return SLUICE_VERDICT_EARLY;
	if (ahead > (__s32)SLUICE_LEAD_MASK)
		return SLUICE_VERDICT_DROP;
	*lead = ahead;
	return ahead ? SLUICE_VERDICT_LATE : SLUICE_VERDICT_INTRA;
}

/* The record of a frame that was delivered to a receiver ahead of it: a copy for the ring. */
always void record_late(struct __sk_buff *skb, __u32 hold, __u32 dIndex, __u32 lead, __u32 colour)
{
	put_stamp(skb, stamp_of(SLUICE_CLASS_LATE, dIndex, lead, colour));
	bpf_clone_redirect(skb, hold, 0);
}

always void become_intra(struct __sk_buff *skb, __u32 mark)
{
	bpf_set_hash_invalid(skb);
	put_field(skb, mark, SLUICE_MARK_INTRA);
}

always void early_stamp(struct origin *o, struct sluice_nic *d, __u32 dIndex)
{
	__sync_fetch_and_add(&d->earlyIn, 1);
	put_stamp(o->skb, stamp_of(SLUICE_CLASS_EARLY, dIndex, 0, o->colour));
}

/* One copy of a split. */
always void copy_to(struct origin *o, struct sluice_nic *d, __u32 dIndex)
{
	__u32 lead, fate = fate_of(d, o->colour, o->groupColour, &lead);

	if (fate == SLUICE_VERDICT_DROP) {
		BUMP(o->stats, refused);
		return;
	}
	BUMP(o->stats, splitCopies);
	if (fate == SLUICE_VERDICT_EARLY) {
		early_stamp(o, d, dIndex);
		bpf_clone_redirect(o->skb, o->holdIfindex, 0);
		return;
	}
	if (fate == SLUICE_VERDICT_LATE)
		record_late(o->skb, o->holdIfindex, dIndex, lead, o->colour);
	become_intra(o->skb, o->mark);
	bpf_clone_redirect(o->skb, ONCE(d->ifindex), 0);
}

/* Step of the walk over the group's nics; 1 ends it. */
static long split_step(__u32 step, struct origin *o)
{
	__u32 index = o->next;
	struct sluice_nic *d = nic_of(index);

	(void)step;
	if (!d)
		return 1;
	o->next = ONCE(d->next);
	if (index != o->index && d->group == o->group && d->bridge == o->bridge && d->vlan == o->vlan &&
	    (ONCE(d->flags) & SLUICE_NIC_PROTECTED))
		copy_to(o, d, index);
	return 0;
}

/* Delivers the frame itself. Returns the program's answer; *verdict says what it was. */
always int deliver(struct origin *o, struct sluice_nic *d, __u32 dIndex, __u32 flags, __u32 *verdict)
{
	__u32 lead;

	*verdict = fate_of(d, o->colour, o->groupColour, &lead);
	if (*verdict == SLUICE_VERDICT_DROP)
		return TC_ACT_SHOT;
	if (*verdict == SLUICE_VERDICT_EARLY) {
		early_stamp(o, d, dIndex);
		return bpf_redirect(o->holdIfindex, 0);
	}
	if (*verdict == SLUICE_VERDICT_LATE) {
		record_late(o->skb, o->holdIfindex, dIndex, lead, o->colour);
		bpf_set_hash_invalid(o->skb);
	}
	put_field(o->skb, o->mark, SLUICE_MARK_INTRA);
	if (flags & SLUICE_NIC_INTRA_BRIDGE)
		return TC_ACT_UNSPEC;
	return bpf_redirect(ONCE(d->ifindex), 0);
}

/* ------------------------------------------------------------------------------------- holding */

/* Nothing that was held from this nic is still on its way. Out before in, as in fate_of. */
always int held_is_empty(struct sluice_nic *nic)
{
	__u64 left = ONCE(nic->heldOut) + ONCE(nic->heldGone);

	return ONCE(nic->heldIn) == left;
}

always int hold(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 lead)
{
	__sync_fetch_and_add(&nic->heldIn, 1);
	__sync_fetch_and_add(&group->heldIn[o->colour % SLUICE_RESIDUES], 1);
	put_stamp(o->skb, stamp_of(SLUICE_CLASS_HELD, o->index, lead, o->colour));
	return bpf_redirect(o->holdIfindex, 0);
}

/* Holding ends (DRAIN): once the queue has left, new frames pass, unmarked. */
always int hold_or_pass(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 flags,
			__u32 *verdict)
{
	if ((flags & SLUICE_NIC_DRAIN) && held_is_empty(nic)) {
		*verdict = SLUICE_VERDICT_PASS;
		return TC_ACT_UNSPEC;
	}
	*verdict = SLUICE_VERDICT_HELD;
	return hold(o, nic, group, 0);
}

/*
 * A copy to each member now, the original held for everybody else. Where nothing needs to be held
 * any more (DRAIN) the original goes on marked, so that the members don't get it twice.
 */
always int split(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 flags)
{
	int drained = (flags & SLUICE_NIC_DRAIN) && held_is_empty(nic);

	o->next = ONCE(group->firstNic);
	bpf_loop(SLUICE_GROUP_NICS_MAX, split_step, o, 0);
	if (!drained)
		return hold(o, nic, group, 1);
	become_intra(o->skb, o->mark);
	put_field(o->skb, o->mark, SLUICE_MARK_RELEASED_SPLIT);
	return TC_ACT_UNSPEC;
}

/* ---------------------------------------------------------------------- member port, ingress */

/* A released frame back at its port: it goes on as if it had just arrived. */
always int is_released(__u32 field)
{
	return field == SLUICE_MARK_RELEASED || field == SLUICE_MARK_RELEASED_SPLIT;
}

/* The nic a unicast frame is for, if it is another one of the same group; 0 = outside. */
always __u32 member_for(struct origin *o, const struct frame *f)
{
	struct sluice_mac_key key = { .bridge = o->bridge, .vlan = f->vlan };
	__u32 *index;

	copy_mac(key.mac, f->dst);
	index = bpf_map_lookup_elem(&macs, &key);
	return index && *index != o->index ? *index : 0;
}

/* Decides on a frame of a protected nic. */
always int decide(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 flags,
		  __u32 *verdict)
{
	struct sluice_nic *d;
	struct frame f;
	__u32 dIndex;

	if (frame_read(o->skb, &f)) {
		*verdict = SLUICE_VERDICT_DROP;
		return TC_ACT_SHOT;
	}
	if (f.vlan != nic->vlan || !same_mac(f.src, nic->mac)) {
		if (!(flags & SLUICE_NIC_FOREIGN_DROP))
			return hold_or_pass(o, nic, group, flags, verdict);
		*verdict = SLUICE_VERDICT_DROP;
		return TC_ACT_SHOT;
	}
	o->vlan = f.vlan;
	if (is_link_local(f.dst))
		return hold_or_pass(o, nic, group, flags, verdict);
	if (f.dst[0] & 1) {
		*verdict = SLUICE_VERDICT_SPLIT;
		return split(o, nic, group, flags);
	}
	dIndex = member_for(o, &f);
	d = nic_of(dIndex);
	if (d && d->group == o->group && (ONCE(d->flags) & SLUICE_NIC_PROTECTED))
		return deliver(o, d, dIndex, flags, verdict);
	return hold_or_pass(o, nic, group, flags, verdict);
}

always int classify_member(struct __sk_buff *skb, struct sluice_nic *nic, __u32 index, __u32 *verdict)
{
	struct origin o = { .skb = skb, .index = index, .mark = skb->mark };
	__u32 flags = ONCE(nic->flags);
	struct sluice_group *group;

	if (is_released(mark_field(skb))) {
		__sync_fetch_and_add(&nic->heldOut, 1);
		*verdict = SLUICE_VERDICT_RELEASED;
		return TC_ACT_UNSPEC;
	}
	if (!(flags & SLUICE_NIC_PROTECTED)) {
		*verdict = SLUICE_VERDICT_PASS;
		return TC_ACT_UNSPEC;
	}
	o.group = nic->group;
	group = group_of(o.group);
	if (!group) {
		*verdict = SLUICE_VERDICT_DROP;
		return TC_ACT_SHOT;
	}
	o.stats = stats_of(skb->ifindex);
	o.bridge = nic->bridge;
	o.holdIfindex = ONCE(group->holdIfindex);
	o.groupColour = ONCE(group->colour);
	o.colour = member_colour(nic->member, o.groupColour);
	return decide(&o, nic, group, flags, verdict);
}

SEC("tc")
int classify(struct __sk_buff *skb)
{
	__u32 index = nic_index_at(skb->ifindex), bytes = skb->len, verdict = SLUICE_VERDICT_DROP;
	struct sluice_nic *nic = nic_of(index);
	int answer;

	if (!nic)
		return TC_ACT_UNSPEC;
	answer = classify_member(skb, nic, index, &verdict);
	count(stats_of(skb->ifindex), verdict, bytes);
	return answer;
}

/* --------------------------------------------------------------------------- hold pair: the way in */

/*
 * slh<g> egress. The host itself may send through any device (LLDP, mDNS, DHCP); such a frame has
 * a flow hash that the ring would take for a stamp. Only what classify stamped goes in.
 */
SEC("tc")
int enter(struct __sk_buff *skb)
{
	__u32 stamp = skb->mark;

	return stamp >> SLUICE_CLASS_SHIFT && skb->hash == stamp ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* slr<g> ingress: the ring has its copy; the host stack must never answer a held frame. */
SEC("tc")
int sink(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

/* -------------------------------------------------------------------------- hold pair: the way out */

always int refuse(struct __sk_buff *skb)
{
	struct sluice_stats *s = stats_of(skb->ifindex);

	BUMP(s, refused);
	return TC_ACT_SHOT;
}

/* The second key (D4): what the hold loop sends leaves only if the commit cell covers it. */
always int release_held(struct __sk_buff *skb, struct sluice_nic *nic, struct sluice_group *group, __u32 stamp)
{
	int split = (stamp >> SLUICE_LEAD_SHIFT) & SLUICE_LEAD_MASK;

	if (serial14(stamp & SLUICE_COLOUR_MASK, ONCE(group->commit)) > 0 &&
	    !(ONCE(nic->flags) & SLUICE_NIC_DRAIN))
		return refuse(skb);
	put_field(skb, 0, split ? SLUICE_MARK_RELEASED_SPLIT : SLUICE_MARK_RELEASED);
	return bpf_redirect(ONCE(nic->ifindex), BPF_F_INGRESS);
}

/*
 * Its receiver has reached the colour. Delivery is synchronous, so that the count of those out
 * rises after it. A lead that has outgrown its four bits is recorded as the largest: the record
 * then ends early, which can only lose a frame.
 */
always int release_early(struct __sk_buff *skb, struct sluice_nic *d, struct sluice_group *group, __u32 stamp)
{
	__u32 colour = stamp & SLUICE_COLOUR_MASK;
	__s32 ahead = -serial14(colour, member_colour(d->member, ONCE(group->colour)));
	__u32 dIndex = (stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK;

	if (ahead < 0) {
		__sync_fetch_and_add(&d->earlyOut, 1);
		return refuse(skb);
	}
	if (ahead > 0)
		record_late(skb, skb->ifindex, dIndex,
			    ahead > (__s32)SLUICE_LEAD_MASK ? SLUICE_LEAD_MASK : ahead, colour);
	become_intra(skb, 0);
	bpf_clone_redirect(skb, ONCE(d->ifindex), 0);
	__sync_fetch_and_add(&d->earlyOut, 1);
	return TC_ACT_SHOT;
}

/* After a rollback: a recorded frame is delivered again. The record stays where it is. */
always int release_late(struct __sk_buff *skb, struct sluice_nic *d)
{
	struct sluice_stats *s = stats_of(skb->ifindex);

	BUMP(s, redelivered);
	become_intra(skb, 0);
	return bpf_redirect(ONCE(d->ifindex), 0);
}

SEC("tc")
int release(struct __sk_buff *skb)
{
	__u32 stamp = skb->mark;
	struct sluice_nic *nic = nic_of((stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK);
	struct sluice_group *group;

	if (!nic)
		return refuse(skb);
	group = group_of(nic->group);
	if (!group || ONCE(group->holdIfindex) != skb->ifindex)
		return refuse(skb);
	switch (stamp >> SLUICE_CLASS_SHIFT) {
	case SLUICE_CLASS_HELD:
		return release_held(skb, nic, group, stamp);
	case SLUICE_CLASS_EARLY:
		return release_early(skb, nic, group, stamp);
	case SLUICE_CLASS_LATE:
		return release_late(skb, nic);
	default:
		return refuse(skb);
	}
}

/* ------------------------------------------------------------------ every port of the bridge, egress */

/*
 * Every frame of this nic must be marked. Not yet where frames that passed before protection began
 * may still be on their way (user space sets GUARDED after they have gone), and not while draining.
 */
always int holds(struct sluice_nic *nic)
{
	return nic && (ONCE(nic->flags) & (SLUICE_NIC_GUARDED | SLUICE_NIC_DRAIN)) == SLUICE_NIC_GUARDED;
}

/* A released multicast at a member that has had its copy. */
always int is_duplicate(struct __sk_buff *skb)
{
	struct sluice_nic *to = nic_of(nic_index_at(skb->ifindex));
	struct sluice_nic *from = nic_of(nic_index_at(skb->ingress_ifindex));
	struct frame f;

	if (!to || !from || to->group != from->group || !(ONCE(to->flags) & SLUICE_NIC_PROTECTED))
		return 0;
	return !frame_read(skb, &f) && f.vlan == to->vlan && !is_link_local(f.dst);
}

/* An intra frame may leave only through a port of its group. */
always int stays_inside(struct __sk_buff *skb)
{
	struct sluice_nic *to = nic_of(nic_index_at(skb->ifindex));
	struct sluice_nic *from = nic_of(nic_index_at(skb->ingress_ifindex));
	struct sluice_group *group;

	if (!to)
		return 0;
	if (from)
		return from->group == to->group;
	group = group_of(to->group);
	return group && ONCE(group->holdIfindex) == skb->ingress_ifindex;
}

/* Carries a protected nic's source MAC. */
always int is_guarded(struct __sk_buff *skb, __u32 bridge)
{
	struct sluice_guard_key key = { .bridge = bridge };
	__u32 *index;

	if (bpf_skb_load_bytes(skb, ETH_ALEN, key.mac, ETH_ALEN))
		return 0;
	index = bpf_map_lookup_elem(&guarded, &key);
	return index && holds(nic_of(*index));
}

#define BLOCK(field)                                                \
	do {                                                        \
		struct sluice_stats *s = stats_of(skb->ifindex);    \
		BUMP(s, field);                                     \
		return TC_ACT_SHOT;                                 \
	} while (0)

SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 from = skb->ingress_ifindex;

	switch (mark_field(skb)) {
	case SLUICE_MARK_RELEASED:
	case SLUICE_MARK_LOCAL:
		return TC_ACT_UNSPEC;
	case SLUICE_MARK_RELEASED_SPLIT:
		if (is_duplicate(skb))
			BLOCK(duplicate);
		return TC_ACT_UNSPEC;
	case SLUICE_MARK_INTRA:
		if (!stays_inside(skb))
			BLOCK(confined);
		put_field(skb, skb->mark, SLUICE_MARK_NONE);
		return TC_ACT_UNSPEC;
	}
	if (from && !bridge_of(from))
		BLOCK(unvetted);
	if (holds(nic_of(nic_index_at(from))) || is_guarded(skb, bridge_of(skb->ifindex)))
		BLOCK(leakBlocked);
	return TC_ACT_UNSPEC;
}

/* The bridge device's own ingress: what the bridge hands to the host. The port is not known here. */
SEC("tc")
int guard_self(struct __sk_buff *skb)
{
	switch (mark_field(skb)) {
	case SLUICE_MARK_RELEASED:
	case SLUICE_MARK_RELEASED_SPLIT:
	case SLUICE_MARK_LOCAL:
		return TC_ACT_UNSPEC;
	case SLUICE_MARK_INTRA:
		BLOCK(confined);
	}
	if (is_guarded(skb, skb->ifindex))
		BLOCK(leakBlocked);
	return TC_ACT_UNSPEC;
}

/* The bridge device's egress: the host's own frames. */
SEC("tc")
int local(struct __sk_buff *skb)
{
	if (mark_field(skb) == SLUICE_MARK_NONE)
		put_field(skb, skb->mark, SLUICE_MARK_LOCAL);
	return TC_ACT_UNSPEC;
}
