"""A series ("6.1") -> the newest Debian kernel of it: image, BTF and the modules a test machine needs, in a cache.

    kernels.get("6.1", cache)  ->  Kernel(release="6.1.0-56-amd64", vmlinuz=..., btf=..., modules=(...))

The cache keeps what was taken out of the packages, one directory for each package version. Where a newer package cannot
be had, one of the cache is used and the text says so; where there is none, KernelError names the series.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.kernel import vmlinuz
from tests.matrix import apt, architecture
from tests.matrix.architecture import Architecture

# Where each series is kept up, and by which suite. -security has the newest of what a released suite ships.
SERIES: dict[str, tuple[str, ...]] = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("bookworm-backports", "bookworm-security"),
    "7.2": ("trixie-backports",),
}
# The same for arm64. `make matrix` alone has them, and everything.py on each kernel.
ARM64: dict[str, tuple[str, ...]] = {f"arm64-{version}": SERIES[version] for version in ("6.1", "6.12")}
WHOLE = os.environ.get("BPF_EXPORTER_MATRIX") == "whole"
TESTED = (*SERIES, *ARM64) if WHOLE else tuple(SERIES)

# Kernels where fentry and fexit load but cannot be attached: arm64 has direct calls of ftrace since 6.4.
NO_TRAMPOLINES = ("arm64-6.1",)

# To reach the machine's files (9p, overlay) and for the tests' networks. What a kernel has built in is no module.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "veth", "dummy", "tun", "sch_netem")
# For the programs that count block devices and file systems. Whoever runs them inserts these, so that no boot waits.
# A mount of ext4 asks for crc32c by name, and nobody here answers request_module().
MORE_MODULES = ("loop", "crc32c_generic", "ext4", "xfs", "ceph")


class KernelError(RuntimeError):
    """No kernel of this series could be had; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel ready to boot. `modules`, and then `more_modules`, in the order in which they must be inserted."""

    series: str
    package: str  # "6.1.192-2"
    release: str  # what uname -r says there
    vmlinuz: Path
    btf: Path
    modules: tuple[Path, ...]
    more_modules: tuple[Path, ...]
    architecture: Architecture
    note: str = ""  # why it is not the newest

    def __str__(self) -> str:
        return f"{self.release} (Debian {self.package}){f', {self.note}' if self.note else ''}"


def cache_directory() -> Path:
    """Where downloads are kept: BPF_EXPORTER_TEST_CACHE, else bpf-exporter-tests in XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("BPF_EXPORTER_TEST_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "bpf-exporter-tests"


def get(series: str, cache: Path) -> Kernel:
    """The newest kernel of `series` that the machine's mirror has, out of `cache` if it is there already.

    A suite that has left the mirror for Debian's archive is looked for where BPF_EXPORTER_TEST_ARCHIVE says: the base
    URI of that archive or of a copy. KernelError if there is no kernel.
    """
    directory = cache / "kernels"
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / "lock"):
        try:
            return _newest(series, open_apt(series, cache), directory)
        except (apt.AptError, ValueError, OSError, subprocess.SubprocessError) as error:
            kept = _cached(series, directory)
            if kept is None:
                raise KernelError(f"linux {series}: {error}") from error
            return _kernel(series, kept, f"from the cache because the newest could not be had: {error}")


def open_apt(series: str, cache: Path) -> apt.Apt:
    """An apt with the suites of one series, so that one that has gone keeps none of the others away."""
    suites, debian = _suites(series), architecture.of(series)[0].debian
    directory, archive = cache / "apt", os.environ.get("BPF_EXPORTER_TEST_ARCHIVE")
    try:
        return apt.private(directory / series, suites, apt.mirrors(), debian)
    except apt.AptError:
        if not archive:
            raise
        return apt.private(directory / f"{series}-archive", suites, {"Debian": archive}, debian)


def _suites(series: str) -> tuple[str, ...]:
    return (SERIES | ARM64)[series]


def _newest(series: str, source: apt.Apt, directory: Path) -> Kernel:
    """Download and unpack unless the cache has it. The newest package first; one that is listed but has left the mirror
    gives way to the one before it."""
    built_for, plain = architecture.of(series)
    start, end = f"linux-image-{re.escape(plain)}", f"-{built_for.debian}"
    names = source.packages(f"^{start}[.0-9].*{end}$")
    ordinary = [n for n in names if re.fullmatch(rf"{start}\.[0-9+.~a-z-]+{end}", n)]
    # Not the flavours cloud (no 9p) and rt, and no backport of a newer series to an older suite of another name.
    ordinary = [n for n in ordinary if "-cloud-" not in n and "-rt-" not in n and not n.endswith("-dbg")]
    candidates = sorted(source.versions(ordinary).items(), key=lambda c: _order(c[1]), reverse=True)
    if not candidates:
        raise apt.AptError(f"no linux-image-{plain}.*{end} in {', '.join(_suites(series))}")
    failed: apt.AptError | None = None
    for name, version in candidates[:3]:
        target = directory / f"{series}-{version.replace(':', '_')}-{_needs()}"
        if not (target / "kernel.json").exists():
            try:
                _fetch(source, name, version, target)
            except apt.AptError as error:
                failed = failed or error
                continue
            for old in _directories(series, directory):
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
        return _kernel(series, target, f"the newest could not be had: {failed}" if failed else "")
    raise failed or apt.AptError("no package could be downloaded")


