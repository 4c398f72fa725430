// SPDX-License-Identifier: GPL-2.0
// bpf_jit: how many pages compiled BPF programs take, read from the kernel's own counter once a second.

BPF_ARRAY(bpf_jit_pages_currently_allocated, u64, 1);

int update(struct bpf_perf_event_data *ctx)
{
	u64 pages = 0;
	int index = 0;

	bpf_probe_read_kernel(&pages, sizeof(pages), (const void *)kaddr_bpf_jit_current);
	bpf_jit_pages_currently_allocated.update(&index, &pages);
	return 0;
}
