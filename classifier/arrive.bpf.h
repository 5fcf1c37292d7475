// SPDX-License-Identifier: GPL-2.0-only
/*
 * The uplink's ingress: what comes from other hosts and from outside; the VXLAN device's: what comes
 * from other hosts over a routed network.
 *
 *   two tags ─► group by VLAN id ─► generation ─► tags off ─► both ends of the group ─► colour ─► deliver
 *   anything else ─► claims a member's address? ─┬─ no ──────────────────────────────► bridge
 *                                                ├─ one that lives here, or to a fellow ─► dropped
 *                                                └─ one elsewhere, multicast: its fellows have had it
 *   VXLAN ─► group by VNI ─► generation ─► both ends of the group, the source of the host it came from ─► colour ─► deliver
 *   anything else by VXLAN ─► dropped
 *
 * The group's VLAN is the operator's word that only the group's hosts can speak there. A frame that
 * came in by it is believed its colour; its addresses must fit all the same. Everything else is the
 * outside, whatever address it claims (D1 across hosts).
 */
#ifndef SLUICE_ARRIVE_BPF_H
#define SLUICE_ARRIVE_BPF_H

#include "deliver.bpf.h"

#define LOSE(stats, field)                \
	do {                              \
		BUMP(stats, field);       \
		return TC_ACT_SHOT;       \
	} while (0)

/* The nic at this address if it is the group's and its home is as asked; 0 = none. */
always __u32 fellow(__u32 bridge, __u32 group, __u16 vlan, const __u8 *mac, __u32 remote)
{
	__u32 index = nic_index_by(bridge, vlan, mac);
	struct sluice_nic *nic = nic_of(index);
	__u32 flags = nic ? ONCE(nic->flags) : 0;

	return nic && nic->group == group && (flags & SLUICE_NIC_PROTECTED) &&
	       (flags & SLUICE_NIC_REMOTE) == remote ? index : 0;
}

/* Its tags or outer headers are off. `sender`: the host it came from by VXLAN, 0 = by the uplink. */
always int arrive_inside(struct origin *o, struct sluice_group *group, __u32 sender, __u32 *verdict)
{
	struct sluice_nic *d;
	struct frame f;
	__u32 sIndex, dIndex;

	if (frame_read(o->skb, &f) || is_link_local(f.dst))
		LOSE(o->stats, foreign);
	sIndex = fellow(o->bridge, o->group, f.vlan, f.src, SLUICE_NIC_REMOTE);
	if (!sIndex || (sender && !lives_at(sIndex, sender)))
		LOSE(o->stats, foreign);
	if ((__s32)(o->colour - o->groupColour) > SLUICE_WIRE_AHEAD_MAX)
		LOSE(o->stats, skewed);
	o->vlan = f.vlan;
	if (f.dst[0] & 1) {
		*verdict = SLUICE_VERDICT_SPLIT;
		o->next = ONCE(group->firstNic);
		bpf_loop(SLUICE_GROUP_NICS_MAX, split_step, o, 0);
		return TC_ACT_SHOT;
	}
	dIndex = fellow(o->bridge, o->group, f.vlan, f.dst, 0);
	d = nic_of(dIndex);
	if (!d)
		LOSE(o->stats, elsewhere);
	return deliver(o, d, dIndex, group, 0, verdict);
}

/* Of the group's own generation, its colour made out: what it came by is off. */
always int arrive_coloured(struct origin *o, struct sluice_group *group, __u32 inner, __u32 sender, __u32 *verdict)
{
	o->holdIfindex = ONCE(group->holdIfindex);
	o->groupColour = ONCE(group->colour);
	if (ONCE(group->wire) != o->wire) /* closed meanwhile: the colour may be the next generation's */
		LOSE(o->stats, stale);
	o->colour = o->groupColour + wire_ahead(o->wire, inner, o->groupColour);
	return arrive_inside(o, group, sender, verdict);
}

