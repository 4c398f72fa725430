// SPDX-License-Identifier: GPL-2.0
// drained: getppid(2) calls by their first argument, through maps that are far smaller than there are arguments.
//
// How:     raw_tracepoint sys_enter, getppid with the test's number as its second argument; counted beside in an array.
// Kernels: all; made for tests.

#ifdef __aarch64__
#define NR_GETPPID 173 /* include/uapi/asm-generic/unistd.h */
#else
#define NR_GETPPID 110 /* x86-64: arch/x86/entry/syscalls/syscall_64.tbl */
#endif
#define OURS 0x5eed

struct hit {
	u32 id;
	u32 group;
};

DRAINED_HASH(hits, struct hit, u64, 256);
DRAINED_PERCPU_HASH(cpu_hits, struct hit, u64, 256);
BPF_PERCPU_ARRAY(events, u64, 1);

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
	struct hit key = {};
	u64 zero = 0;
	int first = 0;

	if (ctx->args[1] != NR_GETPPID || PEEK(PT_REGS_PARM2(regs)) != OURS)
		return 0;
	add(events.lookup(&first), 1, LOST(hits));
	key.id = PEEK(PT_REGS_PARM1(regs));
	key.group = key.id % 5;
	add(ODD(hits) ? hits_odd.lookup_or_try_init(&key, &zero) : hits.lookup_or_try_init(&key, &zero), 1, LOST(hits));
	add(ODD(cpu_hits) ? cpu_hits_odd.lookup_or_try_init(&key, &zero) : cpu_hits.lookup_or_try_init(&key, &zero), 1,
	    LOST(cpu_hits));
	return 0;
}
