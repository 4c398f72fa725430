// SPDX-License-Identifier: GPL-2.0
// biolatency: how long block requests take, from the queue (or, without a scheduler, the driver) to their completion.

#define SUM_SLOT 28 /* one above the last bound, 2^27 us = 134 s */
#define ABOVE 29
#define OPERATION 0xff /* REQ_OP_MASK of linux/blk_types.h */
#define MINORBITS 20 /* linux/kdev_t.h */

#ifdef VARIANT_QUEUE_FIRST
#define REQUEST 1 /* place among the arguments of block_rq_insert and block_rq_issue */
#else
#define REQUEST 0
#endif

struct io_key {
	u32 dev;
	u32 op;
	u64 bucket;
};

BPF_HASH(queued_at, u64, u64, 10240); // request -> ns
BPF_HASH(bio_latency_seconds, struct io_key, u64, 8192);

int insert(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[REQUEST], now = bpf_ktime_get_ns();

	if (queued_at.update(&request, &now))
		lost(LOST(queued_at));
	return 0;
}

// A request that was inserted has its time already; the others go straight to the driver.
int issue(struct bpf_raw_tracepoint_args *ctx)
{
	u64 request = ctx->args[REQUEST], now = bpf_ktime_get_ns();

	if (!queued_at.lookup_or_try_init(&request, &now))
		lost(LOST(queued_at));
	return 0;
}

static inline u32 device(const struct request *rq)
{
#ifdef VARIANT_QUEUE_DISK
	const struct gendisk *disk = PEEK(PEEK(rq->q)->disk);
#else
	const struct gendisk *disk = PEEK(rq->rq_disk);
#endif

	return disk ? PEEK(disk->major) << MINORBITS | PEEK(disk->first_minor) : 0;
}

// TP_PROTO(struct request *rq, error, unsigned int nr_bytes): once for each part of it that is done
int done(struct bpf_raw_tracepoint_args *ctx)
{
	const struct request *rq = (const struct request *)ctx->args[0];
	u64 request = ctx->args[0], zero = 0, us, *since;
	struct io_key key = {};

	if ((u32)ctx->args[2] < PEEK(rq->__data_len))
		return 0;
	since = queued_at.lookup(&request);
	if (!since)
		return 0;
	us = (bpf_ktime_get_ns() - *since) / 1000;
	queued_at.delete(&request);
	key.dev = device(rq);
	key.op = PEEK(rq->cmd_flags) & OPERATION;
	key.bucket = exp2_slot(us);
	if (key.bucket >= SUM_SLOT)
		key.bucket = ABOVE;
	add(bio_latency_seconds.lookup_or_try_init(&key, &zero), 1, LOST(bio_latency_seconds));
	key.bucket = SUM_SLOT;
	add(bio_latency_seconds.lookup_or_try_init(&key, &zero), us, LOST(bio_latency_seconds));
	return 0;
}
