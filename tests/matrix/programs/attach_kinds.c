// SPDX-License-Identifier: GPL-2.0
// attach_kinds: events of each process, seen from one kind of attach point after another.
//
// How:     the variant says which kind. Function kinds see tcp_sendmsg(): calls, and bytes asked for (entry) or taken
//          (return). Event kinds see getppid(2): calls, and the sum of its system call numbers.
// Kernels: all; made for tests.

#ifdef __aarch64__
#define NR_GETPPID 173 /* include/uapi/asm-generic/unistd.h */
#else
#define NR_GETPPID 110 /* x86-64: arch/x86/entry/syscalls/syscall_64.tbl */
#endif

struct seen {
	u64 calls;
	u64 amount;
};

BPF_HASH(events, u32, struct seen, 4096); // by thread group

static inline int see(u64 amount)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct seen zero = {}, *seen = events.lookup_or_try_init(&tgid, &zero);

	if (!seen)
		return lost(LOST(events));
	lock_xadd(&seen->calls, 1);
	lock_xadd(&seen->amount, amount);
	return 0;
}

static inline int see_system_call(u64 number)
{
	return number == NR_GETPPID ? see(number) : 0;
}

#ifdef VARIANT_KPROBE
int on_event(struct pt_regs *ctx, struct sock *sk, struct msghdr *msg, size_t size)
{
	return see(size);
}
#endif

#ifdef VARIANT_KRETPROBE
int on_event(struct pt_regs *ctx)
{
	return see(PT_REGS_RC(ctx));
}
#endif

#ifdef VARIANT_FENTRY
BPF_PROG(on_event, struct sock *sk, struct msghdr *msg, size_t size)
{
	return see(size);
}
#endif

#ifdef VARIANT_FEXIT
BPF_PROG(on_event, struct sock *sk, struct msghdr *msg, size_t size, int result)
{
	return see(result);
}
#endif

#ifdef VARIANT_TRACEPOINT
int on_event(struct trace_event_raw_sys_enter *ctx)
{
	return see_system_call(ctx->id);
}
#endif

#ifdef VARIANT_RAW_TRACEPOINT
int on_event(struct bpf_raw_tracepoint_args *ctx)
{
	return see_system_call(ctx->args[1]);
}
#endif

#ifdef VARIANT_TP_BTF
BPF_PROG(on_event, struct pt_regs *regs, long number)
{
	return see_system_call(number);
}
#endif
