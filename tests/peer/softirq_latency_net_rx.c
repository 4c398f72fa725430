// SPDX-License-Identifier: GPL-2.0
// softirq_latency_net_rx: how long the NET_RX softirq waits for its CPU and runs. Arrays only: no key is looked up.

#define NET_RX 3 /* NET_RX_SOFTIRQ of linux/interrupt.h */
#define SUM_SLOT 32 /* one above the last bound, 2^31 ns = 2.1 s */
#define ABOVE 33

BPF_PERCPU_ARRAY(raised_at, u64, 1);  // ns; 0 = not raised
BPF_PERCPU_ARRAY(entered_at, u64, 1); // ns; 0 = not running
BPF_PERCPU_ARRAY(softirq_wait_seconds, u64, ABOVE + 1);
BPF_PERCPU_ARRAY(softirq_runtime_seconds, u64, ABOVE + 1);
BPF_PERCPU_ARRAY(softirq_raised_total, u64, 1);
BPF_PERCPU_ARRAY(softirq_serviced_total, u64, 1);

static inline int slot(u64 ns)
{
	u32 bucket = exp2_slot(ns);

	return bucket >= SUM_SLOT ? ABOVE : bucket;
}

// A softirq that is raised again before it ran waits from the first time.
BPF_PROG(raised, unsigned int vector)
{
	u64 *since, *counter;
	int index = 0;

	if (vector != NET_RX)
		return 0;
	counter = softirq_raised_total.lookup(&index);
	if (counter)
		lock_xadd(counter, 1);
	since = raised_at.lookup(&index);
	if (since && !*since)
		*since = bpf_ktime_get_ns();
	return 0;
}

BPF_PROG(entered, unsigned int vector)
{
	u64 now, waited, *since, *counter;
	int index = 0;

	if (vector != NET_RX)
		return 0;
	now = bpf_ktime_get_ns();
	counter = softirq_serviced_total.lookup(&index);
	if (counter)
		lock_xadd(counter, 1);
	since = entered_at.lookup(&index);
	if (since)
		*since = now;
	since = raised_at.lookup(&index);
	if (!since || !*since)
		return 0;
	waited = now - *since;
	*since = 0;
	index = slot(waited);
	counter = softirq_wait_seconds.lookup(&index);
	if (counter)
		lock_xadd(counter, 1);
	index = SUM_SLOT;
	counter = softirq_wait_seconds.lookup(&index);
	if (counter)
		lock_xadd(counter, waited);
	return 0;
}

BPF_PROG(left, unsigned int vector)
{
	u64 ran, *since, *counter;
	int index = 0;

	if (vector != NET_RX)
		return 0;
	since = entered_at.lookup(&index);
	if (!since || !*since)
		return 0;
	ran = bpf_ktime_get_ns() - *since;
	*since = 0;
	index = slot(ran);
	counter = softirq_runtime_seconds.lookup(&index);
	if (counter)
		lock_xadd(counter, 1);
	index = SUM_SLOT;
	counter = softirq_runtime_seconds.lookup(&index);
	if (counter)
		lock_xadd(counter, ran);
	return 0;
}
