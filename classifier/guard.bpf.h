// SPDX-License-Identifier: GPL-2.0-only
/*
 * The programs at the bridge's edges, against what should never happen: a frame of a protected nic
 * that no classifier saw (D6), an intra frame that the bridge flooded, a released multicast at a
 * member that has it, a group's outer tag that no classifier gave. In a healthy system they only
 * clear marks.
 *
 *   any port's egress: guard     bridge device's ingress: guard_self     its egress: local
 *   VXLAN device's egress: depart
 */
#ifndef SLUICE_GUARD_BPF_H
#define SLUICE_GUARD_BPF_H

#include "frame.bpf.h"
#include "wire.bpf.h"

/*
 * Every frame of this nic must be marked. Not yet where frames that passed before protection began
 * may still be on their way (user space sets GUARDED after they have gone), and not while draining.
 */
always int holds(struct sluice_nic *nic)
{
	return nic && (ONCE(nic->flags) & (SLUICE_NIC_GUARDED | SLUICE_NIC_DRAIN)) == SLUICE_NIC_GUARDED;
}

/* A released multicast at a member that has had its copy, from a fellow here or on another host. */
always int is_duplicate(struct __sk_buff *skb)
{
	struct sluice_nic *to = nic_of(nic_index_at(skb->ifindex));
	struct sluice_nic *from = nic_of(nic_index_at(skb->ingress_ifindex));
	struct frame f;

	if (!to || !(ONCE(to->flags) & SLUICE_NIC_PROTECTED) || frame_read(skb, &f))
		return 0;
	if (f.vlan != to->vlan || is_link_local(f.dst))
		return 0;
	if (!from)
		from = nic_of(nic_index_by(bridge_of(skb->ifindex), f.vlan, f.src));
	return from && from->group == to->group;
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
	return group && (ONCE(group->holdIfindex) == skb->ingress_ifindex ||
			 (ONCE(group->uplink) && ONCE(group->uplink) == skb->ingress_ifindex) ||
			 (ONCE(group->tunnel) && ONCE(group->tunnel) == skb->ingress_ifindex));
}

/*
 * Has a group's outer tag, or would have where a switch takes one 802.1Q tag off (its native VLAN): the
 * group's id + 1; 0 = it has none.
 */
always __u32 wire_group(struct __sk_buff *skb)
{
	__u32 vlan;

	return wire_id(skb, &vlan) ? group_on(vlan) : 0;
}

/* Tagged by classify, from a member's port, at the group's uplink. */
always int goes_away(struct __sk_buff *skb, __u32 id)
{
	struct sluice_nic *from = nic_of(nic_index_at(skb->ingress_ifindex));
	struct sluice_group *group = group_of(id);

	return mark_field(skb) == SLUICE_MARK_INTRA && from && from->group == id && group &&
	       ONCE(group->uplink) == skb->ifindex;
}

/* Carries a protected nic's source MAC. */
always int is_guarded(struct __sk_buff *skb, __u32 bridge)
{
	struct sluice_guard_key key = { .bridge = bridge };
	__u32 *index;

	if (read_at(skb, ETH_ALEN, key.mac, ETH_ALEN))
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
	__u32 from = skb->ingress_ifindex, tagged = wire_group(skb);

	if (tagged) {
		if (!goes_away(skb, tagged - 1))
			BLOCK(forged);
		put_field(skb, skb->mark, SLUICE_MARK_NONE);
		return TC_ACT_UNSPEC;
	}
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

/* The VXLAN device's egress: only what a classifier sent there, from a member's port of a group that goes by it. */
SEC("tc")
int depart(struct __sk_buff *skb)
{
	struct sluice_nic *from = nic_of(nic_index_at(skb->ingress_ifindex));
	struct sluice_group *group = from ? group_of(from->group) : 0;

	if (mark_field(skb) != SLUICE_MARK_INTRA || !group || ONCE(group->tunnel) != skb->ifindex)
		BLOCK(forged);
	put_field(skb, skb->mark, SLUICE_MARK_NONE);
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

#endif
