// SPDX-License-Identifier: GPL-2.0
// kfree_skb: packets that the kernel dropped, by the reason it gives and the protocol.
//
// How:     Raw tracepoint kfree_skb: a packet is freed that did not arrive. From 5.17 on it says why; each kernel since knows
//          more reasons, and the labels are the names in the running kernel's enum skb_drop_reason.
// Cost:    140 ns a dropped packet (6.18, VM), nothing for those that arrive.
// Blind to: drops before there is a packet (NIC, ring full: `ethtool -S`), XDP_DROP, and those in drivers and queues that
//          free without this function.
// Too much: NOT_SPECIFIED is everything that nobody has given a reason yet, and much of that is no loss: the last look at
//          a packet that a raw socket has seen, netlink, a device that goes down. Alert on reasons, not on the sum.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 1024
#endif

struct drop {
	u32 reason;   /* enum skb_drop_reason; in the high half the subsystem that the reason belongs to */
	u32 protocol; /* ETH_P_... */
};

BPF_PERCPU_HASH(drops, struct drop, u64, MAX_ENTRIES);

// TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason), and since 6.11 struct sock *rx_sk
int on_drop(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sk_buff *skb = (const struct sk_buff *)ctx->args[0];
	struct drop key = {};
	u64 zero = 0;

	key.reason = ctx->args[2];
	key.protocol = ntohs(PEEK(skb->protocol));
	if (key.protocol != ETH_P_IP && key.protocol != ETH_P_IPV6 && key.protocol != ETH_P_ARP)
		key.protocol = 0; // one entry for all others, among them lengths of 802.3 frames
	add(drops.lookup_or_try_init(&key, &zero), 1, LOST(drops));
	return 0;
}
