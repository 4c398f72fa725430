/* SPDX-License-Identifier: GPL-2.0 */
/* exporter.h: counters and histograms that report every lost update.
 *
 * The compiler step puts this text before every program; no program includes it. bcc rewrites map methods (m.lookup(),
 * m.lookup_or_try_init()) only in function bodies, never inside a macro. The program therefore calls them itself, and the
 * functions here take the returned pointer, which is NULL if the map is full:
 *
 *	struct sends_key { u16 family; u64 cgroup_id; };
 *	struct sends { u64 calls; u64 sum; u64 slots[28]; };
 *	BPF_HASH(sends, struct sends_key, struct sends, 1024);
 *
 *	struct sends_key key = {};
 *	struct sends zero = {}, *s = sends.lookup_or_try_init(&key, &zero);
 *	if (!s)
 *		return lost(LOST(sends));
 *	lock_xadd(&s->calls, 1);
 *	observe(s->slots, &s->sum, exp2_slot(size), size);
 *
 * LOST(map) names the map whose insert failed. The compiler step finds it in the text and declares lost_MAP and the hidden
 * map below; the exporter shows the count as bpf_exporter_map_insert_failures_total{map="MAP"}. */

#ifdef LOST_UPDATES /* the program uses LOST(): "enum { lost_a, lost_b, lost_count };" precedes this text */
BPF_PERCPU_ARRAY(lost_updates, u64, lost_count);
#define LOST(map) (lost_##map + 0 * sizeof((map).max_entries)) /* adds 0: an error if there is no such map */
#endif

/* Counts one update lost to a full map. Returns 0, so that a program can `return lost(...)`. */
static inline __attribute__((always_inline)) int lost(int map)
{
#ifdef LOST_UPDATES
	u64 *count = lost_updates.lookup(&map);

	if (count)
		lock_xadd(count, 1);
#endif
	return 0;
}

#ifdef DRAINED_MAPS /* the program uses DRAINED_HASH(): "enum { drained_a, drained_count };" precedes this text */
/* A small map that carries any number of keys: `maps: {sends: {drain: true}}`. It is a pair. The exporter makes the other
 * map active, waits until no program still uses the previous one, adds its entries to the totals and empties it:
 *
 *	DRAINED_HASH(sends, struct sends_key, u64, 10240);
 *
 *	add(ODD(sends) ? sends_odd.lookup_or_try_init(&key, &zero) : sends.lookup_or_try_init(&key, &zero), 1, LOST(sends));
 *
 * Call ODD() once per event, and keep no pointer into the pair after the event. */
