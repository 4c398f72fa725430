// SPDX-License-Identifier: GPL-2.0
// map_kinds: one map of each kind that can be read, filled by the test through bpf(2) and by getppid(2) calls.
//
// How:     raw_tracepoint sys_enter, getppid alone, adds one in every map: exact in all of them, since one thread calls.
// Kernels: all; made for tests.

#ifdef __aarch64__
#define NR_GETPPID 173 /* include/uapi/asm-generic/unistd.h */
#else
#define NR_GETPPID 110 /* x86-64: arch/x86/entry/syscalls/syscall_64.tbl */
#endif
#define CALLS 800 /* the key that the calls are counted under; the test uses those below */

struct pair {
	u32 tag;
	u64 count;
};

BPF_ARRAY(of_array, u64, 900);
BPF_PERCPU_ARRAY(of_percpu_array, u64, 900);
BPF_TABLE("hash", u32, struct pair, of_hash, 4096);
BPF_TABLE("percpu_hash", u32, u64, of_percpu_hash, 4096);
BPF_TABLE("lru_hash", u32, u64, of_lru_hash, 16384);
BPF_TABLE("lru_percpu_hash", u32, u64, of_lru_percpu_hash, 16384);

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 key = CALLS;
	u64 zero = 0;
	struct pair none = {}, *pair;

	if (ctx->args[1] != NR_GETPPID)
		return 0;
	add(of_array.lookup(&key), 1, LOST(of_array));
	add(of_percpu_array.lookup(&key), 1, LOST(of_percpu_array));
	add(of_percpu_hash.lookup_or_try_init(&key, &zero), 1, LOST(of_percpu_hash));
	add(of_lru_hash.lookup_or_try_init(&key, &zero), 1, LOST(of_lru_hash));
	add(of_lru_percpu_hash.lookup_or_try_init(&key, &zero), 1, LOST(of_lru_percpu_hash));
	pair = of_hash.lookup_or_try_init(&key, &none);
	if (pair)
		lock_xadd(&pair->count, 1);
	return 0;
}
