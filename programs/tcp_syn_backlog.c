// SPDX-License-Identifier: GPL-2.0
// tcp_syn_backlog: length of a listener's accept queue when a connection completes its handshake.
//
// How:     The raw tracepoint inet_sock_set_state. The socket of a new connection starts as a copy of its listener
//          (LISTEN -> SYN_RECV), including the length of the queue. Bucket 0 is an empty queue: accept() is fast enough.
// Cost:    40 ns per socket state change (6.18, VM); about one in five is an accepted connection.
// Blind to: connections that find the queue full: the kernel copies no socket for them, see TcpExtListenOverflows. The only
//          label is the port: two listeners of one port (SO_REUSEPORT, namespaces) share a histogram.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 512
#endif
#define SLOTS 19 /* 0, le 1 ... 65536, and +Inf */

struct accept_port {
	u16 port;
};

struct backlog {
	u64 slots[SLOTS];
	u64 sum;
};

BPF_PERCPU_HASH(backlogs, struct accept_port, struct backlog, MAX_ENTRIES);

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	struct backlog zero = {}, *seen;
	struct accept_port key = {};
	u32 waiting;

	if ((int)ctx->args[1] != TCP_LISTEN || (int)ctx->args[2] != TCP_SYN_RECV || PEEK(sk->sk_protocol) != IPPROTO_TCP)
		return 0;
	key.port = PEEK(sk->__sk_common.skc_num);
	waiting = PEEK(sk->sk_ack_backlog);
	seen = backlogs.lookup_or_try_init(&key, &zero);
	if (!seen)
		return lost(LOST(backlogs));
	observe(seen->slots, &seen->sum, exp2zero_slot(waiting), waiting);
	return 0;
}
