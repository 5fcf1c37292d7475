// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a frame's receivers get: now, later, or by the wire (I2, I3). Shared by a member's port
 * (classify) and the uplink (arrive): from where a frame comes makes no difference to its receiver.
 */
#ifndef SLUICE_DELIVER_BPF_H
#define SLUICE_DELIVER_BPF_H

#include "frame.bpf.h"
#include "tunnel.bpf.h"
#include "wire.bpf.h"

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
	__u32 uplink;      /* seen on that walk: members of the same VLAN live elsewhere */
	__u16 vlan;
	__u64 wire;        /* the group's generation and base */
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
	if (ahead > (__s32)SLUICE_LEAD_MASK)
		return SLUICE_VERDICT_DROP;
	if (!(ONCE(d->flags) & SLUICE_NIC_READY) || ahead < 0 || ONCE(d->earlyIn) != left)
		return SLUICE_VERDICT_EARLY;
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
		BUMP(o->stats, skewed);
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

/* One copy by VXLAN, to all of a host's nics: there is no switch that would flood it. What came from another host
   goes to none: its own sends to all. */
always void copy_over(struct origin *o, __u32 dIndex)
{
	struct sluice_group *group = group_of(o->group);

	if (!o->index || !group || wire_closed(o->wire))
		return;
	become_intra(o->skb, o->mark);
	if (tunnel_put(o->skb, group, dIndex, wire_inner(o->wire, o->colour)))
		return;
	BUMP(o->stats, remote);
	bpf_clone_redirect(o->skb, ONCE(group->tunnel), 0);
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
	    (ONCE(d->flags) & SLUICE_NIC_PROTECTED)) {
		if (!(ONCE(d->flags) & SLUICE_NIC_REMOTE))
			copy_to(o, d, index);
		else if (ONCE(d->flags) & SLUICE_NIC_FIRST)
			copy_over(o, index);
		else
			o->uplink = ONCE(d->ifindex);
	}
	return 0;
}

/* One copy for all other hosts; their switch floods it. Nonzero = the frame could not be tagged and is lost. */
always int copy_away(struct origin *o, struct sluice_group *group)
{
	if (wire_closed(o->wire) || !ONCE(group->wireVlan))
		return 0;
	become_intra(o->skb, o->mark);
	if (wire_push(o->skb, ONCE(group->wireVlan), wire_inner(o->wire, o->colour)))
		return -1;
	BUMP(o->stats, remote);
	bpf_clone_redirect(o->skb, o->uplink, 0);
	return wire_pop(o->skb);
}

/* To a member elsewhere: there the receiver's colour is known, and there it waits if it is early. */
always int send_away(struct origin *o, struct sluice_nic *d, __u32 dIndex, struct sluice_group *group, __u32 *verdict)
{
	__u32 vlan = ONCE(group->wireVlan), inner = wire_inner(o->wire, o->colour);

	*verdict = SLUICE_VERDICT_DROP;
	if (wire_closed(o->wire) ||
	    (vlan ? wire_push(o->skb, vlan, inner) : tunnel_put(o->skb, group, dIndex, inner)))
		return TC_ACT_SHOT;
	*verdict = SLUICE_VERDICT_INTRA;
	BUMP(o->stats, remote);
	put_field(o->skb, o->mark, SLUICE_MARK_INTRA);
	return bpf_redirect(vlan ? ONCE(d->ifindex) : ONCE(group->tunnel), 0);
}

/* Delivers the frame itself. Returns the program's answer; *verdict says what it was. */
always int deliver(struct origin *o, struct sluice_nic *d, __u32 dIndex, struct sluice_group *group, __u32 flags,
		   __u32 *verdict)
{
	__u32 lead;

	if (ONCE(d->flags) & SLUICE_NIC_REMOTE)
		return send_away(o, d, dIndex, group, verdict);
	*verdict = fate_of(d, o->colour, o->groupColour, &lead);
	if (*verdict == SLUICE_VERDICT_DROP) {
		BUMP(o->stats, skewed);
		return TC_ACT_SHOT;
	}
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

#endif
