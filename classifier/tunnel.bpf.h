// SPDX-License-Identifier: GPL-2.0-only
/*
 * A frame between hosts by VXLAN, for groups whose hosts share no switch: the kernel's own device
 * (external, gbp) puts the outer headers on and takes them off, and these say and ask what stands in
 * them. It decides nothing.
 *
 *   | outer IPv4, UDP | VXLAN: VNI = the group's, policy id = generation 4, epoch 12 | the frame as sent |
 *
 * The kernel keeps what it is told in one place per CPU until the device has sent the frame. So the
 * device must have no queue (noqueue): a frame that waited would leave with the next one's colour.
 */
#ifndef SLUICE_TUNNEL_BPF_H
#define SLUICE_TUNNEL_BPF_H

#include "frame.bpf.h"

#define TUNNEL_TTL 64

/* Of the kernel's include/net/vxlan.h, which is no header of user space. */
struct vxlan_metadata {
	__u32 gbp;
};

/* 0 = the frame has a VNI, an IPv4 sender and a policy id as we send it. */
always int tunnel_read(struct __sk_buff *skb, __u32 *vni, __u32 *sender, __u32 *inner)
{
	struct bpf_tunnel_key key = {};
	struct vxlan_metadata md = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) || bpf_skb_get_tunnel_opt(skb, &md, sizeof(md)) < 0)
		return -1;
	*vni = key.tunnel_id;
	*sender = key.remote_ipv4;
	*inner = md.gbp & 0xffff;
	return (md.gbp & ~0xffffu) != SLUICE_WIRE_GBP;
}

/* Says to the device where the next frame goes, and with which colour. Nonzero = it can't be sent. */
always int tunnel_put(struct __sk_buff *skb, struct sluice_group *group, __u32 nic, __u32 inner)
{
	struct vxlan_metadata md = { .gbp = SLUICE_WIRE_GBP | inner };
	__u32 *peer = bpf_map_lookup_elem(&peers, &nic);
	struct bpf_tunnel_key key = { .tunnel_id = ONCE(group->vni), .tunnel_ttl = TUNNEL_TTL };

	if (!peer || !ONCE(group->tunnel))
		return -1;
	key.remote_ipv4 = *peer;
	key.local_ipv4 = ONCE(group->here);
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0) || bpf_skb_set_tunnel_opt(skb, &md, sizeof(md));
}

/* The nic's host is the one that this came from. */
always int lives_at(__u32 nic, __u32 sender)
{
	__u32 *peer = bpf_map_lookup_elem(&peers, &nic);

	return peer && *peer == sender;
}

#endif
