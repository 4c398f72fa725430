"""A BTF file of another kernel -> what that kernel lacks of a program's requirements and attach points.

The BTF of vmlinux has the members of every struct, the functions that can be traced, a typedef for every tracepoint and
the helpers of bpf(2). It has no release, no list of modules, and nothing that a module defines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from exporter.kernel import bpf_insn
from exporter.kernel.btf import BTF_KIND_TYPEDEF, KernelBtf
from exporter.kernel.features import Kernel, version
from exporter.loading import requires
from exporter.loading.artifact import Function
from exporter.loading.attaching import functions
from exporter.loading.attaching.kind import FILE_KINDS, points
from exporter.loading.attaching.kinds import AttachPoint, is_glob
from exporter.program import Reason
from exporter.spec import Requirements, VariantSpec

# On arm64 fentry and fexit load but do not attach before 6.4 (ENOTSUPP), where its ftrace got direct calls.
ARM64_TRAMPOLINES = (6, 4)

_CLASS = re.compile(rb"\0trace_event_raw_(\w+)(?=\0)")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question about another kernel.

    lacks    what that kernel does not have
    assumed  what its BTF does not tell, and is assumed to be there
    reason   of the first entry of `lacks`
    """

    lacks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    reason: Reason = Reason.NONE


class OtherKernel:
    """A kernel as far as its BTF describes it. `release` is None where it is not known."""

    def __init__(self, types: KernelBtf, release: str | None, arch: str) -> None:
        self._types = types
        self._release = release
        self._arch = arch

    def requires(self, wanted: Requirements) -> Answer:
        """Return which of the requirements the kernel does not meet."""
        lacks: list[str] = []
        assumed: list[str] = []
        if wanted.kernel is not None and self._release is None:
            assumed.append(f"kernel {wanted.kernel} (BTF has no release: --release says it)")
        elif wanted.kernel is not None and not requires.matches(wanted.kernel, version(self._release or "")):
            lacks.append(f"requires kernel {wanted.kernel} (that one is {self._release})")
        if wanted.arch and self._arch not in wanted.arch:
            lacks.append(f"requires arch {' or '.join(wanted.arch)} (that kernel's is {self._arch})")
        assumed += [f"module {name} (a BTF file does not list modules)" for name in wanted.module]
        for path in wanted.member:
            if self._types.has_member(path):
                continue
            if wanted.module:
                assumed.append(f"member {path} (not in this BTF, perhaps in that of {' or '.join(wanted.module)})")
            else:
                lacks.append(f"requires member {path} (not in this BTF)")
        for path in wanted.tracepoint_field:
            why, certain = self._no_field(path)
            if why and certain:
                lacks.append(f"requires tracepoint_field {path} ({why})")
            elif why:
                assumed.append(f"tracepoint_field {path} ({why})")
        return Answer(tuple(lacks), tuple(assumed), Reason.REQUIRES if lacks else Reason.NONE)

    def attach_points(self, variant: VariantSpec, modules: Sequence[str]) -> Answer:
        """Return which attach points the kernel does not have; one may be in one of `modules`, which the program
        requires."""
        lacks: list[tuple[Reason, str]] = []
        assumed: list[str] = []
        absent = 0
        for point in points(variant):
            reason, text = self._no_target(point)
            if text and (not reason or (modules and reason is Reason.MISSING)):
                assumed.append(f"{point.kind} {point.target} ({text})")
            elif text and point.optional:
                absent += 1
            elif text:
                lacks.append((reason, f"{point.step}: {text}"))
        if absent and absent == len(points(variant)):
            lacks.append((Reason.MISSING, "attach: none of its points is in this BTF, all of them are optional"))
        return Answer(tuple(text for _, text in lacks), tuple(assumed), lacks[0][0] if lacks else Reason.NONE)

    def helpers(self, called_by: Iterable[Function]) -> Answer:
        """Return which helpers the functions call that are newer than the kernel: its verifier says "unknown func"."""
        known = self._types.enum_values("bpf_func_id")
        if not known:
            return Answer(assumed=("helpers (this BTF has no enum bpf_func_id)",))
        unknown = sorted(
            {f"{f.name}() calls helper {n}" for f in called_by for n in bpf_insn.helpers(f.instructions)
             if n not in known}
        )  # fmt: skip
        lacks = tuple(f"load: {call}, which is newer than this kernel (bpf-helpers(7))" for call in unknown)
        return Answer(lacks, reason=Reason.VERIFIER if lacks else Reason.NONE)

    def _no_field(self, path: str) -> tuple[str, bool]:
        """Return why CATEGORY:EVENT.FIELD is absent, "" if it is there; and True if that is certain.

        An event with a record of its own has struct trace_event_raw_EVENT. An event of a class (DECLARE_EVENT_CLASS)
        has the record of the class, and BTF does not say which class: its name usually begins as the event's does.
        """
        tracepoint, _, field = path.rpartition(".")
        category, _, event = tracepoint.partition(":")
        if requires.has_field(self._types, event, field):
            return "", True
        if self._types.find_struct(f"trace_event_raw_{event}"):
            return "not in this BTF's struct of the event", True
        if not self._has_event(event):
            return "no such tracepoint in this BTF; a module's would be in the module's own", True
        near = {category, event.partition("_")[0]}
        classes = [c for c in self._classes if c.partition("_")[0] in near and not self._has_event(c)]
        if having := [c for c in classes if requires.has_field(self._types, c, field)]:
            return f"it shares its record with other events: perhaps that of {' or '.join(having)}", False
        return f"it shares its record with other events, and none of {category} has such a field", True

    def _no_target(self, point: AttachPoint) -> tuple[Reason, str]:
        """Return why the target is absent, "" if it is there; Reason.NONE where BTF does not tell."""
        if point.kind in FILE_KINDS:
            return Reason.NONE, "a file of that host"
        if point.kind == "perf_event":
            return Reason.NONE, "what its CPUs count is not in BTF"
        if is_glob(point.target):
            return Reason.NONE, "what a glob names is found where it runs"
        if point.kind in ("fentry", "fexit") and self._is_without_trampolines():
            return Reason.UNSUPPORTED, "arm64 has it since 6.4: use a kprobe"
        if point.kind in ("tracepoint", "raw_tracepoint", "tp_btf"):
            category, _, event = point.target.rpartition(":")
            if self._has_event(event):
                return Reason.NONE, ""
            if category == "syscalls":
                return Reason.NONE, "events of single system calls are not in BTF"
            return Reason.MISSING, "no such tracepoint in this BTF (of a module? then `requires: {module: NAME}`)"
        module, function = functions.split(Kernel(machine=self._arch), point.target)
        if self._types.function_id(function):
            return Reason.NONE, ""
        if module:
            return Reason.NONE, f"in module {module}, or nowhere"
        if point.target.rpartition(":")[2].startswith("sys_"):  # BTF may have the other name of the address
            return Reason.NONE, "this BTF has no such system call by this name"
        hint = "inlined? see variants; of a module? then MODULE:FUNC"
        return Reason.MISSING, f"no such function in this BTF ({hint})"

    def _is_without_trampolines(self) -> bool:
        return self._arch == "aarch64" and self._release is not None and version(self._release) < ARM64_TRAMPOLINES

    def _has_event(self, event: str) -> bool:
        return bool(self._types.find(f"btf_trace_{event}", BTF_KIND_TYPEDEF))

    @cached_property
    def _classes(self) -> list[str]:
        """Return every X of a struct trace_event_raw_X, by the strings of the file."""
        return sorted({name.decode() for name in _CLASS.findall(self._types.path.read_bytes())})


def all_of(*questions: Callable[[], Answer]) -> Answer:
    """Join the answers, up to the first that lacks something."""
    assumed: list[str] = []
    for question in questions:
        answer = question()
        assumed += answer.assumed
        if answer.lacks:
            return Answer(answer.lacks, tuple(assumed), answer.reason)
    return Answer((), tuple(dict.fromkeys(assumed)))
