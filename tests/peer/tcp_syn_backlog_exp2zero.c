// SPDX-License-Identifier: GPL-2.0
// tcp_syn_backlog_exp2zero: how full the accept queue of a listener is when a handshake completes; bucket 0 is empty.

#define SUM_SLOT 18 /* one above the last bound, 2^16 */
#define ABOVE 19

struct backlog_key {
	u64 bucket;
};

BPF_HASH(tcp_syn_backlog, struct backlog_key, u64, 64);

int completed(struct pt_regs *ctx, struct sock *sk)
{
	u64 zero = 0, backlog = PEEK(sk->sk_ack_backlog);
	struct backlog_key key = {};

	key.bucket = exp2zero_slot(backlog);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(tcp_syn_backlog.lookup_or_try_init(&key, &zero), 1, LOST(tcp_syn_backlog));
	key.bucket = SUM_SLOT;
	add(tcp_syn_backlog.lookup_or_try_init(&key, &zero), backlog, LOST(tcp_syn_backlog));
	return 0;
}
