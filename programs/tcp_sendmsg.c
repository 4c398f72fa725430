// SPDX-License-Identifier: GPL-2.0
// tcp_sendmsg: calls of tcp_sendmsg(), the bytes that they accepted, and the failed ones, by cgroup.
//
// How:     Counts on return, so bytes are those that TCP accepted, not those that were offered. A negative result is an
//          error (EAGAIN of a full non-blocking socket, EPIPE, ...) and has no size.
//          fexit       tcp_sendmsg
//          tracepoint  sock_send_length (6.3), for TCP sockets whose send() is tcp_sendmsg()
//          kretprobe   tcp_sendmsg, with the socket stored per task from entry to return; it misses calls when more of
//                      them block than the kernel has return instances for (10, or 2 per CPU), and before 6.7 also while
//                      another BPF program runs on the CPU
// Cost:    100 to 150 ns a call (tracepoint, 6.18, VM), less for other protocols; kretprobe several times that.
// Blind to: sends that do not call tcp_sendmsg(): kTLS and MPTCP sockets, sockets of a sockmap with a verdict program,
//          and before 6.5 sendfile() and splice(), which used tcp_sendpage(). Sends of the kernel itself (NFS, iSCSI)
//          appear under the root cgroup. Retransmissions are not calls.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 2048 /* cgroups that send, times families */
#endif
#define SIZE_SLOTS 26 /* le 1 B ... 16 MiB, and +Inf */

struct sender {
	u64 cgroup_id;
	u64 family; /* AF_INET or AF_INET6; 64 bits wide so that the key has no padding */
};

struct sends {
	u64 calls;
	u64 bytes;
	u64 errors;
};

struct sizes {
	u64 slots[SIZE_SLOTS];
	u64 sum;
};

enum { SIZES_IPV4, SIZES_IPV6, SIZES_COUNT };

// Per CPU, because senders of one cgroup run on many. Atomic nevertheless: a task can be preempted inside an addition.
BPF_PERCPU_HASH(sends, struct sender, struct sends, MAX_ENTRIES);
BPF_PERCPU_ARRAY(sizes, struct sizes, SIZES_COUNT);

static inline int count(const struct sock *sk, int result)
{
	struct sends zero = {}, *sent;
	struct sender sender = {};
	struct sizes *seen;
	int index;

	sender.cgroup_id = bpf_get_current_cgroup_id();
	sender.family = SOCK_FAMILY(sk);
	sent = sends.lookup_or_try_init(&sender, &zero);
	if (!sent)
		return lost(LOST(sends));
	lock_xadd(&sent->calls, 1);
	if (result < 0) {
		lock_xadd(&sent->errors, 1);
		return 0;
	}
	lock_xadd(&sent->bytes, result);

	index = sender.family == AF_INET6 ? SIZES_IPV6 : SIZES_IPV4;
	seen = sizes.lookup(&index);
	if (seen)
		observe(seen->slots, &seen->sum, exp2_slot(result), result);
	return 0;
}

#ifdef VARIANT_FEXIT
BPF_PROG(on_return, struct sock *sk, struct msghdr *msg, size_t size, int result)
{
	return count(sk, result);
}
#endif

#ifdef VARIANT_TRACEPOINT
// TP_PROTO(struct sock *sk, int ret, int flags), for sockets of all families
int on_send_length(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];

	if (PEEK(sk->sk_protocol) != IPPROTO_TCP || PEEK(sk->sk_type) != SOCK_STREAM)
		return 0;
	if (PEEK(((const struct inet_connection_sock *)sk)->icsk_ulp_ops)) // kTLS has its own send()
		return 0;
	return count(sk, ctx->args[1]);
}
#endif

#ifdef VARIANT_KRETPROBE
BPF_HASH(sending, u64, u64, 16384); // task -> the socket it is sending on

int on_entry(struct pt_regs *ctx, struct sock *sk)
{
	u64 task = bpf_get_current_pid_tgid(), socket = (u64)sk;

	if (sending.update(&task, &socket))
		lost(LOST(sends)); // the return will find no socket and not count
	return 0;
}

int on_return(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_pid_tgid(), *socket = sending.lookup(&task);
	const struct sock *sk;

	if (!socket) // entered before the program was attached
		return 0;
	sk = (const struct sock *)*socket;
	sending.delete(&task);
	return count(sk, PT_REGS_RC(ctx));
}
#endif
