// SPDX-License-Identifier: GPL-2.0
// kstack: who looks at pages of files, by the last functions on the kernel's stack.

#define FRAMES 5
#define OF_TRACING 3 /* the innermost are this program and the trampoline that calls it */

struct stack_key {
	u64 kstack[FRAMES];
};

BPF_HASH(mark_page_accessed_total, struct stack_key, u64, 4096);

BPF_PROG(accessed)
{
	struct stack_key key = {};
	u64 zero = 0;

	bpf_get_stack(ctx, &key.kstack, sizeof(key.kstack), OF_TRACING);
	add(mark_page_accessed_total.lookup_or_try_init(&key, &zero), 1, LOST(mark_page_accessed_total));
	return 0;
}
