// SPDX-License-Identifier: GPL-2.0
// cachestat: what happens to pages of files: looked at, written to, read in, made dirty.
//
// How:     An access that found its page is one without an addition, so the hit rate is
//          1 - (page_add_lru - page_mark_dirties) / (cache_access - cache_writes), an estimate.
//          fentry_folio, kprobe_folio  folio_mark_accessed(), mark_buffer_dirty(), filemap_add_folio()
//          fentry_page                 their forerunners (before 5.16)
//          and the raw tracepoint writeback_dirty_folio (writeback_dirty_page) in all.
// Cost:    one array lookup an operation, and reading a file makes one for each folio; measured only under emulation.
// Blind to: pages that are mapped (mmap): an access there is no call. A folio may be many pages; it counts once.

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
