// SPDX-License-Identifier: GPL-2.0
// tcp_rst: TCP resets sent and received, by sender, socket state and reason.
//
// How:     Sent resets are counted where the kernel counts TcpOutRsts, so the two agree. `active` resets come from
//          tcp_send_active_reset() (close with unread data, SO_LINGER 0, abort), `reply` resets from tcp_v4_send_reset()
//          and tcp_v6_send_reset(), which answer a segment that fits no connection. A received reset is one that a
//          socket accepted (tcp_reset()).
//          tracepoint  tcp:tcp_send_reset, if it has a `reason` (6.10): before, it does not fire for replies without a
//                      socket or in TIME_WAIT, which are most replies
//          fentry      the three functions above
//          kprobe      the same; before 6.7 a kprobe is skipped while another BPF program runs on its CPU
// Cost:    350 ns a reset, and 160 ns per socket state change, of which a connection has 3 to 6 (6.18, VM).
// Blind to: resets made by netfilter (`reject with tcp reset`), by a NIC or a middlebox, or through raw sockets; received
//          resets that no socket accepted, and those for connections in SYN_RECV, which have no socket yet.
// Too much: tcp_reset() also ends a closed connection when data arrives for it: received, in FIN_WAIT1 or FIN_WAIT2. Without
//          the tracepoint, a segment with a wrong TCP-MD5 signature is counted although the kernel sends nothing.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 4096
#endif

enum { SENT, RECEIVED };
enum { NO_KIND, ACTIVE, REPLY };

#define REASON_UNKNOWN 0xffffffff /* of no enumerator: received resets, and kernels before 6.10 */
#define TCP_HEADER_DPORT 2
#define TCP_HEADER_FLAGS 13
#define TCP_FLAG_BYTE_RST 0x04
#define ETHERTYPE_IPV6 0x86dd /* ETH_P_IPV6 of linux/if_ether.h */
#define ROUTE_LOCAL 2 /* RTN_LOCAL of linux/rtnetlink.h */
#define ROUTE6_LOCAL 0x80000000 /* RTF_LOCAL of linux/ipv6_route.h */
#define DST_NOREF 1UL /* SKB_DST_NOREF of linux/skbuff.h: the low bit of _skb_refdst is no part of the address */

struct reset {
	u32 reason; /* enum sk_rst_reason or REASON_UNKNOWN */
	u16 port;   /* the local one if a socket listens on it, else 0 */
	u8 direction;
	u8 kind;
	u8 state; /* of the socket when the reset was decided; 0 = no socket */
	u8 family;
	u16 unused;
};

BPF_HASH(resets, struct reset, u64, MAX_ENTRIES);

// The state that a socket had before CLOSE: tcp_close() changes the state first and sends the reset afterwards.
// An LRU map: most sockets close without a reset, and their entries are never read.
BPF_TABLE("lru_hash", u64, u8, left_state, 8192);

static inline u16 local_port(const struct sock *sk)
{
	return ntohs(PEEK(((const struct inet_sock *)sk)->inet_sport));
}

static inline void count(struct reset *key)
{
	u64 zero = 0;

	key->port = if_listening(key->port);
	add(resets.lookup_or_try_init(key, &zero), 1, LOST(resets));
}

// Records the states from which tcp_close() and tcp_disconnect() send a reset: those of tcp_need_reset().
static inline void follow_close(const struct sock *sk, int old_state, int new_state)
{
	u64 socket = (u64)sk;
	u8 state = old_state;

	if (new_state != TCP_CLOSE)
		return;
	if (old_state == TCP_ESTABLISHED || old_state == TCP_CLOSE_WAIT || old_state == TCP_FIN_WAIT1 ||
	    old_state == TCP_FIN_WAIT2 || old_state == TCP_SYN_RECV)
		left_state.update(&socket, &state);
}

static inline u8 state_before_close(const struct sock *sk, u8 state)
{
	u64 socket = (u64)sk;
	u8 *left;

	if (state != TCP_CLOSE)
		return state;
	left = left_state.lookup(&socket);
	if (left) {
		state = *left;
		left_state.delete(&socket);
	}
	return state;
}

static inline void count_active(const struct sock *sk, u32 reason)
{
	struct reset key = {};

	key.direction = SENT;
	key.kind = ACTIVE;
	key.reason = reason;
	key.state = state_before_close(sk, PEEK(sk->__sk_common.skc_state));
	key.family = SOCK_FAMILY(sk);
	key.port = local_port(sk);
	count(&key);
}

