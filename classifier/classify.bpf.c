// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel side of the gate: decides what becomes of each frame, carries what stays inside a
 * group, and stamps what must wait. All state is in maps that user space fills (abi.h); the only
 * cells written here are counters.
 *
 *   VM ─► member port ingress: classify ─┬─ pass ───────────────────► bridge
 *                                        ├─ intra ─ mark INTRA ─────► member's port egress: guard ─► VM
 *                                        ├─ split ─ a copy to each member; the original ↓
 *                                        ├─ held ── its colour's lane ──► slq<g> egress: board ═► slo<g> ingress: alight
 *                                        └─ held, early ─ stamp ────► slh<g> egress: enter ═► slr<g>: ring, sink
 *
 *   hold loop ─► slr<g> ═► slh<g> ingress: release ─┬─ held ─ mark RELEASED ─► member port ingress again
 *                                                   └─ early, late ─ INTRA ──► member's port egress
 *
 *   bridge ─► any port egress: guard     bridge ─► host: guard_self     host ─► bridge: local
 *
 *   intra to another host ─┬─ two tags ─► uplink egress: guard ═► other host's uplink ingress: arrive ─► member's port
 *                          └─ tunnel key ─► VXLAN egress: depart ═► other host's VXLAN ingress: land ─► member's port
 *
 * Rules of this file:
 *  - The default is to hold. Passing is the exception that has been proved (I1).
 *  - A frame's source is its ingress port; MAC and VLAN only confirm it.
 *  - groups[].colour is read once per frame: sender and receiver are compared at one instant.
 *  - Every frame counted `in` by classify gets exactly one verdict.
 *  - Queues are counted in before the frame is sent and out after it was delivered (D5), so
 *    in == out + gone really means that nothing of the queue is on its way.
 *
 * It does not look behind the Ethernet header and its VLAN tags; it never drops a member's
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
#include "lane.bpf.h"
#include "guard.bpf.h"
#include "deliver.bpf.h"
#include "arrive.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#ifdef SLUICE_SOURCE_SHA256
/* Proves which source an object was built from; nothing reads it at run time. */
const char sluice_source[] SEC("sluice.source") = SLUICE_SOURCE_SHA256;
#endif

/* ------------------------------------------------------------------------------------- holding */

/* Nothing that was held from this nic is still on its way. Out before in, as in fate_of. */
always int held_is_empty(struct sluice_nic *nic)
{
	__u64 left = ONCE(nic->heldOut) + ONCE(nic->heldGone);

	return ONCE(nic->heldIn) == left;
}

/*
 * Into its colour's lane, or to the ring. Into a lane goes a copy of the descriptor alone, which owes its
 * sender nothing: what is held counts against nobody's socket.
 */
always int hold(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 lead)
{
	__u32 lane;

	__sync_fetch_and_add(&nic->heldIn, 1);
	__sync_fetch_and_add(&group->heldIn[o->colour % SLUICE_RESIDUES], 1);
	put_stamp(o->skb, stamp_of(SLUICE_CLASS_HELD, o->index, lead, o->colour));
	lane = lane_for(o->skb, group, o->group, o->colour);
	if (!lane)
		return bpf_redirect(o->holdIfindex, 0);
	if (bpf_clone_redirect(o->skb, lane, 0) >= 0)
		return TC_ACT_SHOT;
	/* Its device is gone: this one, and all that follow it, wait in the ring. */
	give_up_lane(o->group, o->colour);
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
always int split(struct origin *o, struct sluice_nic *nic, struct sluice_group *group, __u32 flags, __u32 *verdict)
{
	int drained = (flags & SLUICE_NIC_DRAIN) && held_is_empty(nic);

	o->next = ONCE(group->firstNic);
	bpf_loop(SLUICE_GROUP_NICS_MAX, split_step, o, 0);
	if (o->uplink && copy_away(o, group)) {
		*verdict = SLUICE_VERDICT_DROP;
		return TC_ACT_SHOT;
	}
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
	__u32 index = nic_index_by(o->bridge, f->vlan, f->dst);

	return index != o->index ? index : 0;
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
		return split(o, nic, group, flags, verdict);
	}
	dIndex = member_for(o, &f);
	d = nic_of(dIndex);
	if (d && d->group == o->group && (ONCE(d->flags) & SLUICE_NIC_PROTECTED))
		return deliver(o, d, dIndex, group, flags, verdict);
	return hold_or_pass(o, nic, group, flags, verdict);
}

always int classify_member(struct __sk_buff *skb, struct sluice_nic *nic, __u32 index, struct sluice_stats *counts,
			   __u32 *verdict)
{
	struct origin o = { .skb = skb, .stats = counts, .index = index, .mark = skb->mark };
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
	o.bridge = nic->bridge;
	o.holdIfindex = ONCE(group->holdIfindex);
	o.wire = ONCE(group->wire); /* before the colour: a new generation never comes with an old one */
	o.groupColour = ONCE(group->colour);
	o.colour = member_colour(nic->member, o.groupColour);
	return decide(&o, nic, group, flags, verdict);
}

SEC("tc")
int classify(struct __sk_buff *skb)
{
	__u32 index = nic_index_at(skb->ifindex), bytes = skb->len, verdict = SLUICE_VERDICT_DROP;
	struct sluice_nic *nic = nic_of(index);
	struct sluice_stats *counts;
	int answer;

	if (!nic)
		return TC_ACT_UNSPEC;
	counts = stats_of(skb->ifindex);
	answer = classify_member(skb, nic, index, counts, &verdict);
	count(counts, verdict, bytes);
	return answer;
}
