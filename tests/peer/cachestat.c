// SPDX-License-Identifier: GPL-2.0
// cachestat: what happens to pages of files: looked at, written to, read in, made dirty. A hit is an access without an
// addition, so the hit rate is 1 - (page_add_lru - page_mark_dirties) / (cache_access - cache_writes).

enum { ACCESSED, WRITTEN, ADDED, DIRTIED, OPERATIONS };

BPF_PERCPU_ARRAY(page_cache_ops_total, u64, OPERATIONS);

static inline int count(int operation)
{
	u64 *counter = page_cache_ops_total.lookup(&operation);

	if (counter)
		lock_xadd(counter, 1);
	return 0;
}

BPF_PROG(accessed)
{
	return count(ACCESSED);
}

BPF_PROG(written)
{
	return count(WRITTEN);
}

BPF_PROG(added)
{
	return count(ADDED);
}

#ifdef VARIANT_FOLIO
int dirtied(struct bpf_raw_tracepoint_args *ctx)
{
	return count(DIRTIED);
}
#else
BPF_PROG(dirtied)
{
	return count(DIRTIED);
}
#endif
