// SPDX-License-Identifier: GPL-2.0
// xdp: packets that come in on an interface, before the kernel looks at them.

#define UDP 17
#define TCP 6

struct packet_key {
	u16 eth_type;
	u16 proto;
	u16 port;
	u16 unused;
};

BPF_PERCPU_HASH(xdp_incoming_packets_total, struct packet_key, u64, 1024);

int packet(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct packet_key key = {};
	u64 zero = 0;
	void *next;
	u16 *ports;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	key.eth_type = ntohs(eth->h_proto);
	if (key.eth_type == ETH_P_IP) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end)
			return XDP_PASS;
		key.proto = ip->protocol;
		next = ip + 1;
	} else if (key.eth_type == ETH_P_IPV6) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > end)
			return XDP_PASS;
		key.proto = ip6->nexthdr;
		next = ip6 + 1;
	} else {
		return XDP_PASS;
	}
	ports = next;
	if ((key.proto == UDP || key.proto == TCP) && (void *)(ports + 2) <= end)
		key.port = ntohs(ports[1]);
	add(xdp_incoming_packets_total.lookup_or_try_init(&key, &zero), 1, LOST(xdp_incoming_packets_total));
	return XDP_PASS;
}
