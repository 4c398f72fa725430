// SPDX-License-Identifier: GPL-2.0
// llcstat: references to the last level cache and misses of it. A sample stands for the events of its period.

#ifndef CPUS
#define CPUS 1024
#endif

BPF_HASH(llc_references_total, u32, u64, CPUS);
BPF_HASH(llc_misses_total, u32, u64, CPUS);

int miss(struct bpf_perf_event_data *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 zero = 0;

	add(llc_misses_total.lookup_or_try_init(&cpu, &zero), ctx->sample_period, LOST(llc_misses_total));
	return 0;
}

int reference(struct bpf_perf_event_data *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	u64 zero = 0;

	add(llc_references_total.lookup_or_try_init(&cpu, &zero), ctx->sample_period, LOST(llc_references_total));
	return 0;
}
