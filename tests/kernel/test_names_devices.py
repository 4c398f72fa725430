"""Devices and users of this host, against what else the host says of them."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

from exporter.decoders import Names, chain
from exporter.kernel.devices import MINORBITS
from exporter.program import Type
from exporter.spec import DecodeStep
from tests.waiting import in_child

U32 = Type("int", "u32", 4)


@pytest.fixture
def names(tmp_path: Path) -> Names:
    """Devices and users are asked of the host; kallsyms and cgroups are not needed."""
    return Names.open(proc=tmp_path)


def text(names: Names, number: int, name: str) -> str | None:
    return chain(U32, [DecodeStep(name=name)]).bind(names)(number.to_bytes(4, "little"))


def test_every_partition_is_called_as_proc_calls_it(names: Names) -> None:
    lines = Path("/proc/partitions").read_text().splitlines()[2:]
    assert lines
    for major, minor, _, name in map(str.split, lines):
        assert text(names, int(major) << MINORBITS | int(minor), "majorminor") == name


def test_every_user_of_the_passwd_file_is_named(names: Names) -> None:
    there = {int(line.split(":")[2]) for line in Path("/etc/passwd").read_text().splitlines()}
    assert there
    for uid in there:
        assert text(names, uid, "username") == pwd.getpwuid(uid).pw_name


def test_the_devices_of_this_machine_are_named_in_pci_ids(names: Names) -> None:
    devices = sorted(Path("/sys/bus/pci/devices").glob("*"))
    if not devices or not Path("/usr/share/misc/pci.ids").exists():
        return  # a machine without PCI, or without the list: then it is hex, which the unit tests show
    for device in devices:
        vendor, number = (int((device / part).read_text(), 16) for part in ("vendor", "class"))
        found = text(names, vendor, "pci_vendor")
        assert found
        line = re.search(rf"^{vendor:04x}  (.*)$", Path("/usr/share/misc/pci.ids").read_text(), re.MULTILINE)
        assert found == (line[1] if line else f"0x{vendor:04x}")
        assert text(names, number >> 16, "pci_class")
        assert text(names, number >> 8, "pci_subclass")


def test_names_are_found_without_rights(names: Names) -> None:
    """As the server asks: after it gave up root."""

    def unprivileged() -> tuple[str | None, str | None]:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return text(names, int(major) << MINORBITS | int(minor), "majorminor"), text(names, 0, "username")

    major, minor, _, name = Path("/proc/partitions").read_text().splitlines()[2].split()
    assert in_child(unprivileged) == (name, "root")
