// SPDX-License-Identifier: GPL-2.0
// softirq_latency: how long each kind of softirq waits until its CPU begins with it, and how long it then runs.
//
// How:     Raw tracepoints softirq_raise, softirq_entry and softirq_exit. A softirq runs on the CPU that raised it, one at
//          a time, so everything is in one array by CPU: one lookup an event and no key to hash. One that is raised
//          again before it ran waits from the first time; `raised` counts both, `serviced` equals /proc/softirqs.
// Cost:    150 ns for a raise, start and end together (6.18, VM), of which 60 go to the clock. A busy host has some 10,000
//          a second.
// Blind to: the wait of one that is raised again in the moment before it begins; softirqs raised where the tracepoint is
//          left out (tasklets raised by another tasklet keep theirs); with forced threads (PREEMPT_RT) a softirq's own
//          time includes what preempts it.

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

// Plain additions: a softirq is raised with interrupts off, and none begins on a CPU while another one runs there, so
// nothing that writes the same members can come between. Begin and raise share `raised_at` only.

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
	since = softirq->raised_at; // before the clock is read: an interrupt may raise it again from here on
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

	if (!softirq || !softirq->began_at) // it ran already when the program came
		return 0;
	us = whole_microseconds(bpf_ktime_get_ns() - softirq->began_at);
	observe_alone(softirq->ran.slots, &softirq->ran.sum, exp2_slot(us), us);
	return 0;
}
