// SPDX-License-Identifier: GPL-2.0
// uprobe: calls of malloc() in the C library of the host, by cgroup. What it costs is the trap: some microseconds a call.

BPF_HASH(libc_malloc_calls_total, u64, u64, 10240);

int called(struct pt_regs *ctx)
{
	u64 zero = 0, cgroup = bpf_get_current_cgroup_id();

	add(libc_malloc_calls_total.lookup_or_try_init(&cgroup, &zero), 1, LOST(libc_malloc_calls_total));
	return 0;
}
