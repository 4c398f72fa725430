"""The running kernel: release, functions, modules, tracepoints and their fields, from /proc, /sys and tracefs
(Documentation/trace/events.rst, Documentation/trace/ftrace.rst)."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exporter.kernel.near import near

_FORMAT_FIELD = re.compile(r"\bfield:(?P<declaration>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel behind these file systems. Each call reads again, because modules are loaded and removed."""

    proc: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    modules: Path = Path("/lib/modules")
    release: str = field(default_factory=platform.release)
    machine: str = field(default_factory=platform.machine)  # as uname -m: x86_64, aarch64

    @property
    def version(self) -> tuple[int, ...]:
        return version(self.release)

    @property
    def btf(self) -> Path:
        return self.sysfs / "kernel/btf/vmlinux"

    @property
    def headers(self) -> Path | None:
        """Return the installed kernel headers that bcc compiles with without BTF; None if there are none."""
        modules = self.modules / self.release
        tree = modules / "source" if (modules / "source").is_dir() else modules / "build"
        return tree if (tree / "include/linux/kconfig.h").exists() else None

    @property
    def tracefs(self) -> Path | None:
        """Return the mount point of tracefs; None if it is not at a usual path, or hidden from this process."""
        for path in (self.sysfs / "kernel/tracing", self.sysfs / "kernel/debug/tracing"):
            if os.path.isdir(path / "events"):  # Path.is_dir() raises EACCES of a directory above
                return path
        return None

    def functions(self) -> Iterator[tuple[str, str]]:
        """Yield (name, module or "") of every function in /proc/kallsyms, whose names every user can read."""
        for _, name, place in self.function_addresses():
            yield name, place

    def function_addresses(self) -> Iterator[tuple[int, str, str]]:
        """Yield (address, name, module or "") of every function. Addresses are 0 without CAP_SYSLOG, and with
        kernel.kptr_restrict=2."""
        with (self.proc / "kallsyms").open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                parts = line.split()
                if len(parts) >= 3 and parts[1] in "tTwW":
                    yield int(parts[0], 16), parts[2], parts[3].strip("[]") if len(parts) > 3 else ""

    def near_functions(self, name: str) -> list[str]:
        """Return up to three functions whose names look like this one, among those that begin with the same two letters
        or contain it: there are 120,000 functions."""
        return near(name, {found for found, _ in self.functions() if found[:2] == name[:2] or name in found})

    def has_module(self, name: str) -> bool:
        """Return True if a module (its name with _ for -) is loaded or built in."""
        if (self.sysfs / "module" / name).is_dir():  # loaded, or built in with parameters or a version
            return True
        try:
            built_in = (self.modules / self.release / "modules.builtin").read_text().split()
        except OSError:
            built_in = []
        if any(Path(path).stem.replace("-", "_") == name for path in built_in):
            return True
        # Without /lib/modules: a file system is registered, other modules have functions that begin with their name.
        try:
            registered = (self.proc / "filesystems").read_text().split()
        except OSError:
            registered = []
        return name in registered or self._has_functions_of(name)

    def _has_functions_of(self, name: str) -> bool:
        starts = (f"{name}_init", f"init_{name}", f"{name}_module_init", f"{name}_exit")
        return any(found in starts and not module for found, module in self.functions())

    def modules_with_type(self, name: str) -> list[str]:
        """Return the loaded modules whose BTF contains that name, sorted. Reads the BTF of all, some megabytes."""
        word = b"\0" + name.encode() + b"\0"
        found = []
        for path in sorted(self.btf.parent.glob("*")):
            try:
                if path != self.btf and word in path.read_bytes():
                    found.append(path.name)
            except OSError:  # the module is removed meanwhile
                continue
        return found

    def traceable_functions(self) -> frozenset[str] | None:
        """Return the names of the functions that ftrace can trace; None without tracefs."""
        return self._names(self.tracefs / "available_filter_functions" if self.tracefs else None)

    def banned_functions(self) -> frozenset[str]:
        """Return the names of the functions that must not have a kprobe; empty without debugfs."""
        path = self.sysfs / "kernel/debug/kprobes/blacklist"  # "0xffff-0xffff\tname"
        return self._names(path, column=1) or frozenset()

    def _names(self, path: Path | None, column: int = 0) -> frozenset[str] | None:
        try:
            lines = path.read_text(encoding="ascii", errors="replace").splitlines() if path else None
        except OSError:
            return None
        return None if lines is None else frozenset(p[column] for line in lines if len(p := line.split()) > column)

    def tracepoints(self) -> list[str]:
        """Return CATEGORY:EVENT of every event in tracefs; [] where it cannot be read."""
        try:
            return (self.tracefs / "available_events").read_text(encoding="ascii").split() if self.tracefs else []
        except OSError:
            return []

    def tracepoint_id(self, category: str, event: str) -> int | None:
        """Return the event's id for perf_event_open(2); None if there is no such event. OSError without tracefs."""
        try:
            return int((self._event(category, event) / "id").read_text())
        except FileNotFoundError:
            return None

    def tracepoint_fields(self, category: str, event: str) -> dict[str, tuple[int, int]] | None:
        """Return field -> (offset, size) in bytes from the event's `format`; None if there is no such event."""
        try:
            text = (self._event(category, event) / "format").read_text()
        except FileNotFoundError:
            return None
        return parse_format(text)

    def near_tracepoints(self, name: str) -> list[str]:
        """Return up to three CATEGORY:EVENT that look like this one; for an EVENT alone, events."""
        lines = self.tracepoints()
        return near(name, lines if ":" in name else {line.partition(":")[2] for line in lines})

    def _event(self, category: str, event: str) -> Path:
        if self.tracefs is None:
            raise PermissionError(1, "tracefs is not mounted, or hidden (mount -t tracefs tracefs /sys/kernel/tracing)")
        return self.tracefs / "events" / category / event


def version(release: str) -> tuple[int, ...]:
    """Return the numbers at the start of a release: "6.1.0-56-amd64" is (6, 1, 0). ValueError if there are none."""
    match = re.match(r"\d+(\.\d+)*", release)
    if match is None:
        raise ValueError(f"kernel release {release!r} does not start with a version")
    return tuple(int(part) for part in match.group().split("."))


def parse_format(text: str) -> dict[str, tuple[int, int]]:
    """Return field -> (offset, size) of a tracepoint's `format` file. "__data_loc char[] name" and "__u8 saddr[28]" are
    the fields `name` and `saddr`."""
    fields: dict[str, tuple[int, int]] = {}
    for match in _FORMAT_FIELD.finditer(text):
        declaration = re.sub(r"\[[^\]]*\]", " ", match["declaration"])
        fields[declaration.replace("*", " ").split()[-1]] = (int(match["offset"]), int(match["size"]))
    return fields
