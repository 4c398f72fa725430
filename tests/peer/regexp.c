// SPDX-License-Identifier: GPL-2.0
// regexp: runs of the shrinkers that give slab memory back, by the task that ran them.

struct task_key {
	char comm[TASK_COMM_LEN];
};

BPF_HASH(mm_shrink_slab_events_total, struct task_key, u64, 4096);

BPF_PROG(shrunk)
{
	struct task_key key = {};
	u64 zero = 0;

	bpf_get_current_comm(&key.comm, sizeof(key.comm));
	add(mm_shrink_slab_events_total.lookup_or_try_init(&key, &zero), 1, LOST(mm_shrink_slab_events_total));
	return 0;
}
