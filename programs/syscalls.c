// SPDX-License-Identifier: GPL-2.0
// syscalls: system calls by name, and failed ones by errno.
//
// How:     Raw tracepoints sys_enter and sys_exit. Calls are counted in a per-CPU array on entry (some never return: exit),
//          errors on return.
// Cost:    50 ns plus the entry into two raw tracepoints, for every system call of every process (6.18, VM): 500,000 a
//          second cost a twentieth of a CPU. Consider that before you run it on every host all the time.
// Blind to: operations of io_uring and calls that the vDSO answers (clock_gettime), which are no system calls. 32-bit
//          programs use other numbers and appear under wrong names.

#ifndef MAX_ERRORS
#define MAX_ERRORS 4096
#endif
#define NUMBERS 512	/* x86-64 and arm64 were at 470 in 2025 */
#define OTHER 511	/* -1, which seccomp and ptrace set for a forbidden call, and numbers that are too high */
#define LAST_ERRNO 4095 /* MAX_ERRNO of linux/err.h */

struct failure {
	u32 syscall;
	u32 error;
};

BPF_PERCPU_ARRAY(calls, u64, NUMBERS);
BPF_PERCPU_HASH(errors, struct failure, u64, MAX_ERRORS);

static inline long number(const struct pt_regs *registers)
{
#ifdef bpf_target_arm64
	return PEEK(registers->syscallno);
#else
	return PEEK(registers->orig_ax);
#endif
}

// TP_PROTO(struct pt_regs *regs, long id)
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = ctx->args[1], *count;
	u32 index = id < OTHER ? id : OTHER;

	count = calls.lookup(&index);
	if (count)
		lock_xadd(count, 1);
	return 0;
}

// TP_PROTO(struct pt_regs *regs, long ret)
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	long result = ctx->args[1], id;
	struct failure key = {};
	u64 zero = 0;

	if (result >= 0 || result < -LAST_ERRNO)
		return 0;
	id = number((const struct pt_regs *)ctx->args[0]);
	if (id < 0) // rt_sigreturn: the result is the value of the register before the signal
		return 0;
	key.syscall = id;
	key.error = -result;
	add(errors.lookup_or_try_init(&key, &zero), 1, LOST(errors));
	return 0;
}
