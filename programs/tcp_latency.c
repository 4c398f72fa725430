// SPDX-License-Identifier: GPL-2.0
// tcp_latency: response time and connect time of TCP peers, and the smoothed round trip time, as histograms.
//
// How:     response  from the last send on a connection to the next data that arrives on it: on a client the time of the
//                    network and the server, on a server the pause of its client
//          connect   from SYN_SENT to ESTABLISHED, on the connecting side
//          srtt      the kernel's own estimate (tcp_sock.srtt_us), sampled whenever data arrives
//          Arriving data: the raw tracepoint tcp_probe, in softirq context, so state is kept per socket, not per task.
//          A send: fentry tcp_sendmsg; else the raw tracepoint tcp_sendmsg_locked (6.16), which fires once per filled
//          buffer, so the time of a larger send starts at its last buffer; else kprobe tcp_sendmsg, which before 6.7 is
//          skipped while another BPF program runs on the CPU.
// Cost:    100 ns a send, 160 ns a segment with data, 60 ns one without, 170 ns a state change (tracepoint, 6.18, VM).
// Blind to: data that arrives outside ESTABLISHED, such as the response to a client that has shut down its sending half;
//          sends of kTLS and MPTCP sockets (the tracepoint variant sees kTLS), and before 6.5 sendfile() and splice().
//          Several requests in flight count as one: the time starts at the last.

#ifndef MAX_CONNECTIONS
#define MAX_CONNECTIONS 65536
#endif
#ifndef MAX_ENTRIES
#define MAX_ENTRIES 512 /* listening ports, and clients, times families */
#endif
#define SLOTS 28 /* microseconds: le 1 us ... 67 s, and +Inf */
#define TCP_FLAG_BYTE_FIN 0x01

struct endpoint {
	u16 family; /* AF_INET or AF_INET6 */
	u16 port;   /* the listening port of this side; 0 = this side is the client */
};

struct connection {
	u64 connecting_since; /* ns; 0 = not now */
	u64 sent_at;	      /* ns; 0 = nothing sent since data last arrived */
	struct endpoint endpoint;
	u32 unused;
};

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

// By address of struct sock, from its first event to tcp_destroy_sock.
BPF_HASH(connections, u64, struct connection, MAX_CONNECTIONS);

BPF_PERCPU_HASH(response, struct endpoint, struct latency, MAX_ENTRIES);
BPF_PERCPU_HASH(connect, struct endpoint, struct latency, MAX_ENTRIES);
BPF_PERCPU_HASH(srtt, struct endpoint, struct latency, MAX_ENTRIES);

static inline u16 local_port(const struct sock *sk)
{
	return ntohs(PEEK(((const struct inet_sock *)sk)->inet_sport));
}

static inline struct connection *connection_of(const struct sock *sk)
{
	struct connection *known, blank = {};
	u64 socket = (u64)sk;

	known = connections.lookup(&socket);
	if (known)
		return known;
	blank.endpoint.family = SOCK_FAMILY(sk);
	blank.endpoint.port = if_listening(local_port(sk));
	known = connections.lookup_or_try_init(&socket, &blank);
	if (!known)
		lost(LOST(connections));
	return known;
}

// Rounded up: a value above a bucket's bound stays above it.
static inline u64 microseconds(u64 ns)
{
	return whole_microseconds(ns + 999);
}

static inline void record(struct latency *seen, u64 us, int map)
{
	if (seen)
		observe(seen->slots, &seen->sum, exp2_slot(us), us);
	else
		lost(map);
}

static inline void observe_response(struct endpoint *endpoint, u64 us)
{
	struct latency *seen = response.lookup(endpoint);

	if (!seen) {
		struct latency zero = {};

		seen = response.lookup_or_try_init(endpoint, &zero);
	}
	record(seen, us, LOST(response));
}

static inline void observe_connect(struct endpoint *endpoint, u64 us)
{
	struct latency *seen = connect.lookup(endpoint);

	if (!seen) {
		struct latency zero = {};

		seen = connect.lookup_or_try_init(endpoint, &zero);
	}
	record(seen, us, LOST(connect));
}

static inline void observe_srtt(struct endpoint *endpoint, u64 us)
{
	struct latency *seen = srtt.lookup(endpoint);

	if (!seen) {
		struct latency zero = {};

		seen = srtt.lookup_or_try_init(endpoint, &zero);
	}
	record(seen, us, LOST(srtt));
}

static inline int sent(const struct sock *sk)
{
	struct connection *connection = connection_of(sk);

	if (connection)
		connection->sent_at = bpf_ktime_get_ns();
	return 0;
}

static inline void data_arrived(const struct sock *sk)
{
	struct connection *connection = connection_of(sk);
	struct endpoint endpoint;
	u32 srtt_us;
	u64 sent_at;

	if (!connection)
		return;
	endpoint = connection->endpoint;
	sent_at = connection->sent_at;
	if (sent_at) {
		connection->sent_at = 0;
		observe_response(&endpoint, microseconds(bpf_ktime_get_ns() - sent_at));
	}
	srtt_us = PEEK(((const struct tcp_sock *)sk)->srtt_us) >> 3; // the kernel stores it multiplied by 8
	if (srtt_us)
		observe_srtt(&endpoint, srtt_us);
}

// The kernel chooses the port after this, and the connecting side is always the client.
static inline void connecting(const struct sock *sk)
{
	struct connection *connection = connection_of(sk);

	if (!connection)
		return;
	connection->endpoint.family = SOCK_FAMILY(sk);
	connection->endpoint.port = 0;
	connection->connecting_since = bpf_ktime_get_ns();
}

static inline void connected(const struct sock *sk)
{
	u64 socket = (u64)sk, since;
	struct connection *connection = connections.lookup(&socket);
	struct endpoint endpoint;

	if (!connection || !connection->connecting_since)
		return;
	endpoint = connection->endpoint;
	since = connection->connecting_since;
	connection->connecting_since = 0;
	observe_connect(&endpoint, microseconds(bpf_ktime_get_ns() - since));
}

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	int old_state = ctx->args[1], new_state = ctx->args[2];

	if (PEEK(sk->sk_protocol) != IPPROTO_TCP)
		return 0;
	follow_listener(local_port(sk), old_state, new_state);
	if (new_state == TCP_SYN_SENT)
		connecting(sk);
	else if (new_state == TCP_ESTABLISHED)
		connected(sk);
	return 0;
}

// TP_PROTO(struct sock *sk, struct sk_buff *skb), before the segment is processed
int on_probe(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx->args[1];
	struct tcp_skb_cb segment;

	bpf_probe_read_kernel(&segment, sizeof(segment), &skb->cb);
	if (segment.end_seq - segment.seq > (segment.tcp_flags & TCP_FLAG_BYTE_FIN)) // a FIN takes a sequence number too
		data_arrived(sk);
	return 0;
}

int on_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	u64 socket = ctx->args[0];

	connections.delete(&socket);
	return 0;
}

#ifdef VARIANT_FENTRY
BPF_PROG(on_send, struct sock *sk)
{
	return sent(sk);
}
#endif

#ifdef VARIANT_TRACEPOINT
// TP_PROTO(const struct sock *sk, const struct msghdr *msg, const struct sk_buff *skb, int size_goal)
int on_send(struct bpf_raw_tracepoint_args *ctx)
{
	return sent((const struct sock *)ctx->args[0]);
}
#endif

#ifdef VARIANT_KPROBE
int on_send(struct pt_regs *ctx, struct sock *sk)
{
	return sent(sk);
}
#endif
