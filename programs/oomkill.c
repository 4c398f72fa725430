// SPDX-License-Identifier: GPL-2.0
// oomkill: processes that the kernel kills when memory runs out, by unit and container of the victim.
//
// How:     tracepoint  mark_victim, which passes the victim from 6.9 on
//          fentry      __oom_kill_process(), where /proc/vmstat counts oom_kill
//          kprobe      the same
//          The cgroup (v2) is the victim's, not that of the task whose allocation failed.
// Cost:    nothing until a kill happens.
// Blind to: processes that user space kills first (systemd-oomd, earlyoom).
// Too much: the tracepoint also fires for a task that was already exiting.

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 4096
#endif

BPF_HASH(victims, u64, u64, MAX_ENTRIES); // cgroup id -> kills

static inline int count(const struct task_struct *victim)
{
	u64 zero = 0, cgroup = PEEK(PEEK(PEEK(PEEK(victim->cgroups)->dfl_cgrp)->kn)->id);

	add(victims.lookup_or_try_init(&cgroup, &zero), 1, LOST(victims));
	return 0;
}

#ifdef VARIANT_TRACEPOINT
// TP_PROTO(struct task_struct *task, uid_t uid)
int on_victim(struct bpf_raw_tracepoint_args *ctx)
{
	return count((const struct task_struct *)ctx->args[0]);
}
#endif

#ifdef VARIANT_FENTRY
BPF_PROG(on_kill, struct task_struct *victim)
{
	return count(victim);
}
#endif

#ifdef VARIANT_KPROBE
int on_kill(struct pt_regs *ctx, struct task_struct *victim)
{
	return count(victim);
}
#endif
