// SPDX-License-Identifier: GPL-2.0
// cgroup_rstat_flushing: the lock of cgroup statistics, how long it is waited for and held, and how long flushes take.
//
// How:     The three tracepoints say which cgroup and, inside a flush, which CPU. The lock is a spinlock: who holds it
//          stays on the CPU, who waits for it may still move.

#define SUM_SLOT 25 /* one above the last bound, 2^24 times 100 ns = 1.7 s */
#define ABOVE 26
#define UNIT 100 /* ns */

enum { ERROR_UNKNOWN, ERROR_NO_MEMORY, ERROR_BUSY, ERROR_EXISTS, ERROR_NO_ELEM, ERROR_TIMESTAMP_ZERO, ERRORS };

struct locked_key {
	u16 level;
	u8 contended;
	u8 yield;
};

struct time_key {
	u64 bucket;
};

struct flush_key {
	u32 level;
	u32 bucket;
};

BPF_HASH(waiting_since, u64, u64, 10240); // task -> ns
BPF_PERCPU_ARRAY(held_since, u64, 1);	  // ns; 0 = not held
BPF_HASH(flushing_since, u64, u64, 10240); // task -> ns
BPF_HASH(cgroup_rstat_flush_total, u32, u64, 256);
BPF_HASH(cgroup_rstat_locked_total, struct locked_key, u64, 1024);
BPF_ARRAY(cgroup_rstat_map_errors_total, u64, ERRORS);
BPF_HASH(cgroup_rstat_lock_wait_seconds, struct time_key, u64, 64);
BPF_HASH(cgroup_rstat_lock_hold_seconds, struct time_key, u64, 64);
BPF_HASH(cgroup_rstat_flush_latency_seconds, struct flush_key, u64, 4096);

static inline void failed(int result)
{
	int error = result == -ENOMEM ? ERROR_NO_MEMORY : result == -EBUSY ? ERROR_BUSY : ERROR_UNKNOWN;
	u64 *counter;

	if (result == -E2BIG)
		error = ERROR_NO_MEMORY; // the map is full
	else if (result == -EEXIST)
		error = ERROR_EXISTS;
	else if (result == -ENOENT)
		error = ERROR_NO_ELEM;
	else if (!result)
		error = ERROR_TIMESTAMP_ZERO;
	counter = cgroup_rstat_map_errors_total.lookup(&error);
	if (counter)
		lock_xadd(counter, 1);
}

static inline u32 slot(u64 units)
{
	u32 bucket = exp2_slot(units);

	return bucket >= SUM_SLOT ? ABOVE : bucket;
}

BPF_PROG(contended, struct cgroup *cgrp, int cpu, bool contended)
{
	u64 task = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	int result = waiting_since.update(&task, &now);

	if (result)
		failed(result);
	return 0;
}

BPF_PROG(locked, struct cgroup *cgrp, int cpu, bool contended)
{
	u64 task = bpf_get_current_pid_tgid(), zero = 0, now = bpf_ktime_get_ns(), waited, *since;
	struct locked_key key = {};
	struct time_key time = {};
	int index = 0;

	key.level = PEEK(cgrp->level);
	key.contended = contended;
	key.yield = cpu >= 0;
	add(cgroup_rstat_locked_total.lookup_or_try_init(&key, &zero), 1, LOST(cgroup_rstat_locked_total));

	since = held_since.lookup(&index);
	if (since)
		*since = now;
	if (!contended)
		return 0;
	since = waiting_since.lookup(&task);
	if (!since) {
		failed(-ENOENT);
		return 0;
	}
	waited = (now - *since) / UNIT;
	waiting_since.delete(&task);
	time.bucket = slot(waited);
	add(cgroup_rstat_lock_wait_seconds.lookup_or_try_init(&time, &zero), 1, LOST(cgroup_rstat_lock_wait_seconds));
	time.bucket = SUM_SLOT;
	add(cgroup_rstat_lock_wait_seconds.lookup_or_try_init(&time, &zero), waited, LOST(cgroup_rstat_lock_wait_seconds));
	return 0;
}

BPF_PROG(unlock, struct cgroup *cgrp, int cpu, bool contended)
{
	struct time_key time = {};
	u64 zero = 0, held, *since;
	int index = 0;

	since = held_since.lookup(&index);
	if (!since)
		return 0;
	if (!*since) { // taken before this program was there
		failed(0);
		return 0;
	}
	held = (bpf_ktime_get_ns() - *since) / UNIT;
	*since = 0;
	time.bucket = slot(held);
	add(cgroup_rstat_lock_hold_seconds.lookup_or_try_init(&time, &zero), 1, LOST(cgroup_rstat_lock_hold_seconds));
	time.bucket = SUM_SLOT;
	add(cgroup_rstat_lock_hold_seconds.lookup_or_try_init(&time, &zero), held, LOST(cgroup_rstat_lock_hold_seconds));
	return 0;
}

BPF_PROG(flush, struct cgroup *cgrp)
{
	u64 task = bpf_get_current_pid_tgid(), zero = 0, now = bpf_ktime_get_ns();
	u32 level = PEEK(cgrp->level);
	int result = flushing_since.update(&task, &now);

	add(cgroup_rstat_flush_total.lookup_or_try_init(&level, &zero), 1, LOST(cgroup_rstat_flush_total));
	if (result)
		failed(result);
	return 0;
}

BPF_PROG(flushed, struct cgroup *cgrp)
{
	u64 task = bpf_get_current_pid_tgid(), zero = 0, took, *since = flushing_since.lookup(&task);
	struct flush_key key = {};

	if (!since)
		return 0;
	took = (bpf_ktime_get_ns() - *since) / UNIT;
	flushing_since.delete(&task);
	key.level = PEEK(cgrp->level);
	key.bucket = slot(took);
	add(cgroup_rstat_flush_latency_seconds.lookup_or_try_init(&key, &zero), 1,
	    LOST(cgroup_rstat_flush_latency_seconds));
	key.bucket = SUM_SLOT;
	add(cgroup_rstat_flush_latency_seconds.lookup_or_try_init(&key, &zero), took,
	    LOST(cgroup_rstat_flush_latency_seconds));
	return 0;
}
