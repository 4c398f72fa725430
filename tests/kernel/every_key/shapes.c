// shapes: one map of each shape that a metric reads, always with the same values.

struct op {
	u32 op;
	char name[20];
};

struct amounts {
	u64 total;
	u32 parts[2];
};

struct bins {
	u64 counts[6];
	u64 all;
};

BPF_HASH(by_op, struct op, struct amounts, ENTRIES);
BPF_ARRAY(slots, struct bins, 1);
BPF_HASH(by_slot, u32, u64, ENTRIES);
BPF_HASH(by_bound, u32, u64, ENTRIES);
BPF_PERCPU_ARRAY(per_cpu, u64, 1);
BPF_ARRAY(sparse, u64, 4);
BPF_HASH(listening, u16, u32, 65536);

static inline void write_op(u32 number)
{
	struct op op = {.op = number};
	struct amounts amounts = {.total = 1000 * (number + 1), .parts = {0, 10 * (number + 1)}};

	if (NAMED)
		__builtin_memcpy(op.name, "abcdefghijklmnopqr", 18);
	by_op.update(&op, &amounts);
}

int on_rename(void *ctx)
{
	struct bins bins = {.counts = {1, 2, 3, 4, 5, 6}, .all = 99};
	u32 first = 0, second = 1, third = 2, last = 28, low = 7, hundred = 100, thousand = 1000;
	u64 one = 1, two = 2, three = 3;

	write_op(0);
	write_op(1);
	write_op(2);
	slots.update(&first, &bins);
	by_slot.update(&first, &one);
	by_slot.update(&second, &two);
	by_slot.update(&last, &three);
	by_bound.update(&low, &one);
	by_bound.update(&hundred, &two);
	by_bound.update(&thousand, &three);
	per_cpu.update(&first, &two);
	sparse.update(&third, &three);
	return 0;
}
