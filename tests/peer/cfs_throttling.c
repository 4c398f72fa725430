// SPDX-License-Identifier: GPL-2.0
// cfs_throttling: how long each run queue of a cgroup was throttled for want of quota.
//
// How:     unthrottle_cfs_rq() brings the run queue's clock up to date and adds the difference to cpu.stat's throttled
//          time; both ends of it are read here, so that the sums agree. It runs with the run queue locked: one a CPU.

#define SUM_SLOT 21 /* one above the last bound, 2^20 us = 1 s */
#define ABOVE 22

struct throttling_key {
	u64 cgroup;
	u64 bucket;
};

BPF_PERCPU_ARRAY(throttled_at, u64, 1); // the run queue's clock, ns; 0 = not inside
BPF_HASH(cfs_throttling_seconds, struct throttling_key, u64, 10240);

BPF_PROG(before, struct cfs_rq *cfs_rq)
{
	int index = 0;
	u64 *since = throttled_at.lookup(&index);

	if (since)
		*since = PEEK(cfs_rq->throttled_clock);
	return 0;
}

BPF_PROG(after, struct cfs_rq *cfs_rq)
{
	u64 zero = 0, us, now = PEEK(PEEK(cfs_rq->rq)->clock), *since;
	struct throttling_key key = {};
	int index = 0;

	since = throttled_at.lookup(&index);
	if (!since || !*since || now < *since)
		return 0;
	us = (now - *since) / 1000;
	*since = 0;
	key.cgroup = PEEK(PEEK(PEEK(PEEK(cfs_rq->tg)->css.cgroup)->kn)->id);
	key.bucket = exp2_slot(us);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(cfs_throttling_seconds.lookup_or_try_init(&key, &zero), 1, LOST(cfs_throttling_seconds));
	key.bucket = SUM_SLOT;
	add(cfs_throttling_seconds.lookup_or_try_init(&key, &zero), us, LOST(cfs_throttling_seconds));
	return 0;
}
