// SPDX-License-Identifier: GPL-2.0
// icmp_ip: ICMP and ICMPv6 packets that came to this host, by source address.
//
// Addresses are the senders' to choose: a full map is counted, and max_series bounds the page.

#define IP_SOURCE 12 /* offset of the source address in the header */
#define IP6_SOURCE 8

struct source4 {
	u8 addr[4];
};

struct source6 {
	u8 addr[16];
};

BPF_HASH(icmp4_received_packets_total, struct source4, u64, 10240);
BPF_HASH(icmp6_received_packets_total, struct source6, u64, 10240);

int v4(struct pt_regs *ctx, struct sk_buff *skb)
{
	const unsigned char *header = PEEK(skb->head) + PEEK(skb->network_header);
	struct source4 key = {};
	u64 zero = 0;

	bpf_probe_read_kernel(&key, sizeof(key), header + IP_SOURCE);
	add(icmp4_received_packets_total.lookup_or_try_init(&key, &zero), 1, LOST(icmp4_received_packets_total));
	return 0;
}

int v6(struct pt_regs *ctx, struct sk_buff *skb)
{
	const unsigned char *header = PEEK(skb->head) + PEEK(skb->network_header);
	struct source6 key = {};
	u64 zero = 0;

	bpf_probe_read_kernel(&key, sizeof(key), header + IP6_SOURCE);
	add(icmp6_received_packets_total.lookup_or_try_init(&key, &zero), 1, LOST(icmp6_received_packets_total));
	return 0;
}
