// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the programs share with user space: the maps of abi.h and the operator's mark field. All of
 * it is made, filled and pinned by user space; the programs only add to counters.
 */
#ifndef SLUICE_MAPS_BPF_H
#define SLUICE_MAPS_BPF_H

const volatile struct sluice_config sluice_config = {
	.markMask = SLUICE_MARK_MASK_DEFAULT,
	.markShift = SLUICE_MARK_SHIFT_DEFAULT,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_GROUPS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_group);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_nic);
} nics SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_MEMBERS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_member);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_GROUPS_MAX * SLUICE_LANES);
	__type(key, __u32);
	__type(value, struct sluice_lane);
} lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_GROUPS_MAX);
	__type(key, __u32);
	__type(value, struct sluice_queue);
} queues SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, struct sluice_mac_key);
	__type(value, __u32);
} macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, struct sluice_guard_key);
	__type(value, __u32);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_DEVICES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_NEAR_MAX);
	__type(key, __u32);
	__type(value, struct sluice_near);
} near SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_GROUPS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} wires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLUICE_VLANS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_GROUPS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} vnis SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_NICS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} peers SEC(".maps");

/* Not preallocated: user space makes the entries, and there are few of them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SLUICE_DEVICES_MAX);
	__type(key, __u32);
	__type(value, struct sluice_stats);
} stats SEC(".maps");

#endif
