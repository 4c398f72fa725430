// SPDX-License-Identifier: GPL-2.0
// tcp_retransmit: retransmissions and tail loss probes, by the addresses of both ends and the port that matters.
//
// Addresses and ports are many: these are LRU maps, in which the oldest entries make room, and with them their counts.

enum { RETRANSMIT = 1, TAIL_LOSS_PROBE = 2 };

struct ipv4_key {
	u8 saddr[4];
	u8 daddr[4];
	u16 main_port; /* the lower one: mostly the server's */
	u16 type;
};

struct ipv6_key {
	u8 saddr[16];
	u8 daddr[16];
	u16 main_port;
	u16 type;
};

BPF_TABLE("lru_hash", struct ipv4_key, u64, tcp_retransmit_ipv4_packets_total, 8192);
BPF_TABLE("lru_hash", struct ipv6_key, u64, tcp_retransmit_ipv6_packets_total, 8192);

static inline u16 main_port(const struct sock *sk)
{
	u16 here = PEEK(sk->__sk_common.skc_num), there = ntohs(PEEK(sk->__sk_common.skc_dport));

	return here < there ? here : there;
}

static inline int count(const struct sock *sk, u16 type)
{
	u64 zero = 0;

	if (SOCK_FAMILY(sk) == AF_INET) {
		struct ipv4_key key = {};

		bpf_probe_read_kernel(key.saddr, sizeof(key.saddr), &sk->__sk_common.skc_rcv_saddr);
		bpf_probe_read_kernel(key.daddr, sizeof(key.daddr), &sk->__sk_common.skc_daddr);
		key.main_port = main_port(sk);
		key.type = type;
		add(tcp_retransmit_ipv4_packets_total.lookup_or_try_init(&key, &zero), 1,
		    LOST(tcp_retransmit_ipv4_packets_total));
	} else {
		struct ipv6_key key = {};

		bpf_probe_read_kernel(key.saddr, sizeof(key.saddr), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(key.daddr, sizeof(key.daddr), &sk->__sk_common.skc_v6_daddr);
		key.main_port = main_port(sk);
		key.type = type;
		add(tcp_retransmit_ipv6_packets_total.lookup_or_try_init(&key, &zero), 1,
		    LOST(tcp_retransmit_ipv6_packets_total));
	}
	return 0;
}

BPF_PROG(probe, struct sock *sk)
{
	return count(sk, TAIL_LOSS_PROBE);
}

BPF_PROG(retransmit, struct sock *sk)
{
	return count(sk, RETRANSMIT);
}
