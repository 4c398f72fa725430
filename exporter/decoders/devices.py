"""Decoders of devices: majorminor, pci_vendor, pci_device, pci_class, pci_subclass (include/linux/kdev_t.h, pci.h)."""

from __future__ import annotations

from exporter.decoders.declaration import DecodeFunction, Decoder, Input
from exporter.decoders.names import Names
from exporter.spec import DecodeStep


def _majorminor(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    """Decode the dev_t of a block device (MKDEV(disk->major, disk->first_minor)); 0 is "none"."""
    return lambda device: names.devices.name(device) if device else "none"


# Numbers of struct pci_dev: vendor; vendor << 16 | device; class >> 16; class >> 8. Without a name they are shown in
# hex, so that a host without the package pci.ids can distinguish its devices.


def _pci_vendor(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    return lambda number: names.pci.vendor(number) or _hex(number, 4)


def _pci_device(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    return lambda number: names.pci.device(number) or _hex(number, 8)


def _pci_class(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    return lambda number: names.pci.class_(number) or _hex(number, 2)


def _pci_subclass(_step: DecodeStep, _given: Input, names: Names) -> DecodeFunction:
    return lambda number: names.pci.subclass(number) or _hex(number, 4)


def _hex(number: int, digits: int) -> str | None:
    return f"0x{number:0{digits}x}" if 0 <= number < 16**digits else None


DECODERS = (
    Decoder("majorminor", takes=("int",), gives="text", bind=_majorminor, volatile=True),
    Decoder("pci_vendor", takes=("int",), gives="text", bind=_pci_vendor),
    Decoder("pci_device", takes=("int",), gives="text", bind=_pci_device),
    Decoder("pci_class", takes=("int",), gives="text", bind=_pci_class),
    Decoder("pci_subclass", takes=("int",), gives="text", bind=_pci_subclass),
)
