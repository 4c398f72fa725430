// SPDX-License-Identifier: GPL-2.0
// file_operations: how long operations of a file system take, from their function's entry to its return. ext4dist,
//                  xfsdist and cephfs_dist attach it to the functions of theirs, and use of the operations what they have.
//
// Blind to: operations of a task that is inside another one already (the outer one is not timed), and returns that the
//          kernel misses when more calls are under way than it has instances for.

#define SUM_SLOT 28 /* one above the last bound, 2^27 us = 134 s */
#define ABOVE 29

enum { TIMED_READ, TIMED_WRITE, TIMED_OPEN, TIMED_SYNC, TIMED_GETATTR, TIMED_MKDIR, TIMED_UNLINK };

struct op_key {
	u32 op;
	u32 bucket;
};

BPF_HASH(entered_at, u64, u64, 10240); // task -> ns
BPF_HASH(latency, struct op_key, u64, 256);

int enter(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();

	if (entered_at.update(&task, &now))
		lost(LOST(entered_at));
	return 0;
}

static inline int left(u32 op)
{
	u64 task = bpf_get_current_pid_tgid(), zero = 0, us, *since = entered_at.lookup(&task);
	struct op_key key = {};

	if (!since)
		return 0;
	us = (bpf_ktime_get_ns() - *since) / 1000;
	entered_at.delete(&task);
	key.op = op;
	key.bucket = exp2_slot(us);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(latency.lookup_or_try_init(&key, &zero), 1, LOST(latency));
	key.bucket = SUM_SLOT;
	add(latency.lookup_or_try_init(&key, &zero), us, LOST(latency));
	return 0;
}

int read_done(struct pt_regs *ctx)
{
	return left(TIMED_READ);
}

int write_done(struct pt_regs *ctx)
{
	return left(TIMED_WRITE);
}

int open_done(struct pt_regs *ctx)
{
	return left(TIMED_OPEN);
}

int sync_done(struct pt_regs *ctx)
{
	return left(TIMED_SYNC);
}

int getattr_done(struct pt_regs *ctx)
{
	return left(TIMED_GETATTR);
}

int mkdir_done(struct pt_regs *ctx)
{
	return left(TIMED_MKDIR);
}

int unlink_done(struct pt_regs *ctx)
{
	return left(TIMED_UNLINK);
}
