// SPDX-License-Identifier: GPL-2.0
// accept_latency: how long a connection waits from its SYN until accept() takes it.
//
// How:     inet_csk_reqsk_queue_hash_add() keeps the SYN, inet_csk_accept() takes the oldest completed one.
// Blind to: an accept() that has to wait for its connection, connections by SYN cookie or fast open.

#define SUM_SLOT 27 /* one above the last bound, 2^26 us = 67 s */
#define ABOVE 28

struct latency_key {
	u64 bucket;
};

BPF_TABLE("lru_hash", u64, u64, syn_at, 10240); // request_sock -> ns; those never accepted leave by age
BPF_HASH(accept_latency_seconds, struct latency_key, u64, ABOVE + 1);

int enter(struct pt_regs *ctx, struct sock *sk, struct request_sock *req)
{
	u64 request = (u64)req, now = bpf_ktime_get_ns();

	syn_at.update(&request, &now);
	return 0;
}

int leave(struct pt_regs *ctx, struct sock *sk)
{
	u64 request = (u64)PEEK(((struct inet_connection_sock *)sk)->icsk_accept_queue.rskq_accept_head);
	u64 zero = 0, us, *since = syn_at.lookup(&request);
	struct latency_key key = {};

	if (!since)
		return 0;
	us = (bpf_ktime_get_ns() - *since) / 1000;
	syn_at.delete(&request);
	key.bucket = exp2_slot(us);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(accept_latency_seconds.lookup_or_try_init(&key, &zero), 1, LOST(accept_latency_seconds));
	key.bucket = SUM_SLOT;
	add(accept_latency_seconds.lookup_or_try_init(&key, &zero), us, LOST(accept_latency_seconds));
	return 0;
}