// sk may be NULL, a listener, a live socket or a struct inet_timewait_sock: only their common members are read.
static inline void count_reply(const struct sock *sk, const struct sk_buff *skb, u8 family, u32 reason)
{
	struct reset key = {};
	const unsigned char *header = PEEK(skb->head) + PEEK(skb->transport_header);
	u16 port = 0;

	bpf_probe_read_kernel(&port, sizeof(port), header + TCP_HEADER_DPORT);
	key.direction = SENT;
	key.kind = REPLY;
	key.reason = reason;
	key.state = sk ? PEEK(sk->__sk_common.skc_state) : 0;
	key.family = family;
	key.port = ntohs(port);
	count(&key);
}

static inline void count_received(const struct sock *sk)
{
	struct reset key = {};

	key.direction = RECEIVED;
	key.kind = NO_KIND;
	key.reason = REASON_UNKNOWN;
	key.state = PEEK(sk->__sk_common.skc_state);
	key.family = SOCK_FAMILY(sk);
	key.port = local_port(sk);
	count(&key);
}

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	int old_state = ctx->args[1], new_state = ctx->args[2];

	if (PEEK(sk->sk_protocol) != IPPROTO_TCP)
		return 0;
	follow_listener(local_port(sk), old_state, new_state);
	follow_close(sk, old_state, new_state);
	return 0;
}

int on_receive_reset(struct bpf_raw_tracepoint_args *ctx)
{
	count_received((const struct sock *)ctx->args[0]);
	return 0;
}

#ifdef VARIANT_TRACEPOINT

// TP_PROTO(const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason); an active reset has no skb
int on_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sock *sk = (const struct sock *)ctx->args[0];
	const struct sk_buff *skb = (const struct sk_buff *)ctx->args[1];

	if (skb)
		count_reply(sk, skb, PEEK(skb->protocol) == htons(ETHERTYPE_IPV6) ? AF_INET6 : AF_INET, ctx->args[2]);
	else if (sk)
		count_active(sk, ctx->args[2]);
	return 0;
}

#else

// The conditions of tcp_v4_send_reset() and tcp_v6_send_reset(): never a reset for a reset, and without a socket only if
// the segment was addressed to this host.
static inline int is_answered(const struct sock *sk, const struct sk_buff *skb, u8 family)
{
	const unsigned char *header = PEEK(skb->head) + PEEK(skb->transport_header);
	unsigned long dst = PEEK(skb->_skb_refdst) & ~DST_NOREF;
	u8 flags = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), header + TCP_HEADER_FLAGS);
	if (flags & TCP_FLAG_BYTE_RST)
		return 0;
	if (sk)
		return 1;
	if (family == AF_INET)
		return PEEK(((const struct rtable *)dst)->rt_type) == ROUTE_LOCAL;
	return (PEEK(((const struct rt6_info *)dst)->rt6i_flags) & ROUTE6_LOCAL) != 0;
}

static inline int decide_reply(const struct sock *sk, const struct sk_buff *skb, u8 family)
{
	if (is_answered(sk, skb, family))
		count_reply(sk, skb, family, REASON_UNKNOWN);
	return 0;
}

static inline int decide_active(const struct sock *sk)
{
	count_active(sk, REASON_UNKNOWN);
	return 0;
}

#endif

#ifdef VARIANT_FENTRY
BPF_PROG(on_v4_reply, const struct sock *sk, struct sk_buff *skb)
{
	return decide_reply(sk, skb, AF_INET);
}

BPF_PROG(on_v6_reply, const struct sock *sk, struct sk_buff *skb)
{
	return decide_reply(sk, skb, AF_INET6);
}

BPF_PROG(on_active, struct sock *sk)
{
	return decide_active(sk);
}
#endif

#ifdef VARIANT_KPROBE
int on_v4_reply(struct pt_regs *ctx, const struct sock *sk, struct sk_buff *skb)
{
	return decide_reply(sk, skb, AF_INET);
}

int on_v6_reply(struct pt_regs *ctx, const struct sock *sk, struct sk_buff *skb)
{
	return decide_reply(sk, skb, AF_INET6);
}

int on_active(struct pt_regs *ctx, struct sock *sk)
{
	return decide_active(sk);
}
#endif
