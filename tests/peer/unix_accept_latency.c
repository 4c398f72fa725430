// SPDX-License-Identifier: GPL-2.0
// unix_accept_latency: how long connections to some Unix sockets wait for accept().
//
// How:     security_unix_stream_connect() has the socket that accept() will hand out as `newsk`. Which paths are timed is
//          written here and in the labels.

#define SUM_SLOT 11 /* one above the last bound, 2^10 ms = 1 s */
#define ABOVE 12
#define PATH_MAX_TIMED 32 /* all of the longest path below */

struct accept_key {
	u32 addr;
	u32 bucket;
};

struct waiting {
	u64 since; /* ns */
	u64 addr;
};

BPF_TABLE("lru_hash", u64, struct waiting, waiting, 10240); // the socket to be accepted
BPF_HASH(unix_accept_latency_seconds, struct accept_key, u64, 256);

// Paths are compared in words: 32 comparisons of a byte each make the verifier follow too many ways.
union sun_path {
	char text[PATH_MAX_TIMED];
	u64 words[PATH_MAX_TIMED / 8];
};

#define IS(path, wanted)                                                                                               \
	({                                                                                                             \
		union sun_path timed = {wanted};                                                                           \
		(path).words[0] == timed.words[0] && (path).words[1] == timed.words[1] &&                              \
			(path).words[2] == timed.words[2] && (path).words[3] == timed.words[3];                        \
	})

BPF_PROG(connecting, struct sock *sock, struct sock *other, struct sock *newsk)
{
	const struct unix_address *address = PEEK(((struct unix_sock *)other)->addr);
	union sun_path path = {};
	struct waiting entry = {};
	u64 socket = (u64)newsk;

	bpf_probe_read_kernel_str(path.text, sizeof(path.text), &address->name->sun_path);
	if (IS(path, "/run/dbus/system_bus_socket"))
		entry.addr = 0;
	else if (IS(path, "/run/systemd/journal/stdout"))
		entry.addr = 1;
	else if (IS(path, "/var/run/mysqld/mysqld.sock"))
		entry.addr = 2;
	else
		return 0;
	entry.since = bpf_ktime_get_ns();
	waiting.update(&socket, &entry);
	return 0;
}

BPF_PROG(accepted, struct socket *sock, struct socket *newsock)
{
	u64 socket = (u64)PEEK(newsock->sk), zero = 0, ms;
	struct waiting *entry = waiting.lookup(&socket);
	struct accept_key key = {};

	if (!entry) // failed, or a path that nobody asked for
		return 0;
	ms = (bpf_ktime_get_ns() - entry->since) / 1000000;
	key.addr = entry->addr;
	waiting.delete(&socket);
	key.bucket = exp2_slot(ms);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(unix_accept_latency_seconds.lookup_or_try_init(&key, &zero), 1, LOST(unix_accept_latency_seconds));
	key.bucket = SUM_SLOT;
	add(unix_accept_latency_seconds.lookup_or_try_init(&key, &zero), ms, LOST(unix_accept_latency_seconds));
	return 0;
}
