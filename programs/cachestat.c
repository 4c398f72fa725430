// SPDX-License-Identifier: GPL-2.0
// cachestat: operations on the page cache: accesses, writes, additions, pages made dirty.
//
// How:     An access without an addition found its page in the cache, so an estimate of the hit rate is
//          1 - (page_add_lru - page_mark_dirties) / (cache_access - cache_writes).
//          fentry_folio, kprobe_folio  folio_mark_accessed(), mark_buffer_dirty(), filemap_add_folio()
//          fentry_page                 their predecessors (before 5.16)
//          All variants also use the raw tracepoint writeback_dirty_folio (writeback_dirty_page).
// Cost:    one array lookup per operation; reading a file makes one per folio. Measured only under emulation.
// Blind to: accesses to mapped pages (mmap), which call no function. A folio may hold many pages and counts once.

enum { ACCESSED, WRITTEN, ADDED, DIRTIED, OPERATIONS };

BPF_PERCPU_ARRAY(operations, u64, OPERATIONS);

static inline int count(int operation)
{
	u64 *counter = operations.lookup(&operation);

	if (counter)
		lock_xadd(counter, 1);
	return 0;
}

int on_dirty(struct bpf_raw_tracepoint_args *ctx)
{
	return count(DIRTIED);
}

#ifdef VARIANT_KPROBE_FOLIO
int on_access(struct pt_regs *ctx)
{
	return count(ACCESSED);
}

int on_write(struct pt_regs *ctx)
{
	return count(WRITTEN);
}

int on_add(struct pt_regs *ctx)
{
	return count(ADDED);
}
#else
BPF_PROG(on_access)
{
	return count(ACCESSED);
}

BPF_PROG(on_write)
{
	return count(WRITTEN);
}

BPF_PROG(on_add)
{
	return count(ADDED);
}
#endif
