// SPDX-License-Identifier: GPL-2.0
// raw_tracepoints: timers (not those of high resolution) that were started, by the function that they will call.

BPF_HASH(raw_timer_starts_total, u64, u64, 4096);

int started(struct bpf_raw_tracepoint_args *ctx)
{
	const struct timer_list *timer = (const struct timer_list *)ctx->args[0];
	u64 zero = 0, function = (u64)PEEK(timer->function);

	add(raw_timer_starts_total.lookup_or_try_init(&function, &zero), 1, LOST(raw_timer_starts_total));
	return 0;
}
