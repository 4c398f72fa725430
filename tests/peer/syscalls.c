// SPDX-License-Identifier: GPL-2.0
// syscalls: system calls by name, and failed ones by error.

#define SYSCALLS 1024
#define LAST_ERRNO 4095 /* MAX_ERRNO of linux/err.h */

BPF_PERCPU_HASH(syscalls_total, u64, u64, SYSCALLS);
BPF_PERCPU_HASH(syscall_errors_total, u64, u64, SYSCALLS);

BPF_PROG(entered, struct pt_regs *regs, long number)
{
	u64 zero = 0, key = number;

	add(syscalls_total.lookup_or_try_init(&key, &zero), 1, LOST(syscalls_total));
	return 0;
}

BPF_PROG(left, struct pt_regs *regs, long result)
{
	u64 zero = 0, key = -result;

	if (result >= 0 || result < -LAST_ERRNO)
		return 0;
	add(syscall_errors_total.lookup_or_try_init(&key, &zero), 1, LOST(syscall_errors_total));
	return 0;
}
