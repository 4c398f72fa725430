// SPDX-License-Identifier: GPL-2.0
// softirq_latency: time that each kind of softirq waits until its CPU starts it, and its run time.
//
// How:     Raw tracepoints softirq_raise, softirq_entry and softirq_exit. A softirq runs on the CPU that raised it, one at
//          a time, so all state is in one per-CPU array: one lookup per event and no key to hash. The wait of a softirq
//          that is raised again before it runs starts at the first raise; `raised` counts both, `serviced` equals
//          /proc/softirqs.
// Cost:    150 ns for raise, start and end together (6.18, VM), 60 of them for the clock. A busy host has about 10,000
//          a second.
// Blind to: the wait of a softirq that is raised again just before it starts; softirqs that are raised without the
//          tracepoint (a tasklet that another tasklet raises keeps the first time); with forced threads (PREEMPT_RT) the
//          run time includes whatever preempts the softirq.

#define KINDS 10 /* NR_SOFTIRQS of linux/interrupt.h */
#define SLOTS 23 /* microseconds: le 1 us ... 2.1 s, and +Inf */

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

struct softirq {
	u64 raised_at; /* ns; 0 = not raised */
	u64 began_at;  /* ns, of the last one */
	u64 raised;
	u64 serviced;
	struct latency waited;
	struct latency ran;
};

BPF_PERCPU_ARRAY(softirqs, struct softirq, KINDS);

// Plain additions are safe: a softirq is raised with interrupts off, and no softirq starts on a CPU while another one runs
// there, so nothing else writes the same members meanwhile. Start and raise share `raised_at` only.

int on_raise(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);

	if (!softirq)
		return 0;
	softirq->raised += 1;
	if (!softirq->raised_at)
		softirq->raised_at = bpf_ktime_get_ns();
	return 0;
}

int on_entry(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);
	u64 since, now, us;

	if (!softirq)
		return 0;
	since = softirq->raised_at; // before the clock: an interrupt may raise the softirq again from here on
	softirq->raised_at = 0;
	now = bpf_ktime_get_ns();
	softirq->began_at = now;
	softirq->serviced += 1;
	if (!since)
		return 0;
	us = whole_microseconds(now - since);
	observe_alone(softirq->waited.slots, &softirq->waited.sum, exp2_slot(us), us);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = ctx->args[0];
	struct softirq *softirq = softirqs.lookup(&kind);
	u64 us;

	if (!softirq || !softirq->began_at) // the softirq was running when the program was attached
		return 0;
	us = whole_microseconds(bpf_ktime_get_ns() - softirq->began_at);
	observe_alone(softirq->ran.slots, &softirq->ran.sum, exp2_slot(us), us);
	return 0;
}
