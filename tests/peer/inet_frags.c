// SPDX-License-Identifier: GPL-2.0
// inet_frags: fragments that wait to be put together, by the interface they came from and the version of IP.

struct fragment_key {
	u32 ifindex;
	u32 ip_version; /* 4 or 6 */
};

BPF_HASH(inet_frags_total, struct fragment_key, u64, 1024);

int inserted(struct pt_regs *ctx, struct inet_frag_queue *queue, struct sk_buff *skb)
{
	const unsigned char *header = PEEK(skb->head) + PEEK(skb->network_header);
	const struct net_device *device = PEEK(skb->dev);
	struct fragment_key key = {};
	u64 zero = 0;
	u8 first = 0;

	bpf_probe_read_kernel(&first, sizeof(first), header);
	key.ip_version = first >> 4;
	key.ifindex = device ? PEEK(device->ifindex) : 0;
	add(inet_frags_total.lookup_or_try_init(&key, &zero), 1, LOST(inet_frags_total));
	return 0;
}