always int arrive_tagged(struct __sk_buff *skb, struct origin *o, __u32 vlan, __u32 inner, __u32 *verdict)
{
	__u32 on = group_on(vlan);
	struct sluice_group *group = on ? group_of(on - 1) : 0;

	if (!group || ONCE(group->uplink) != skb->ifindex)
		LOSE(o->stats, unknown);
	o->wire = ONCE(group->wire);
	if ((__u32)(o->wire >> 32) != inner >> SLUICE_WIRE_EPOCH_BITS)
		LOSE(o->stats, stale);
	if (wire_pop(skb))
		LOSE(o->stats, unknown);
	o->group = on - 1;
	return arrive_coloured(o, group, inner, 0, verdict);
}

always int arrive_vxlan(struct __sk_buff *skb, struct origin *o, __u32 *verdict)
{
	__u32 vni, sender, inner, *id;
	struct sluice_group *group;

	if (tunnel_read(skb, &vni, &sender, &inner) || !sender)
		LOSE(o->stats, unknown);
	id = bpf_map_lookup_elem(&vnis, &vni);
	group = id ? group_of(*id) : 0;
	if (!group || ONCE(group->tunnel) != skb->ifindex)
		LOSE(o->stats, unknown);
	o->wire = ONCE(group->wire);
	if ((__u32)(o->wire >> 32) != inner >> SLUICE_WIRE_EPOCH_BITS)
		LOSE(o->stats, stale);
	o->group = *id;
	o->bridge = bridge_of(ONCE(group->uplink));
	return arrive_coloured(o, group, inner, sender, verdict);
}

/* From outside: a frame that claims a member's address is nobody's of the group (foreign). */
always int arrive_plain(struct __sk_buff *skb, struct origin *o, __u32 *verdict)
{
	struct sluice_nic *s;
	struct frame f;
	__u32 index;

	*verdict = SLUICE_VERDICT_PASS;
	if (frame_read(skb, &f))
		return TC_ACT_UNSPEC;
	index = nic_index_by(o->bridge, f.vlan, f.src);
	s = nic_of(index);
	if (!s || !(ONCE(s->flags) & SLUICE_NIC_PROTECTED))
		return TC_ACT_UNSPEC;
	if (!(ONCE(s->flags) & SLUICE_NIC_REMOTE) ||
	    (!(f.dst[0] & 1) && fellow(o->bridge, s->group, f.vlan, f.dst, 0))) {
		*verdict = SLUICE_VERDICT_DROP;
		LOSE(o->stats, foreign);
	}
	if (f.dst[0] & 1)
		put_field(skb, skb->mark, SLUICE_MARK_RELEASED_SPLIT);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int arrive(struct __sk_buff *skb)
{
	__u32 vlan = 0, inner = 0, bytes = skb->len, verdict = SLUICE_VERDICT_DROP;
	struct origin o = { .skb = skb, .mark = skb->mark };
	int tags = wire_read(skb, &vlan, &inner), answer = TC_ACT_SHOT;

	o.stats = stats_of(skb->ifindex);
	o.bridge = bridge_of(skb->ifindex);
	if (!tags)
		answer = arrive_plain(skb, &o, &verdict);
	else if (tags == 2)
		answer = arrive_tagged(skb, &o, vlan, inner, &verdict);
	else
		BUMP(o.stats, unknown);
	count(o.stats, verdict, bytes);
	return answer;
}

/* The VXLAN device's ingress. Nothing of it goes further than this: the host itself has no part in it. */
SEC("tc")
int land(struct __sk_buff *skb)
{
	__u32 bytes = skb->len, verdict = SLUICE_VERDICT_DROP;
	struct origin o = { .skb = skb, .mark = skb->mark };
	int answer;

	o.stats = stats_of(skb->ifindex);
	answer = arrive_vxlan(skb, &o, &verdict);
	count(o.stats, verdict, bytes);
	return answer;
}

#endif
