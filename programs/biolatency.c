// SPDX-License-Identifier: GPL-2.0
// biolatency: latency of block requests, by device and operation, as histograms.
//
// How:     The raw tracepoint block_rq_complete, when the last part of a request completes. The kernel records when a
//          request was allocated (start_time_ns of struct request) for /proc/diskstats and iostat: counts and sums here
//          equal theirs, and add the distribution. One event per request, and no map of requests in flight.
//          queue_disk    the disk is a member of the queue (5.15)
//          request_disk  the disk is a member of the request (until 5.16)
// Cost:    400 ns a request (6.18, VM), on the CPU that handles the completion.
// Blind to: requests without a start time: devices whose queue/iostats is 0, and most requests of drivers and ioctls
//          (drv_in, drv_out); stacked devices that have no requests of their own (device mapper, md, zram: see the disks
//          below them); time before the request is allocated (throttling, a full tag set).

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 512
#endif
#define SLOTS 29	    /* microseconds: le 1 us ... 134 s, and +Inf */
#define OPERATION_MASK 0xff /* REQ_OP_MASK of linux/blk_types.h */
#define MINORBITS 20	    /* of linux/kdev_t.h */

struct kind {
	u32 dev; /* the kernel's dev_t */
	u32 op;	 /* enum req_op */
};

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

BPF_PERCPU_HASH(requests, struct kind, struct latency, MAX_ENTRIES);

static inline u32 device(const struct request *request)
{
#ifdef VARIANT_QUEUE_DISK
	const struct gendisk *disk = PEEK(PEEK(request->q)->disk);
#else
	const struct gendisk *disk = PEEK(request->rq_disk);
#endif

	return disk ? PEEK(disk->major) << MINORBITS | PEEK(disk->first_minor) : 0;
}

// TP_PROTO(struct request *rq, error, unsigned int nr_bytes), once per completed part, before the length is reduced
int on_complete(struct bpf_raw_tracepoint_args *ctx)
{
	const struct request *request = (const struct request *)ctx->args[0];
	u64 began = PEEK(request->start_time_ns), now;
	struct latency zero = {}, *seen;
	struct kind kind = {};
	u64 us;

	if (!began || (u32)ctx->args[2] < PEEK(request->__data_len))
		return 0;
	now = bpf_ktime_get_ns();
	us = now > began ? whole_microseconds(now - began) : 0;
	kind.dev = device(request);
	kind.op = PEEK(request->cmd_flags) & OPERATION_MASK;
	seen = requests.lookup_or_try_init(&kind, &zero);
	if (!seen)
		return lost(LOST(requests));
	observe(seen->slots, &seen->sum, exp2_slot(us), us);
	return 0;
}
