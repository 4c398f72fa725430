// SPDX-License-Identifier: GPL-2.0
// runqlat: time that runnable tasks wait for a CPU, as one histogram of the host.
//
// How:     Raw tracepoints. The wait starts when a task is woken (sched_wakeup, sched_wakeup_new) or is preempted while
//          runnable (sched_switch), and ends when sched_switch puts the task on a CPU.
//          __state, state: the name of that member of struct task_struct since and before 5.14
// Cost:    210 ns a wake-up and switch together (6.18, VM); 100,000 switches a second are 2 % of a CPU.
// Blind to: which task waited: labels would double the cost; tasks that were already waiting when the program was attached;
//          in a virtual machine, time that the host takes while a task is on its CPU (see steal in /proc/stat).

#ifndef MAX_TASKS
#define MAX_TASKS 65536
#endif
#define SLOTS 28 /* microseconds: le 1 us ... 67 s, and +Inf */
#define RUNNING 0 /* TASK_RUNNING of linux/sched.h */

struct latency {
	u64 slots[SLOTS];
	u64 sum;
};

// By thread id: when it could run and did not yet; 0 = not waiting. Kept as long as the thread lives, because deleting and
// inserting costs twice as much as writing in place.
BPF_HASH(waiting_since, u32, u64, MAX_TASKS);
BPF_PERCPU_ARRAY(waits, struct latency, 1);

static inline void begin(u32 thread)
{
	u64 now = bpf_ktime_get_ns(), *since = waiting_since.lookup(&thread);

	if (since)
		*since = now;
	else if (waiting_since.update(&thread, &now))
		lost(LOST(waiting_since));
}

static inline int can_go_on(const struct task_struct *task)
{
#ifdef VARIANT___STATE
	return PEEK(task->__state) == RUNNING;
#else
	return PEEK(task->state) == RUNNING;
#endif
}

// The task is no more, and its number may be given anew.
int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	u32 thread = PEEK(((const struct task_struct *)ctx->args[0])->pid);

	waiting_since.delete(&thread);
	return 0;
}

int on_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	begin(PEEK(((const struct task_struct *)ctx->args[0])->pid));
	return 0;
}

// TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next), and since 5.18 the state of prev
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	const struct task_struct *prev = (const struct task_struct *)ctx->args[1];
	const struct task_struct *next = (const struct task_struct *)ctx->args[2];
	u32 thread = PEEK(prev->pid);
	struct latency *seen;
	u64 us, *since;
	int index = 0;

	if (thread && (ctx->args[0] || can_go_on(prev))) // thread 0 is each CPU's idle task
		begin(thread);
	thread = PEEK(next->pid);
	if (!thread)
		return 0;
	since = waiting_since.lookup(&thread);
	if (!since || !*since)
		return 0;
	us = whole_microseconds(bpf_ktime_get_ns() - *since);
	*since = 0;
	seen = waits.lookup(&index);
	if (seen)
		observe_alone(seen->slots, &seen->sum, exp2_slot(us), us); // the scheduler has interrupts off
	return 0;
}
