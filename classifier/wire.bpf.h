// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two tags of a frame between hosts: reading, putting on, taking off. It decides nothing.
 *
 *   | dst src | 88a8 group's VLAN id | 8100 generation 4, epoch 12 | the frame as the member sent it
 *
 * The outer tag is normally beside the frame, the inner one in its data; where the outer one is
 * still in the data, the inner one stands four bytes further.
 */
#ifndef SLUICE_WIRE_BPF_H
#define SLUICE_WIRE_BPF_H

#include "frame.bpf.h"

#define VLAN_HLEN 4

struct tag {
	__be16 type;
	__be16 tci;
};

/* 0 = no outer 802.1ad tag; 1 = one, but no 802.1Q tag behind it; 2 = both. */
always int wire_read(struct __sk_buff *skb, __u32 *vlan, __u32 *inner)
{
	__u32 at = ETH_HLEN - sizeof(__be16);
	struct tag tag;

	if (skb->vlan_present) {
		if (skb->vlan_proto != bpf_htons(ETH_P_8021AD))
			return 0;
		*vlan = skb->vlan_tci & 0xfff;
	} else {
		if (read_at(skb, at, &tag, sizeof(tag)) || tag.type != bpf_htons(ETH_P_8021AD))
			return 0;
		*vlan = bpf_ntohs(tag.tci) & 0xfff;
		at += VLAN_HLEN;
	}
	if (read_at(skb, at, &tag, sizeof(tag)) || tag.type != bpf_htons(ETH_P_8021Q))
		return 1;
	*inner = bpf_ntohs(tag.tci);
	return 2;
}

/* The id of an 802.1ad tag, the first or behind one 802.1Q tag. 0 = there is none. */
always int wire_id(struct __sk_buff *skb, __u32 *vlan)
{
	__u32 at = ETH_HLEN - sizeof(__be16);
	struct tag tag;

	if (skb->vlan_present) {
		tag.type = skb->vlan_proto;
		tag.tci = bpf_htons(skb->vlan_tci);
	} else {
		if (read_at(skb, at, &tag, sizeof(tag)))
			return 0;
		at += VLAN_HLEN;
	}
	if (tag.type == bpf_htons(ETH_P_8021Q) && read_at(skb, at, &tag, sizeof(tag)))
		return 0;
	*vlan = bpf_ntohs(tag.tci) & 0xfff;
	return tag.type == bpf_htons(ETH_P_8021AD);
}

always int wire_closed(__u64 wire)
{
	return (__u32)(wire >> 32) > SLUICE_WIRE_GENERATION_MASK;
}

/* The inner tag of a frame of this colour. */
always __u32 wire_inner(__u64 wire, __u32 colour)
{
	return (__u32)(wire >> 32) << SLUICE_WIRE_EPOCH_BITS | ((colour - (__u32)wire) & SLUICE_WIRE_EPOCH_MASK);
}

/* How far a frame is ahead of the group's colour, by the twelve bits it carries. */
always __s32 wire_ahead(__u64 wire, __u32 inner, __u32 groupColour)
{
	return (__s32)((inner - (groupColour - (__u32)wire)) << (32 - SLUICE_WIRE_EPOCH_BITS)) >>
	       (32 - SLUICE_WIRE_EPOCH_BITS);
}

always int wire_push(struct __sk_buff *skb, __u32 vlan, __u32 inner)
{
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), inner))
		return -1;
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), vlan) ? -1 : 0;
}

always int wire_pop(struct __sk_buff *skb)
{
	return bpf_skb_vlan_pop(skb) || bpf_skb_vlan_pop(skb) ? -1 : 0;
}

#endif
