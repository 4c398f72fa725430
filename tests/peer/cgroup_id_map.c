// SPDX-License-Identifier: GPL-2.0
// cgroup_id_map: as cgroup, with the cgroups that match a pattern apart from the others.

BPF_HASH(cgroup_id_map, u64, u64, 10240); // filled from outside with the ids that match
BPF_HASH(cgroup_sched_migrations_total, u64, u64, 10240);
BPF_HASH(cgroup_sched_migrations_not_match_total, u64, u64, 10240);

BPF_PROG(migrated, struct task_struct *task)
{
	u64 zero = 0, cgroup = PEEK(PEEK(PEEK(PEEK(task->cgroups)->dfl_cgrp)->kn)->id);

	if (cgroup_id_map.lookup(&cgroup))
		add(cgroup_sched_migrations_total.lookup_or_try_init(&cgroup, &zero), 1,
		    LOST(cgroup_sched_migrations_total));
	else
		add(cgroup_sched_migrations_not_match_total.lookup_or_try_init(&cgroup, &zero), 1,
		    LOST(cgroup_sched_migrations_not_match_total));
	return 0;
}
