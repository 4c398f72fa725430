"""`requires` of a program or variant -> what this kernel lacks of it. The kernel is asked, and not its version."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from exporter.kernel.btf import KernelBtf
from exporter.kernel.features import Kernel
from exporter.loading.attaching.kind import kernel_types, module_types
from exporter.spec import Requirements

_COMPARISON = re.compile(r"\s*(?P<operator>>=|<=|==|>|<)\s*(?P<version>\d+(?:\.\d+)*)\s*")
_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


def unmet(requires: Requirements, kernel: Kernel) -> list[str]:
    """Return a sentence for each requirement that this kernel does not meet."""
    sentences = []
    if requires.kernel is not None and not matches(requires.kernel, kernel.version):
        sentences.append(f"kernel {requires.kernel} (this one is {kernel.release})")
    if requires.arch and kernel.machine not in requires.arch:
        sentences.append(f"arch {' or '.join(requires.arch)} (this machine is {kernel.machine})")
    sentences += [f"module {name} ({why})" for name in requires.module if (why := _no_module(name, kernel))]
    sentences += [
        f"member {path} ({why})" for path in requires.member if (why := _no_member(path, kernel, requires.module))
    ]
    sentences += [
        f"tracepoint_field {path} ({why})" for path in requires.tracepoint_field if (why := _no_field(path, kernel))
    ]
    return sentences


def matches(expression: str, version: tuple[int, ...]) -> bool:
    """Return True if a version fits an expression such as ">=5.10, <6.1". Only as many numbers count as the expression
    has: 6.1.50 is "<=6.1" and "==6.1", and not ">6.1". ValueError if it is no such expression."""
    return all(_holds(comparison, version) for comparison in expression.split(","))


def _holds(comparison: str, version: tuple[int, ...]) -> bool:
    match = _COMPARISON.fullmatch(comparison)
    if match is None:
        raise ValueError(f"kernel {comparison.strip()!r} is no comparison (write >=5.10, or >=5.10, <6.1)")
    wanted = tuple(int(part) for part in match["version"].split("."))
    found = (version + (0,) * len(wanted))[: len(wanted)]
    return _OPERATORS[match["operator"]](found, wanted)


def _no_module(name: str, kernel: Kernel) -> str:
    """Return why the module is absent, "" if it is loaded or built in."""
    if kernel.has_module(name):
        return ""
    return f"neither loaded nor built in: modprobe {name}, before the exporter starts"


def _no_member(path: str, kernel: Kernel, modules: Sequence[str] = ()) -> str:
    """Return why the kernel and these modules have no struct with that member, "" if one has."""
    try:
        if kernel_types(kernel.btf).has_member(path):
            return ""
    except OSError:
        return "this kernel has no BTF to ask"
    for module in modules:
        try:
            if module_types(kernel.btf, module).has_member(path):
                return ""
        except OSError:  # built in, or without BTF
            continue
    where = f", nor in that of {' and '.join(modules)}" if modules else ""
    return f"not in this kernel's BTF{where}"


def _no_field(path: str, kernel: Kernel) -> str:
    """Return why CATEGORY:EVENT.FIELD is absent, "" if it is there: by tracefs, and where that is hidden by BTF's
    struct trace_event_raw_EVENT, which an event of a class (DECLARE_EVENT_CLASS) does not have."""
    tracepoint, _, field = path.rpartition(".")
    category, _, event = tracepoint.partition(":")
    if kernel.tracefs is None:
        with suppress(OSError):  # no BTF either
            if has_field(kernel_types(kernel.btf), event, field):
                return ""
        return f"tracefs is not mounted, and BTF has no struct trace_event_raw_{event} with it"
    try:
        fields = kernel.tracepoint_fields(category, event)
    except OSError as error:
        return f"tracefs: {error.strerror}"
    if fields is None:
        return "no such tracepoint"
    return (
        "" if field in fields else f"its fields: {', '.join(name for name in fields if not name.startswith('common_'))}"
    )


def has_field(types: KernelBtf, event: str, field: str) -> bool:
    """Return True if BTF's struct trace_event_raw_EVENT has this field."""
    return any(
        types.has_member(f"trace_event_raw_{event}.{where}{field}") for where in ("", "__data_loc_", "__rel_loc_")
    )
