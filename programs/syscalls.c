// SPDX-License-Identifier: GPL-2.0
// syscalls: system calls by name, and failed ones by error.
//
// How:     Raw tracepoints sys_enter and sys_exit. Calls are counted in an array by CPU when they begin (some never end:
//          exit), errors when they return.
// Cost:    50 ns, and the way into two raw tracepoints, on every system call that any process makes (6.18, VM): a host
//          with 500,000 a second pays a twentieth of a CPU. Not for every host all the time.
// Blind to: what io_uring carries out and what the vDSO answers (clock_gettime): no system calls. 32-bit programs number
//          theirs otherwise, and they stand under the names of others.

#ifndef MAX_ERRORS
#define MAX_ERRORS 4096
#endif
#define NUMBERS 512	/* x86-64 and arm64 were at 470 in 2025 */
#define OTHER 511	/* -1, which seccomp and ptrace make of a call that they forbid, and what is too high */
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
	if (id < 0) // rt_sigreturn: the result is whatever the register held before the signal
		return 0;
	key.syscall = id;
	key.error = -result;
	add(errors.lookup_or_try_init(&key, &zero), 1, LOST(errors));
	return 0;
}
