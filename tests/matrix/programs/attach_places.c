// SPDX-License-Identifier: GPL-2.0
// attach_places: calls of each process, seen at many places at once, in modules, in files and by samples.
//
// How:     the variant says where. Events of a CPU go by its number.
// Kernels: all; made for tests.

BPF_HASH(calls, u32, u64, 4096); // by thread group
BPF_HASH(samples, u32, u64, 1024); // by CPU

static inline int see(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 zero = 0;

	add(calls.lookup_or_try_init(&tgid, &zero), 1, LOST(calls));
	return 0;
}

int on_function(struct pt_regs *ctx)
{
	return see();
}

BPF_PROG(on_trampoline)
{
	return see();
}

int on_event(void *ctx)
{
	return see();
}

int on_sample(struct bpf_perf_event_data *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 zero = 0;

	add(samples.lookup_or_try_init(&cpu, &zero), 1, LOST(samples));
	return see();
}
