// SPDX-License-Identifier: GPL-2.0
// accept_latency: time that an established connection waits until a process accepts it, by port.
//
// How:     The raw tracepoint inet_sock_set_state, SYN_RECV -> ESTABLISHED, starts the wait; the return of
//          inet_csk_accept() with that socket ends it. That function runs in the accepting process, so a process that
//          already waits in accept() counts too, with the time from the handshake until the process continues.
//          fexit, kretprobe  of inet_csk_accept()
// Cost:    two hash updates and one observation per connection, one comparison per other socket state change.
// Blind to: connections that were already waiting when the program was attached. A kretprobe misses returns while more
//          processes wait in accept() than the kernel has instances for (10, or 2 per CPU).

#ifndef MAX_WAITING
#define MAX_WAITING 65536
#endif
#ifndef MAX_ENTRIES
#define MAX_ENTRIES 512
#endif
#define SLOTS 28 /* microseconds: le 1 us ... 67 s, and +Inf */

struct accept_port {
	u16 port;
};

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

BPF_HASH(established_at, u64, u64, MAX_WAITING); // by address of struct sock, ns
BPF_PERCPU_HASH(waits, struct accept_port, struct latency, MAX_ENTRIES);

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	u64 socket = ctx->args[0], now;

	if ((int)ctx->args[1] != TCP_SYN_RECV || (int)ctx->args[2] != TCP_ESTABLISHED ||
	    PEEK(sk->sk_protocol) != IPPROTO_TCP)
		return 0;
	now = bpf_ktime_get_ns();
	if (established_at.update(&socket, &now))
		lost(LOST(established_at));
	return 0;
}

// The listener was closed before accept().
int on_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	u64 socket = ctx->args[0];

	established_at.delete(&socket);
	return 0;
}

static inline int accepted(const struct sock *sk)
{
	u64 socket = (u64)sk, us, *since = established_at.lookup(&socket);
	struct latency zero = {}, *seen;
	struct accept_port key = {};

	if (!since)
		return 0;
	us = whole_microseconds(bpf_ktime_get_ns() - *since);
	established_at.delete(&socket);
	key.port = PEEK(sk->__sk_common.skc_num);
	seen = waits.lookup_or_try_init(&key, &zero);
	if (!seen)
		return lost(LOST(waits));
	observe(seen->slots, &seen->sum, exp2_slot(us), us);
	return 0;
}

#ifdef VARIANT_FEXIT
// struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg) since 6.10; int flags, int *err[, bool kern]
// before: the return value follows the arguments, and bpf_get_func_ret() finds it for any number of them
BPF_PROG(on_accepted)
{
	u64 result = 0;

	bpf_get_func_ret(ctx, &result);
	return accepted((const struct sock *)result);
}
#endif

#ifdef VARIANT_KRETPROBE
int on_accepted(struct pt_regs *ctx)
{
	return accepted((const struct sock *)PT_REGS_RC(ctx));
}
#endif