BPF_ARRAY(drain_epochs, u32, drained_count);
#define DRAINED_HASH(map, key, value, size) BPF_HASH(map, key, value, size); BPF_HASH(map##_odd, key, value, size)
#define DRAINED_PERCPU_HASH(map, key, value, size)                                                                     \
	BPF_PERCPU_HASH(map, key, value, size);                                                                        \
	BPF_PERCPU_HASH(map##_odd, key, value, size)
#define ODD(map) odd_epoch(drained_##map)

static inline __attribute__((always_inline)) int odd_epoch(int map)
{
	u32 *epoch = drain_epochs.lookup(&map);

	return epoch && *(volatile u32 *)epoch & 1;
}
#endif

/* Adds n atomically to the counter that lookup_or_try_init() returned; counts a lost update if that is NULL. */
static inline __attribute__((always_inline)) void add(u64 *counter, u64 n, int map)
{
	if (counter)
		lock_xadd(counter, n);
	else
		lost(map);
}

/* Smallest i with value <= 2^i: 0 for 0 and 1, 1 for 2, 2 for 3 and 4, ... 64 above 2^63. `buckets: {type: exp2}` */
static inline __attribute__((always_inline)) u32 exp2_slot(u64 value)
{
	u64 rest = value - 1; /* 2^i belongs to slot i, so the bits of value - 1 are counted */
	u32 slot = 0;

	if (value < 2)
		return 0;
	if (rest >> 32) {
		slot += 32;
		rest >>= 32;
	}
	if (rest >> 16) {
		slot += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		slot += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		slot += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		slot += 2;
		rest >>= 2;
	}
	if (rest >> 1) {
		slot += 1;
		rest >>= 1;
	}
	return slot + rest;
}

/* Slot 0 is exactly 0, slot i is value <= 2^(i-1). `buckets: {type: exp2zero}` */
static inline __attribute__((always_inline)) u32 exp2zero_slot(u64 value)
{
	return value ? exp2_slot(value) + 1 : 0;
}

/* Smallest i with value <= i * width; width is not 0. `buckets: {type: linear, width: ...}` */
static inline __attribute__((always_inline)) u64 linear_slot(u64 value, u64 width)
{
	return value / width + (value % width != 0);
}

/* Records one observation in `u64 slots[N]; u64 sum;` of a value. A higher slot counts in the last one, which is +Inf. */
#define observe(slots, sum, slot, value) observe_in(slots, sizeof(slots) / sizeof((slots)[0]), sum, slot, value)
static inline __attribute__((always_inline)) void observe_in(u64 *slots, u32 count, u64 *sum, u64 slot, u64 value)
{
	if (slot >= count)
		slot = count - 1;
	lock_xadd(&slots[slot], 1);
	lock_xadd(sum, value);
}

/* The same with plain additions, which save the 10 ns of two locked ones. Only for an entry of a per-CPU map that nothing
 * else on that CPU can write meanwhile. A per-CPU map alone is not enough: an interrupt can run a program inside that of a
 * task, and a task can be preempted inside one. State in the program what prevents both. */
#define observe_alone(slots, sum, slot, value)                                                                         \
	observe_alone_in(slots, sizeof(slots) / sizeof((slots)[0]), sum, slot, value)
static inline __attribute__((always_inline)) void observe_alone_in(u64 *slots, u32 count, u64 *sum, u64 slot, u64 value)
{
	if (slot >= count)
		slot = count - 1;
	slots[slot] += 1;
	*sum += value;
}

/* ns / 1000, without a division below 34 s: 274877907 is 2^35 / 125 rounded up, which is exact for 32 bits. */
static inline __attribute__((always_inline)) u64 whole_microseconds(u64 ns)
{
	u64 eighths = ns >> 3;

	return eighths >> 32 ? ns / 1000 : eighths * 274877907 >> 35;
}

/* Reads a field of a kernel struct with bpf_probe_read_kernel(): PEEK(sk->__sk_common.skc_family). Each pointer on the path
 * needs its own PEEK. Not for bit-fields. */
#define PEEK(field)                                                                                                    \
	({                                                                                                             \
		union {                                                                                                \
			__typeof__(field) value;                                                                       \
			char raw[sizeof(field)];                                                                       \
		} peeked;                                                                                              \
		bpf_probe_read_kernel(peeked.raw, sizeof(peeked.raw), (const void *)&(field));                         \
		peeked.value;                                                                                          \
	})

/* AF_INET or AF_INET6 of a socket's packets: an IPv6 socket with an IPv4 peer (::ffff:a.b.c.d) is AF_INET.
 * A macro, so that only a program that uses it needs struct sock. */
#define SOCK_FAMILY(sk)                                                                                                \
	({                                                                                                             \
		u16 sock_family = PEEK((sk)->__sk_common.skc_family);                                                  \
		if (sock_family == AF_INET6) {                                                                         \
			struct in6_addr peer = PEEK((sk)->__sk_common.skc_v6_daddr);                                   \
			if (!peer.in6_u.u6_addr32[0] && !peer.in6_u.u6_addr32[1] &&                                    \
			    peer.in6_u.u6_addr32[2] == htonl(0xffff))                                                  \
				sock_family = AF_INET;                                                                 \
		}                                                                                                      \
		sock_family;                                                                                           \
	})

#ifdef LISTENING_PORTS
/* Number of sockets that listen on each port, in all network namespaces, for a program with this YAML:
 *
 *	defines: {LISTENING_PORTS: true}
 *	maps: {listening: {seed: listening_ports}}     the sockets that listen before the program is attached
 *	attach: inet_sock_set_state, with a function that calls follow_listener()
 *
 * The map has an entry for every port: it is never full. */
BPF_HASH(listening, u16, u32, 65536);

/* Returns the port if a socket listens on it, else 0: `decode: [port_class]` */
static inline u16 if_listening(u16 port)
{
	u32 *listeners = listening.lookup(&port);

	return listeners && (int)*listeners > 0 ? port : 0;
}

/* Handles a state change of a socket. The child of a listener starts in LISTEN too and changes to SYN_RECV: it is not
 * counted. Port 0 is listen() without bind(): the kernel chooses the port later, without an event. */
static inline void follow_listener(u16 port, int old_state, int new_state)
{
	u32 zero = 0, *listeners;

	if (!port)
		return;
	if (new_state == TCP_LISTEN) {
		listeners = listening.lookup_or_try_init(&port, &zero);
		if (listeners)
			lock_xadd(listeners, 1);
	} else if (old_state == TCP_LISTEN && new_state == TCP_CLOSE) {
		listeners = listening.lookup(&port);
		if (listeners && (int)*listeners > 0)
			lock_xadd(listeners, -1);
	}
}
#endif
