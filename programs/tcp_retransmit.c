// SPDX-License-Identifier: GPL-2.0
// tcp_retransmit: TCP segments retransmitted, by cause, family and local listening port.
//
// How:     Raw tracepoints tcp_retransmit_skb and tcp_retransmit_synack, where the kernel counts TcpRetransSegs: the two
//          agree except for segments that could not be sent (TCPRetransFail), which this program leaves out.
//          syn              connect() again: the peer does not answer, or the path loses packets
//          syn_ack          a client started a handshake and did not complete it
//          tail_loss_probe  the last segment of a burst again, after two round trips: a precaution, harmless
//          retransmit       all others: after a timeout, or because later segments arrived
// Cost:    2 us a retransmitted segment, 60 ns a socket state change (6.18, VM).
// Blind to: retransmissions of MPTCP's data sequence mapping (the segments of subflows are seen), of QUIC, and of a NIC
//          that resends by itself. A tail loss probe with new data is no retransmission.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 4096
#endif

enum { SYN, RETRANSMIT, TAIL_LOSS_PROBE, SYN_ACK };

#define TIME_LOSS_PROBE 5 /* ICSK_TIME_LOSS_PROBE of net/inet_connection_sock.h */

struct resent {
	u16 port; /* the local port if a socket listens on it, else 0 */
	u8 type;
	u8 family;
};

BPF_PERCPU_HASH(retransmits, struct resent, u64, MAX_ENTRIES);

static inline u16 local_port(const struct sock *sk)
{
	return ntohs(PEEK(((const struct inet_sock *)sk)->inet_sport));
}

// The probe timer is pending until the probe is sent, and no segment is marked lost yet: recovery marks segments lost
// before it retransmits them.
static inline int is_loss_probe(const struct sock *sk)
{
	return PEEK(((const struct inet_connection_sock *)sk)->icsk_pending) == TIME_LOSS_PROBE &&
	       !PEEK(((const struct tcp_sock *)sk)->lost_out);
}

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	int old_state = ctx->args[1], new_state = ctx->args[2];

	if ((old_state == TCP_LISTEN || new_state == TCP_LISTEN) && PEEK(sk->sk_protocol) == IPPROTO_TCP)
		follow_listener(local_port(sk), old_state, new_state);
	return 0;
}

// TP_PROTO(const struct sock *sk, const struct sk_buff *skb), and since 6.15 int err
int on_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx->args[1];
	struct tcp_skb_cb segment;
	struct resent key = {};
	u64 zero = 0;
	u8 state;

#ifdef VARIANT_RESULT
	if ((int)ctx->args[2])
		return 0;
#endif
	bpf_probe_read_kernel(&segment, sizeof(segment), &skb->cb);
	state = PEEK(sk->__sk_common.skc_state);
	key.type = state == TCP_SYN_SENT ? SYN : is_loss_probe(sk) ? TAIL_LOSS_PROBE : RETRANSMIT;
	key.family = SOCK_FAMILY(sk);
	key.port = if_listening(local_port(sk));
	add(retransmits.lookup_or_try_init(&key, &zero), segment.tcp_gso_segs ?: 1, LOST(retransmits));
	return 0;
}

// TP_PROTO(const struct sock *sk, const struct request_sock *req): sk is the listener
int on_retransmit_synack(struct bpf_raw_tracepoint_args *ctx)
{
	const struct request_sock *request = (const struct request_sock *)ctx->args[1];
	struct resent key = {};
	u64 zero = 0;

	key.type = SYN_ACK;
	key.family = PEEK(request->__req_common.skc_family);
	key.port = if_listening(PEEK(request->__req_common.skc_num));
	add(retransmits.lookup_or_try_init(&key, &zero), 1, LOST(retransmits));
	return 0;
}
