// SPDX-License-Identifier: GPL-2.0
// softirq_latency: how long each kind of softirq waits until its CPU begins with it, and how long it then runs.
//
// How:     Raw tracepoints softirq_raise, softirq_entry and softirq_exit. A softirq runs on the CPU that raised it, one at
//          a time, so everything is in one array by CPU: one lookup an event and no key to hash. One that is raised
//          again before it ran waits from the first time; `raised` counts both, `serviced` equals /proc/softirqs.
// Cost:    240 ns for a raise, start and end together (6.18, VM). A busy host has some 10,000 a second.
// Blind to: softirqs raised where the tracepoint is left out (tasklets raised by another tasklet keep theirs); with
//          forced threads (PREEMPT_RT) a softirq's own time includes what preempts it.

#define KINDS 10 /* NR_SOFTIRQS of linux/interrupt.h */
#define SLOTS 23 /* microseconds: le 1 us ... 2.1 s, and +Inf */

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

struct softirq {
	u64 raised_at; /* ns; 0 = not raised */
	u64 began_at;  /* ns; 0 = not running */
	u64 raised;
	u64 serviced;
	struct latency waited;
	struct latency ran;
};

BPF_PERCPU_ARRAY(softirqs, struct softirq, KINDS);

static inline u64 microseconds(u64 since)
{
	return (bpf_ktime_get_ns() - since) / 1000;
}

int on_raise(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);

	if (!softirq)
		return 0;
	lock_xadd(&softirq->raised, 1);
	if (!softirq->raised_at)
		softirq->raised_at = bpf_ktime_get_ns();
	return 0;
}

int on_entry(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);
	u64 now, us;

	if (!softirq)
		return 0;
	now = bpf_ktime_get_ns();
	softirq->began_at = now;
	lock_xadd(&softirq->serviced, 1);
	if (!softirq->raised_at)
		return 0;
	us = (now - softirq->raised_at) / 1000;
	softirq->raised_at = 0;
	observe(softirq->waited.slots, &softirq->waited.sum, exp2_slot(us), us);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);
	u64 us;

	if (!softirq || !softirq->began_at)
		return 0;
	us = microseconds(softirq->began_at);
	softirq->began_at = 0;
	observe(softirq->ran.slots, &softirq->ran.sum, exp2_slot(us), us);
	return 0;
}
