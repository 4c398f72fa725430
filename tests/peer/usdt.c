// SPDX-License-Identifier: GPL-2.0
// usdt: imports of Python, by the module's name.

#define NAME_LENGTH 64

struct import_key {
	char module[NAME_LENGTH];
};

BPF_HASH(python_module_imports_total, struct import_key, u64, 4096);

int importing(struct pt_regs *ctx)
{
	struct import_key key = {};
	u64 zero = 0, name = 0;

	bpf_usdt_readarg(1, ctx, &name);
	bpf_probe_read_user_str(&key.module, sizeof(key.module), (const void *)name);
	add(python_module_imports_total.lookup_or_try_init(&key, &zero), 1, LOST(python_module_imports_total));
	return 0;
}
