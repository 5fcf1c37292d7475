// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading a frame and writing on it: map look-ups, stamps, marks, addresses, VLAN. Small steps that
 * decide nothing; every program is made of them.
 */
#ifndef SLUICE_FRAME_BPF_H
#define SLUICE_FRAME_BPF_H

#include "maps.bpf.h"

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

/* 0 = none. An array costs a tenth of a hash, and nearly every device has a small ifindex. */
always __u32 nic_index_at(__u32 ifindex)
{
	struct sluice_near *near_by = bpf_map_lookup_elem(&near, &ifindex);
	__u32 *index;

	if (near_by)
		return ONCE(near_by->nic);
	index = bpf_map_lookup_elem(&ports, &ifindex);
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
	struct sluice_near *near_by = bpf_map_lookup_elem(&near, &ifindex);
	__u32 *bridge;

	if (near_by)
		return ONCE(near_by->bridge);
	bridge = bpf_map_lookup_elem(&devices, &ifindex);
	return bridge ? *bridge : 0;
}

/* The group whose outer VLAN id this is, plus 1; 0 = none. */
always __u32 group_on(__u32 vlan)
{
	__u32 *group = bpf_map_lookup_elem(&vlans, &vlan);

	return group ? ONCE(*group) : 0;
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
 * `bytes` (a constant) of the frame from `at` (one, too); nonzero = it ends before. Headers nearly always lie in
 * the frame's linear part, and a look there costs a tenth of the helper's call.
 */
always int read_at(struct __sk_buff *skb, __u32 at, void *to, __u32 bytes)
{
	void *from = (void *)(long)skb->data + at;

	if (from + bytes > (void *)(long)skb->data_end)
		return bpf_skb_load_bytes(skb, at, to, bytes) ? -1 : 0;
	__builtin_memcpy(to, from, bytes);
	return 0;
}

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
	if (read_at(skb, ETH_HLEN, &tci, sizeof(tci)))
		return SLUICE_VLAN_OTHER;
	return bpf_ntohs(tci) & 0xfff;
}

/* 0, or nonzero for a frame without an Ethernet header. */
always int frame_read(struct __sk_buff *skb, struct frame *f)
{
	if (read_at(skb, 0, f, ETH_HLEN))
		return -1;
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

/* The nic at this address; 0 = none. */
always __u32 nic_index_by(__u32 bridge, __u16 vlan, const __u8 *mac)
{
	struct sluice_mac_key key = { .bridge = bridge, .vlan = vlan };
	__u32 *index;

	copy_mac(key.mac, mac);
	index = bpf_map_lookup_elem(&macs, &key);
	return index ? *index : 0;
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

#endif
