// SPDX-License-Identifier: GPL-2.0-only
/*
 * The programs of the hold pair: what may go in, and what may come out again, where to.
 *
 *   slh<g> egress: enter ═► slr<g> ingress: ring, sink ─► slrp ingress: the pool's ring, sink
 *   ring ─► slr<g> egress: express ═► slh<g> ingress: release        (express: most need not go further)
 *
 * What leaves `release` as committed carries the mark and, as its hash, a secret of this load: a mark
 * alone anybody with SO_MARK can set. classify wants both, and takes the hash off again.
 *
 * release is the second key (D4): the hold loop's word is not enough, the commit cell (or, for an
 * early frame, the receiver's colour) must allow it too. It never waits and never queues.
 */
#ifndef SLUICE_HOLD_BPF_H
#define SLUICE_HOLD_BPF_H

#include "frame.bpf.h"

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

/*
 * slr<g> ingress: the ring has its copy; the host stack must never answer a held frame. A group without
 * a ring of its own has none there: its frame goes on to the pool's, where this program is again (D102).
 */
SEC("tc")
int sink(struct __sk_buff *skb)
{
	struct sluice_nic *nic = nic_of((skb->mark >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK);
	struct sluice_group *group = nic ? group_of(nic->group) : 0;
	__u32 pool = 0;

	if (group && ONCE(group->ringIfindex) == skb->ifindex)
		pool = ONCE(group->poolIfindex);
	return pool ? bpf_redirect(pool, BPF_F_INGRESS) : TC_ACT_SHOT;
}

always int refuse(struct __sk_buff *skb)
{
	struct sluice_stats *s = stats_of(skb->ifindex);

	BUMP(s, refused);
	return TC_ACT_SHOT;
}

/* The second key (D4): what the hold loop sends leaves only if the commit cell covers it. */
always int may_leave(struct sluice_nic *nic, struct sluice_group *group, __u32 stamp)
{
	return serial14(stamp & SLUICE_COLOUR_MASK, ONCE(group->commit)) <= 0 ||
	       (ONCE(nic->flags) & SLUICE_NIC_DRAIN);
}

always int let_out(struct __sk_buff *skb, struct sluice_nic *nic, __u32 stamp)
{
	int split = (stamp >> SLUICE_LEAD_SHIFT) & SLUICE_LEAD_SPLIT;

	bpf_set_hash(skb, sluice_config.releaseHash);
	put_field(skb, 0, split ? SLUICE_MARK_RELEASED_SPLIT : SLUICE_MARK_RELEASED);
	return bpf_redirect(ONCE(nic->ifindex), BPF_F_INGRESS);
}

/*
 * Its receiver has reached the colour. A frame is out when its receiver has read it, not when it was
 * handed over: a veth queues it for the CPU that sent it, and a frame that passes at once may come by
 * another's (I6). So what delivered the frame goes round once more behind it, on the same CPU, and the
 * count of those out rises when it is back. A lead that has outgrown its four bits is recorded as the
 * largest: the record then ends early, which can only lose a frame.
 */
always int release_early(struct __sk_buff *skb, struct sluice_nic *d, struct sluice_group *group, __u32 stamp)
{
	__u32 colour = stamp & SLUICE_COLOUR_MASK;
	__s32 ahead = -serial14(colour, member_colour(d->member, ONCE(group->colour)));
	__u32 dIndex = (stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK;

	if ((stamp >> SLUICE_LEAD_SHIFT) & SLUICE_LEAD_MASK) {
		__sync_fetch_and_add(&d->earlyOut, 1);
		return TC_ACT_SHOT;
	}
	if (ahead < 0) {
		__sync_fetch_and_add(&d->earlyOut, 1);
		return refuse(skb);
	}
	if (ahead > 0)
		record_late(skb, skb->ifindex, dIndex,
			    ahead > (__s32)SLUICE_LEAD_MASK ? SLUICE_LEAD_MASK : ahead, colour);
	become_intra(skb, 0);
	bpf_clone_redirect(skb, ONCE(d->ifindex), 0);
	skb->mark = stamp_of(SLUICE_CLASS_EARLY, dIndex, SLUICE_LEAD_DELIVERED, colour);
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
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

	if (!stamp)
		return TC_ACT_SHOT; /* the host's own, sent through slr<g> */
	if (!nic)
		return refuse(skb);
	group = group_of(nic->group);
	if (!group || ONCE(group->holdIfindex) != skb->ifindex)
		return refuse(skb);
	switch (stamp >> SLUICE_CLASS_SHIFT) {
	case SLUICE_CLASS_HELD:
		return may_leave(nic, group, stamp) ? let_out(skb, nic, stamp) : refuse(skb);
	case SLUICE_CLASS_EARLY:
		return release_early(skb, nic, group, stamp);
	case SLUICE_CLASS_LATE:
		return release_late(skb, nic);
	default:
		return refuse(skb);
	}
}

/*
 * slr<g> egress. What was held and may leave goes back to its port from here, and is spared the pair and a
 * backlog between (D87). Everything else goes on to release, which alone refuses, and so does every doubt.
 */
SEC("tc")
int express(struct __sk_buff *skb)
{
	__u32 stamp = skb->mark;
	struct sluice_nic *nic = nic_of((stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK);
	struct sluice_group *group;

	if (stamp >> SLUICE_CLASS_SHIFT != SLUICE_CLASS_HELD || !nic)
		return TC_ACT_UNSPEC;
	group = group_of(nic->group);
	if (!group || ONCE(group->ringIfindex) != skb->ifindex || !may_leave(nic, group, stamp))
		return TC_ACT_UNSPEC;
	return let_out(skb, nic, stamp);
}

#endif
