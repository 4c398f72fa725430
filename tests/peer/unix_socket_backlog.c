// SPDX-License-Identifier: GPL-2.0
// unix_socket_backlog: how many connections wait on a Unix socket when connect() finds it.
//
// How:     unix_find_other() returns the listener; its arguments are those of 6.16 and later.

#define SUM_SLOT 18 /* one above the last bound, 2^16 */
#define ABOVE 19
#define PATH_MAX_WATCHED 32
#define WATCHED "/var/run/docker/metrics.sock"
#define LAST_ERRNO 4095 /* MAX_ERRNO of linux/err.h */

union sun_path {
	char text[PATH_MAX_WATCHED];
	u64 words[PATH_MAX_WATCHED / 8];
};

struct backlog_key {
	u32 addr;
	u32 bucket;
};

BPF_HASH(unix_socket_backlog, struct backlog_key, u64, 64);

BPF_PROG(found, struct net *net, struct sockaddr_un *address, int length, int type, int flags, struct sock *other)
{
	union sun_path path = {}, wanted = {WATCHED};
	struct backlog_key key = {};
	u64 zero = 0, backlog;

	if ((u64)other >= (u64)-LAST_ERRNO) // nobody there
		return 0;
	bpf_probe_read_kernel_str(path.text, sizeof(path.text), &address->sun_path);
	if (path.words[0] != wanted.words[0] || path.words[1] != wanted.words[1] || path.words[2] != wanted.words[2] ||
	    path.words[3] != wanted.words[3])
		return 0;
	backlog = PEEK(other->sk_receive_queue.qlen);
	key.bucket = exp2zero_slot(backlog);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(unix_socket_backlog.lookup_or_try_init(&key, &zero), 1, LOST(unix_socket_backlog));
	key.bucket = SUM_SLOT;
	add(unix_socket_backlog.lookup_or_try_init(&key, &zero), backlog, LOST(unix_socket_backlog));
	return 0;
}
