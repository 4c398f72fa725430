"""Programs at functions through a trampoline, arguments typed by BTF: fentry and fexit."""

from __future__ import annotations

from exporter.kernel import bpf, links
from exporter.kernel.features import Kernel
from exporter.loading.attaching import functions
from exporter.loading.attaching.kind import BtfTarget, Kind, Link, Point, module_types, types
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason


def _function_id(kernel: Kernel, point: Point) -> BtfTarget:
    module, function = functions.place(kernel, point)
    btf = types(kernel, point)
    if found := btf.function_id(function):
        return BtfTarget(found)
    # BTF has one name for each address, and a system call without arguments has two (__x64_, __ia32_sys_getpid).
    for alias in functions.aliases(kernel, function):
        if found := btf.function_id(alias):
            return BtfTarget(found)
    places = {module} if module else {where for name, where in kernel.functions() if name == function}
    for where in sorted(places - {""}):
        try:
            found = module_types(kernel.btf, where).function_id(function)
        except OSError as error:
            text = f"{point.step}: module {where} has no BTF (CONFIG_DEBUG_INFO_BTF_MODULES, 5.11): use a kprobe"
            raise RefusedError(Reason.UNSUPPORTED, text) from error
        if found:
            return BtfTarget(found, where)
    if places:
        cause = "this function is not in the kernel's BTF (several static ones have that name?): use a kprobe"
        raise RefusedError(Reason.MISSING, f"{point.step}: {cause}")
    raise functions.missing(kernel, point)


def attach(kernel: Kernel, point: Point, prog_fd: int) -> Link:
    """Where the program was loaded for."""
    try:
        return Link((links.raw_tracepoint(None, prog_fd),))
    except OSError as error:
        raise refused(point.step, error, kernel, Reason.UNSUPPORTED) from error


KINDS = {
    "fentry": Kind(bpf.BPF_PROG_TYPE_TRACING, attach, bpf.BPF_TRACE_FENTRY, _function_id, functions.matching),
    "fexit": Kind(bpf.BPF_PROG_TYPE_TRACING, attach, bpf.BPF_TRACE_FEXIT, _function_id, functions.matching),
}
