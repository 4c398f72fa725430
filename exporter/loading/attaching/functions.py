"""Targets that are kernel functions: FUNC, MODULE:FUNC, sys_NAME and globs -> names as this kernel has them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable

from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import AttachPoint
from exporter.loading.refusal import RefusedError
from exporter.program import Reason

# A system call's function is named by CONFIG_ARCH_HAS_SYSCALL_WRAPPER (4.17 x86, 4.19 arm64).
_SYSCALL_PREFIX = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}
# Entries that the kernel puts in front of each function, and copies for control flow integrity: nobody calls them.
_NO_FUNCTION = ("__pfx_", "__cfi_", "__probestub_", "__bpf_trace_", "__traceiter_")


def split(kernel: Kernel, target: str) -> tuple[str, str]:
    """Return (module or "", name) of a target, with sys_NAME as the function that this architecture enters."""
    module, _, function = target.rpartition(":")
    if function.startswith("sys_"):
        function = _SYSCALL_PREFIX.get(kernel.machine, "sys_") + function.removeprefix("sys_")
    return module, function


def find(kernel: Kernel, point: AttachPoint) -> tuple[str, str]:
    """Return (module or "", name) of a function that is there; the module is "" where the function is built in although
    the target names a module. RefusedError where it is in neither."""
    module, function = split(kernel, point.target)
    if not module:
        return "", function
    modules = {owner for name, owner in kernel.functions() if name == function}
    if module in modules:
        return module, function
    if "" in modules:
        return "", function
    raise missing(kernel, point)


def missing(kernel: Kernel, point: AttachPoint) -> RefusedError:
    """Return the refusal of a function that is not there, with near names as its hint."""
    module, function = split(kernel, point.target)
    where = f" in module {module}, and none built in" if module else ""
    names = kernel.near_functions(function)
    hint = f"near: {', '.join(names)}; " if names else ""
    return RefusedError(
        Reason.MISSING, f"{point.step}: no such function{where} ({hint}it may be inlined on this kernel: see variants)"
    )


def aliases(kernel: Kernel, function: str) -> list[str]:
    """Return the other names of a function; [] where several functions have its name, or addresses are hidden."""
    symbols = list(kernel.function_addresses())
    addresses = {address for address, name, _ in symbols if name == function}
    if len(addresses) != 1 or addresses == {0}:
        return []
    return sorted(name for address, name, _ in symbols if address in addresses and name != function)


def matching(kernel: Kernel, point: AttachPoint) -> list[str]:
    """Return FUNC or MODULE:FUNC for every function that the point's glob matches and that can be probed.

    Left out: names that several functions have (static ones of different files), names with a suffix of the compiler
    (.cold, .isra.0) unless the glob has a dot itself, what ftrace and kprobes must not touch, and of several names of
    one function all but the first.
    """
    module, pattern = split(kernel, point.target)
    symbols = list(kernel.function_addresses())
    names = Counter(name for _, name, _ in symbols)
    built_in = bool(module) and all(owner != module for _, _, owner in symbols)
    banned = kernel.banned_functions()
    allowed = _allowed(kernel, symbols)
    found: dict[int | str, str] = {}
    for address, name, owner in sorted(symbols, key=lambda symbol: symbol[1]):
        if (
            fnmatch.fnmatchcase(name, pattern)
            and names[name] == 1
            and ("." not in name or "." in pattern)
            and not name.startswith(_NO_FUNCTION)
            and (not module or owner == ("" if built_in else module))
            and (allowed is None or allowed & {name, address})
            and name not in banned
        ):
            found.setdefault(address or name, f"{owner}:{name}" if owner else name)
    if not found:
        raise RefusedError(
            Reason.MISSING,
            f"{point.step}: no function matches (see available_filter_functions in tracefs; inlined ones have no name)",
        )
    return list(found.values())


def _allowed(kernel: Kernel, symbols: Iterable[tuple[int, str, str]]) -> set[str | int] | None:
    """Return names and addresses of the functions that ftrace can trace; None where that is not known. The list of
    tracefs has one name for each address, and a system call without arguments has two names: the list may have
    __x64_sys_getpid as __ia32_sys_getpid."""
    names = kernel.traceable_functions()
    if names is None:
        return None
    return {*names, *(address for address, name, _ in symbols if address and name in names)}
