// SPDX-License-Identifier: GPL-2.0
// tcp_syn_backlog: how full the accept queue of a listener is when a handshake completes, in steps of 50.

#define WIDTH 50
#define SUM_SLOT 21 /* one above the last bound, 1000 */
#define ABOVE 22

BPF_ARRAY(tcp_syn_backlog, u64, ABOVE + 1);

int completed(struct pt_regs *ctx, struct sock *sk)
{
	u64 backlog = PEEK(sk->sk_ack_backlog), slot = linear_slot(backlog, WIDTH), *counter;
	int index = slot >= SUM_SLOT ? ABOVE : slot;

	counter = tcp_syn_backlog.lookup(&index);
	if (counter)
		lock_xadd(counter, 1);
	index = SUM_SLOT;
	counter = tcp_syn_backlog.lookup(&index);
	if (counter)
		lock_xadd(counter, backlog);
	return 0;
}
