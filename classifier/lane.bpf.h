// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lanes: where held frames wait without being copied. A lane is a queue of the kernel's with a gate (a
 * token bucket that is shut) behind it, for the held frames of one colour; the group has LANES of them.
 *
 *   classify ─► slq<g> egress: board ─► lane 41 ▐          ═► slo<g> ingress: alight ─┬─ its lane is OPEN and the
 *                                 │     lane 42 ▐ gates                               │  colour committed: to its port
 *                                 │     lane 43 ▐                                     └─ anything else: to the ring
 *                                 └─ a notice of the first one ─► slh<g>: ring
 *
 * A gate is a convenience and no lock: whatever comes out of a lane that user space has not declared OPEN,
 * or that the commit cell does not cover (D4), goes to the ring and is held there (I1). So another tool that
 * opens a queue costs a copy, one that deletes it costs what was in it, and neither lets a frame leave early.
 *
 * Who goes in is counted first and looks at the lane's state again then; who ends the filling stores the
 * state first and reads the count then. One of the two sees the other: no frame is left behind in a lane
 * that is taken for empty.
 */
#ifndef SLUICE_LANE_BPF_H
#define SLUICE_LANE_BPF_H

#include "hold.bpf.h"

#define MARKER_OF(stamp) ((stamp) >> SLUICE_MARKER_SHIFT == SLUICE_MARKER)

always struct sluice_lane *lane_of(__u32 group, __u32 colour)
{
	__u32 at = group * SLUICE_LANES + colour % SLUICE_LANES;

	return bpf_map_lookup_elem(&lanes, &at);
}

/* Frames of this colour go in. */
always int is_filling(struct sluice_lane *lane, __u32 colour)
{
	return ONCE(lane->state) == SLUICE_LANE_FILLING && !((ONCE(lane->colour) ^ colour) & SLUICE_COLOUR_MASK);
}

/* slq<g> where a held frame may wait in a lane; 0 = it goes to the ring. Once one did, all that follow it do (I6). */
always __u32 lane_for(struct __sk_buff *skb, struct sluice_group *group, __u32 id, __u32 colour)
{
	__u32 ifindex = ONCE(group->laneIfindex);
	struct sluice_queue *queue;
	struct sluice_lane *lane;
	__s64 used;

	if (!ifindex)
		return 0;
	lane = lane_of(id, colour);
	queue = bpf_map_lookup_elem(&queues, &id);
	if (!lane || !queue || !is_filling(lane, colour) || ONCE(lane->full))
		return 0;
	/* Signed: frames of an earlier life of the group may come out without having been counted in. */
	used = ONCE(queue->bytesIn) - ONCE(queue->bytesOut) - ONCE(queue->bytesGone);
	if (skb->len > SLUICE_LANE_FRAME_MAX || (skb->gso_size && skb->gso_size < SLUICE_LANE_SEGMENT_MIN)) {
		lane->full = SLUICE_LANE_UNFIT;
		return 0;
	}
	if (used + skb->len + SLUICE_FRAME_COST <= (__s64)ONCE(queue->bytesMax))
		return ifindex;
	lane->full = SLUICE_LANE_OUT_OF_ROOM;
	return 0;
}

always void give_up_lane(__u32 id, __u32 colour)
{
	struct sluice_lane *lane = lane_of(id, colour);

	if (lane)
		lane->full = SLUICE_LANE_UNFIT;
}

always __u32 now_us(void)
{
	return bpf_ktime_get_ns() / 1000;
}

/* The skb's queue_mapping is the queue plus 1: it is read as that of a receive queue. */
always void choose(struct __sk_buff *skb, __u32 lane)
{
	skb->queue_mapping = lane % SLUICE_LANES + 1;
}

/* The ring wakes its loop, which says that the colour has output. */
always void notice(struct __sk_buff *skb, struct sluice_group *group, __u32 stamp)
{
	put_stamp(skb, stamp | SLUICE_LEAD_NOTICE << SLUICE_LEAD_SHIFT);
	bpf_clone_redirect(skb, ONCE(group->holdIfindex), 0);
}

