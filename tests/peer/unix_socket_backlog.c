// SPDX-License-Identifier: GPL-2.0
// unix_socket_backlog: how many connections wait on a Unix socket when connect() finds it.
//
// How:     unix_find_other() returns the listener; its arguments are those of 6.16 and later.

#define SUM_SLOT 18 /* one above the last bound, 2^16 */
#define ABOVE 19
#define PATH_MAX_WATCHED 32
#define WATCHED "/var/run/docker/metrics.sock"
#define LAST_ERRNO 4095 /* MAX_ERRNO of linux/err.h */

struct backlog_key {
	u32 addr;
	u32 bucket;
};

BPF_HASH(unix_socket_backlog, struct backlog_key, u64, 64);

BPF_PROG(found, struct sockaddr_un *address, int length, int type, int flags, struct sock *other)
{
	char path[PATH_MAX_WATCHED] = {}, wanted[] = WATCHED;
	struct backlog_key key = {};
	u64 zero = 0, backlog;

	if ((u64)other >= (u64)-LAST_ERRNO) // nobody there
		return 0;
	bpf_probe_read_kernel_str(path, sizeof(path), &address->sun_path);
#pragma unroll
	for (int i = 0; i < sizeof(wanted); i++)
		if (path[i] != wanted[i])
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
