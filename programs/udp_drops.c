// SPDX-License-Identifier: GPL-2.0
// udp_drops: UDP datagrams dropped at a socket whose receive buffer or UDP memory was full, by port.
//
// How:     Where the kernel counts UdpRcvbufErrors (`receive_buffer`: SO_RCVBUF of the socket is full, because its process
//          reads too slowly) and UdpMemErrors (`memory`: net.ipv4.udp_mem is used up; the kernel's counter exists from 5.14).
//          tracepoint  udp_fail_queue_rcv_skb, which IPv6 hits since 6.6
//          fexit       __udp_enqueue_schedule_skb() with a negative result; every datagram calls it
// Cost:    tracepoint: 270 ns a dropped datagram (6.18, VM), nothing for those that arrive. fexit: one test for each.
// Blind to: datagrams dropped before their socket is found (firewall, no such port, wrong checksum: see kfree_skb), failed
//          copies for multicast, and sockets of in-kernel tunnels.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 4096
#endif

enum { RECEIVE_BUFFER, MEMORY };

struct drop {
	u16 port; /* of the socket */
	u8 family;
	u8 reason;
};

BPF_PERCPU_HASH(drops, struct drop, u64, MAX_ENTRIES);

static inline int count(const struct sock *sk, int error)
{
	struct drop key = {};
	u64 zero = 0;

	key.port = PEEK(sk->__sk_common.skc_num);
	key.family = PEEK(sk->__sk_common.skc_family);
	key.reason = error == -ENOMEM ? RECEIVE_BUFFER : MEMORY;
	add(drops.lookup_or_try_init(&key, &zero), 1, LOST(drops));
	return 0;
}

#ifdef VARIANT_TRACEPOINT
// TP_PROTO(int rc, struct sock *sk), and since 6.10 struct sk_buff *skb
int on_fail(struct bpf_raw_tracepoint_args *ctx)
{
	return count((const struct sock *)ctx->args[1], ctx->args[0]);
}
#endif

#ifdef VARIANT_FEXIT
BPF_PROG(on_enqueue, struct sock *sk, struct sk_buff *skb, int result)
{
	return result < 0 ? count(sk, result) : 0;
}
#endif
