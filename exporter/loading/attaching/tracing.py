"""fentry and fexit: at kernel functions through a trampoline, with arguments typed by BTF."""

from __future__ import annotations

from exporter.kernel import bpf, links
from exporter.kernel.features import Kernel
from exporter.loading.attaching import functions
from exporter.loading.attaching.kind import AttachPoint, BtfTarget, Kind, Link, module_types, types
from exporter.loading.refusal import RefusedError, refused
from exporter.program import Reason


def _function_id(kernel: Kernel, point: AttachPoint) -> BtfTarget:
    module, function = functions.find(kernel, point)
    btf = types(kernel, point)
    if found := btf.function_id(function):
        return BtfTarget(found)
    # BTF has one name for each address, and a system call without arguments has two (__x64_, __ia32_sys_getpid).
    for alias in functions.aliases(kernel, function):
        if found := btf.function_id(alias):
            return BtfTarget(found)
    modules = {module} if module else {owner for name, owner in kernel.functions() if name == function}
    for owner in sorted(modules - {""}):
        try:
            found = module_types(kernel.btf, owner).function_id(function)
        except OSError as error:
            text = f"{point.step}: module {owner} has no BTF (CONFIG_DEBUG_INFO_BTF_MODULES, 5.11): use a kprobe"
            raise RefusedError(Reason.UNSUPPORTED, text) from error
        if found:
            return BtfTarget(found, owner)
    if modules:
        cause = "this function is not in the kernel's BTF (several static ones have that name?): use a kprobe"
        raise RefusedError(Reason.MISSING, f"{point.step}: {cause}")
    raise functions.missing(kernel, point)


def attach(kernel: Kernel, point: AttachPoint, prog_fd: int) -> Link:
    """Attach the program to the function or event that it was loaded for."""
    try:
        return Link((links.raw_tracepoint(None, prog_fd),))
    except OSError as error:
        raise refused(point.step, error, kernel, Reason.UNSUPPORTED) from error


KINDS = {
    "fentry": Kind(bpf.BPF_PROG_TYPE_TRACING, attach, bpf.BPF_TRACE_FENTRY, _function_id, functions.matching),
    "fexit": Kind(bpf.BPF_PROG_TYPE_TRACING, attach, bpf.BPF_TRACE_FEXIT, _function_id, functions.matching),
}
