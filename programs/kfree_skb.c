// SPDX-License-Identifier: GPL-2.0
// kfree_skb: packets that the kernel drops, by drop reason and protocol.
//
// How:     The raw tracepoint kfree_skb fires when the kernel frees a packet that did not arrive. From 5.17 on it passes the
//          reason; each later kernel knows more reasons. Labels are the names of the running kernel's enum skb_drop_reason.
// Cost:    140 ns a dropped packet (6.18, VM), nothing for those that arrive.
// Blind to: drops before a packet exists (NIC, full ring: `ethtool -S`), XDP_DROP, and drivers and queues that free
//          packets by another function.
// Too much: NOT_SPECIFIED covers every call without a reason, and many of those lose nothing: the copy for a raw socket,
//          netlink, a device that goes down. Alert on single reasons, not on the sum.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 1024
#endif

struct drop {
	u32 reason;   /* enum skb_drop_reason; the high half is the subsystem of the reason */
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