/* slq<g> egress, before the queues. */
SEC("tc")
int board(struct __sk_buff *skb)
{
	__u32 stamp = skb->mark, id, bytes = skb->len;
	struct sluice_nic *nic;
	struct sluice_group *group;
	struct sluice_queue *queue;
	struct sluice_lane *lane;
	__u64 before;

	if (MARKER_OF(stamp)) {
		choose(skb, stamp);
		return TC_ACT_UNSPEC;
	}
	nic = nic_of((stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK);
	if (stamp >> SLUICE_CLASS_SHIFT != SLUICE_CLASS_HELD || skb->hash != stamp || !nic)
		return TC_ACT_SHOT;
	id = nic->group;
	group = group_of(id);
	lane = lane_of(id, stamp & SLUICE_COLOUR_MASK);
	queue = bpf_map_lookup_elem(&queues, &id);
	if (!group || !lane || !queue)
		return TC_ACT_SHOT;
	if (ONCE(group->laneIfindex) != skb->ifindex)
		return bpf_redirect(ONCE(group->holdIfindex), 0); /* nobody goes in any more since it was sent here */
	before = __sync_fetch_and_add(&lane->in, 1);
	if (!is_filling(lane, stamp)) {
		__sync_fetch_and_add(&lane->turned, 1);
		return bpf_redirect(ONCE(group->holdIfindex), 0);
	}
	__sync_fetch_and_add(&lane->inBytes, bytes);
	__sync_fetch_and_add(&queue->bytesIn, bytes + SLUICE_FRAME_COST);
	if (before == ONCE(lane->base)) {
		lane->firstNs = bpf_ktime_get_ns();
		notice(skb, group, stamp);
		skb->mark = stamp;
	}
	bpf_set_hash(skb, now_us());
	choose(skb, stamp);
	return TC_ACT_UNSPEC;
}

always void measure(struct sluice_queue *queue, __u32 us)
{
	static const __u32 bounds[] = { SLUICE_HOLD_BOUNDS_US };
	__u32 bucket = 0;

#pragma unroll
	for (int i = 0; i < SLUICE_HOLD_BUCKETS - 1; i++)
		bucket += us > bounds[i];
	if (bucket < SLUICE_HOLD_BUCKETS)
		__sync_fetch_and_add(&queue->hold[bucket], 1);
	__sync_fetch_and_add(&queue->holdSumUs, us);
}

/* Behind what came out before it, on the same CPU; the second time that has been forwarded. */
always int come_round(struct __sk_buff *skb, __u32 marker)
{
	struct sluice_lane *lane = lane_of((marker >> SLUICE_MARKER_GROUP_SHIFT) & 0xff, marker);

	if (marker & SLUICE_MARKER_FILLER || !lane)
		return TC_ACT_SHOT;
	if (!(marker & SLUICE_MARKER_ROUND)) {
		skb->mark = marker | SLUICE_MARKER_ROUND;
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	}
	__sync_fetch_and_add(&lane->markers, 1);
	return TC_ACT_SHOT;
}

/* slo<g> ingress, behind the gates. */
SEC("tc")
int alight(struct __sk_buff *skb)
{
	__u32 stamp = skb->mark, id, bytes = skb->len;
	struct sluice_nic *nic;
	struct sluice_group *group;
	struct sluice_queue *queue;
	struct sluice_lane *lane;

	if (MARKER_OF(stamp))
		return come_round(skb, stamp);
	if (!stamp)
		return TC_ACT_SHOT; /* the host's own */
	nic = nic_of((stamp >> SLUICE_NIC_SHIFT) & SLUICE_NIC_MASK);
	if (stamp >> SLUICE_CLASS_SHIFT != SLUICE_CLASS_HELD || !nic)
		return refuse(skb);
	id = nic->group;
	group = group_of(id);
	lane = lane_of(id, stamp & SLUICE_COLOUR_MASK);
	queue = bpf_map_lookup_elem(&queues, &id);
	if (!group || !lane || !queue || ONCE(group->exitIfindex) != skb->ifindex)
		return refuse(skb);
	skb->queue_mapping = 0; /* a lane's number must not choose a queue of the uplink */
	if ((ONCE(lane->colour) ^ stamp) & SLUICE_COLOUR_MASK) {
		/* Its lane was given up and counted it as lost; the ring drops it. */
		put_stamp(skb, stamp | SLUICE_LEAD_SPILLED << SLUICE_LEAD_SHIFT);
		return bpf_redirect(ONCE(group->holdIfindex), 0);
	}
	__sync_fetch_and_add(&queue->bytesOut, bytes + SLUICE_FRAME_COST);
	if (ONCE(lane->state) == SLUICE_LANE_OPEN && may_leave(nic, group, stamp)) {
		__sync_fetch_and_add(&lane->outBytes, bytes);
		__sync_fetch_and_add(&lane->out, 1);
		measure(queue, now_us() - skb->hash);
		return let_out(skb, nic, stamp);
	}
	__sync_fetch_and_add(&lane->spilledBytes, bytes);
	__sync_fetch_and_add(&lane->spilled, 1);
	put_stamp(skb, stamp | SLUICE_LEAD_SPILLED << SLUICE_LEAD_SHIFT);
	return bpf_redirect(ONCE(group->holdIfindex), 0);
}

#endif