def _fetch(source: apt.Apt, package: str, version: str, target: Path) -> None:
    """Fill `target` from the packages of one kernel: vmlinuz, btf, modules/ and kernel.json, which comes last."""
    release = package.removeprefix("linux-image-")
    # Since 6.19 trixie-backports splits a kernel over several packages.
    parts = source.packages(f"^linux-(binary|modules|base)-{re.escape(release)}$")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        root, new = scratch / "root", scratch / "new"
        for deb in source.download([package, *sorted(parts)], scratch / "debs"):
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True, capture_output=True, timeout=300)
        images = [*root.glob(f"boot/vmlinuz-{release}"), *root.glob(f"usr/lib/modules/{release}/vmlinuz")]
        trees = [*root.glob(f"lib/modules/{release}"), *root.glob(f"usr/lib/modules/{release}")]
        if not images or not trees:
            raise apt.AptError(f"{package}: no vmlinuz or no modules in {', '.join([package, *parts])}")
        (new / "modules").mkdir(parents=True)
        shutil.copy(images[0], new / "vmlinuz")
        (new / "btf").write_bytes(vmlinuz.read(images[0]).btf)
        first, more = _modules(root, trees[0], release)
        what = {
            "package": version,
            "release": release,
            "modules": [_copy_module(file, new / "modules") for file in first],
            "more_modules": [_copy_module(file, new / "modules") for file in more],
        }
        (new / "kernel.json").write_text(json.dumps(what, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)


def _modules(root: Path, tree: Path, release: str) -> tuple[list[Path], list[Path]]:
    """Files of MODULES and of MORE_MODULES with what they need, dependencies first, each once."""
    base = root / "usr" if tree.is_relative_to(root / "usr") else root
    subprocess.run(["depmod", "-b", base, release], check=True, capture_output=True, timeout=120)
    needs: dict[str, list[str]] = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
    by_name = {_module_name(file): file for file in needs}

    def with_dependencies(names: Sequence[str]) -> Iterator[str]:
        for name in names:
            if name in by_name:  # or it is built in
                # modules.dep lists direct and indirect dependencies, the deepest last.
                yield from (*reversed(needs[by_name[name]]), by_name[name])

    first = list(dict.fromkeys(with_dependencies(MODULES)))
    more = [file for file in dict.fromkeys(with_dependencies(MORE_MODULES)) if file not in first]
    return [tree / file for file in first], [tree / file for file in more]


def _module_name(file: str) -> str:
    return Path(file).name.split(".ko")[0]


def _copy_module(file: Path, into: Path) -> str:
    """The module's file name in `into`, unpacked: busybox's insmod knows no xz or zstd."""
    name = _module_name(file.name) + ".ko"
    data = file.read_bytes()
    if file.suffix == ".xz":
        data = lzma.decompress(data)
    elif file.suffix == ".zst":
        data = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True, timeout=60).stdout
    (into / name).write_bytes(data)
    return name


def _kernel(series: str, directory: Path, note: str) -> Kernel:
    what = json.loads((directory / "kernel.json").read_text())
    return Kernel(
        series=series,
        package=what["package"],
        release=what["release"],
        vmlinuz=directory / "vmlinuz",
        btf=directory / "btf",
        modules=tuple(directory / "modules" / name for name in what["modules"]),
        more_modules=tuple(directory / "modules" / name for name in what["more_modules"]),
        architecture=architecture.of(series)[0],
        note=note,
    )


def _directories(series: str, directory: Path) -> list[Path]:
    return [d for d in directory.glob(f"{series}-*") if (d / "kernel.json").exists()]


def _cached(series: str, directory: Path) -> Path | None:
    found = [d for d in _directories(series, directory) if d.name.endswith(f"-{_needs()}")]
    return max(found, key=lambda d: _order(d.name), default=None)


def _needs() -> str:
    """Names the lists of modules, so that a longer list is not answered from an old cache."""
    return hashlib.sha256(f"{MODULES}{MORE_MODULES}".encode()).hexdigest()[:8]


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", version))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time fills the cache."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
