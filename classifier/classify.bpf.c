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
#include "maps.bpf.h"
#include "frame.bpf.h"
#include "hold.bpf.h"
#include "guard.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#ifdef SLUICE_SOURCE_SHA256
/* Proves which source an object was built from; nothing reads it at run time. */
const char sluice_source[] SEC("sluice.source") = SLUICE_SOURCE_SHA256;
#endif

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

/* A released frame back at its port: it goes on as if it had just arrived. The mark alone proves nothing. */
always int is_released(struct __sk_buff *skb)
{
	__u32 field = mark_field(skb);

	return (field == SLUICE_MARK_RELEASED || field == SLUICE_MARK_RELEASED_SPLIT) &&
	       skb->hash == sluice_config.releaseHash;
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

	if (is_released(skb)) {
		bpf_set_hash_invalid(skb);
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
