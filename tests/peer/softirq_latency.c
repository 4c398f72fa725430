// SPDX-License-Identifier: GPL-2.0
// softirq_latency: how long each kind of softirq waits for its CPU and runs.

#define KINDS 10 /* NR_SOFTIRQS of linux/interrupt.h */
#define SUM_SLOT 22 /* one above the last bound, 2^21 us = 2.1 s */
#define ABOVE 23

struct softirq_key {
	u32 kind;
	u32 bucket;
};

BPF_PERCPU_ARRAY(raised_at, u64, KINDS);  // ns; 0 = not raised
BPF_PERCPU_ARRAY(entered_at, u64, KINDS); // ns; 0 = not running
BPF_PERCPU_HASH(softirq_entry_latency_seconds, struct softirq_key, u64, 512);
BPF_PERCPU_HASH(softirq_service_latency_seconds, struct softirq_key, u64, 512);
BPF_PERCPU_ARRAY(softirq_raised_total, u64, KINDS);
BPF_PERCPU_ARRAY(softirq_serviced_total, u64, KINDS);

static inline u32 slot(u64 us)
{
	u32 bucket = exp2_slot(us);

	return bucket >= SUM_SLOT ? ABOVE : bucket;
}

// A softirq that is raised again before it ran waits from the first time.
BPF_PROG(raised, unsigned int vector)
{
	u64 *counter = softirq_raised_total.lookup(&vector), *since = raised_at.lookup(&vector);

	if (!counter || !since)
		return 0;
	lock_xadd(counter, 1);
	if (!*since)
		*since = bpf_ktime_get_ns();
	return 0;
}

BPF_PROG(entered, unsigned int vector)
{
	u64 *counter = softirq_serviced_total.lookup(&vector), *since = entered_at.lookup(&vector);
	u64 zero = 0, us, now = bpf_ktime_get_ns();
	struct softirq_key key = {};

	if (!counter || !since)
		return 0;
	lock_xadd(counter, 1);
	*since = now;
	since = raised_at.lookup(&vector);
	if (!since || !*since)
		return 0;
	us = (now - *since) / 1000;
	*since = 0;
	key.kind = vector;
	key.bucket = slot(us);
	add(softirq_entry_latency_seconds.lookup_or_try_init(&key, &zero), 1, LOST(softirq_entry_latency_seconds));
	key.bucket = SUM_SLOT;
	add(softirq_entry_latency_seconds.lookup_or_try_init(&key, &zero), us, LOST(softirq_entry_latency_seconds));
	return 0;
}

BPF_PROG(left, unsigned int vector)
{
	u64 zero = 0, us, *since = entered_at.lookup(&vector);
	struct softirq_key key = {};

	if (!since || !*since)
		return 0;
	us = (bpf_ktime_get_ns() - *since) / 1000;
	*since = 0;
	key.kind = vector;
	key.bucket = slot(us);
	add(softirq_service_latency_seconds.lookup_or_try_init(&key, &zero), 1, LOST(softirq_service_latency_seconds));
	key.bucket = SUM_SLOT;
	add(softirq_service_latency_seconds.lookup_or_try_init(&key, &zero), us, LOST(softirq_service_latency_seconds));
	return 0;
}
