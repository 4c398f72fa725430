// SPDX-License-Identifier: GPL-2.0
// cgroup: tasks moved from one CPU to another, by the cgroup (v2) of the task that moves, whoever moves it.

BPF_HASH(cgroup_sched_migrations_total, u64, u64, 10240);

BPF_PROG(migrated, struct task_struct *task)
{
	u64 zero = 0, cgroup = PEEK(PEEK(PEEK(PEEK(task->cgroups)->dfl_cgrp)->kn)->id);

	add(cgroup_sched_migrations_total.lookup_or_try_init(&cgroup, &zero), 1, LOST(cgroup_sched_migrations_total));
	return 0;
}
