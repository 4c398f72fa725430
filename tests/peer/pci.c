// SPDX-License-Identifier: GPL-2.0
// pci: reads of PCI configuration space through sysfs or /proc/bus/pci, by device.

struct device_key {
	u16 vendor;
	u16 subclass; /* class in the high byte */
	u32 device;   /* vendor in the high half */
	u64 class;
};

BPF_HASH(pci_user_read_config_ops_total, struct device_key, u64, 1024);

int handle(struct pt_regs *ctx, struct pci_dev *dev)
{
	struct device_key key = {};
	u64 zero = 0;
	u32 class = PEEK(dev->class); // class, subclass and programming interface, a byte each

	key.vendor = PEEK(dev->vendor);
	key.device = (u32)key.vendor << 16 | PEEK(dev->device);
	key.subclass = class >> 8;
	key.class = class >> 16;
	add(pci_user_read_config_ops_total.lookup_or_try_init(&key, &zero), 1, LOST(pci_user_read_config_ops_total));
	return 0;
}
