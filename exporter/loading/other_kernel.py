"""What another kernel has of a program's demands and attach points, by its BTF file alone: yes, no, or not to be told.

A BTF file of vmlinux has the members of every struct, the functions that can be traced, a typedef for every tracepoint
and the helpers of bpf(2). It has no release, no list of modules and nothing of what they bring.
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

# fentry and fexit load on arm64 but cannot be attached before (ENOTSUPP): its ftrace has direct calls since then.
ARM64_TRAMPOLINES = (6, 4)

_CLASS = re.compile(rb"\0trace_event_raw_(\w+)(?=\0)")


@dataclass(frozen=True, slots=True)
class Answer:
    """`lacks` is what that kernel does not have, `reason` of which sort the first of it is; `assumed` what the file
    cannot tell and is taken to be there."""

    lacks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    reason: Reason = Reason.NONE


class OtherKernel:
    """One kernel, as far as its BTF knows it. `release` is None where nobody has said which one it is."""

    def __init__(self, types: KernelBtf, release: str | None, arch: str) -> None:
        self._types = types
        self._release = release
        self._arch = arch

    def requires(self, wanted: Requirements) -> Answer:
        """Which of the demands it does not meet."""
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
        """Which attach points it does not have; `modules` are those that the program asks for, which may have them."""
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
        """Which helpers the functions call that are newer than that kernel: its verifier says "unknown func"."""
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
        """Why CATEGORY:EVENT.FIELD is not there, "" if it is; and whether that is certain.

        An event of its own has struct trace_event_raw_EVENT. One that shares its record with others has that of their
        class, and which one that is BTF does not say: it has, as far as names tell, a word of the event's in common.
        """
        place, _, field = path.rpartition(".")
        category, _, event = place.partition(":")
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
        """Why the point is not there, "" if it is; Reason.NONE where that cannot be told."""
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
        if point.target.rpartition(":")[2].startswith("sys_"):  # of two names of one address BTF may have the other
            return Reason.NONE, "this BTF has no such system call by this name"
        hint = "inlined? see variants; of a module? then MODULE:FUNC"
        return Reason.MISSING, f"no such function in this BTF ({hint})"

    def _is_without_trampolines(self) -> bool:
        return self._arch == "aarch64" and self._release is not None and version(self._release) < ARM64_TRAMPOLINES

    def _has_event(self, event: str) -> bool:
        return bool(self._types.find(f"btf_trace_{event}", BTF_KIND_TYPEDEF))

    @cached_property
    def _classes(self) -> list[str]:
        """Every X of a struct trace_event_raw_X, by the strings of the file."""
        return sorted({name.decode() for name in _CLASS.findall(self._types.path.read_bytes())})


def all_of(*questions: Callable[[], Answer]) -> Answer:
    """The answers up to the first that lacks something, in one."""
    assumed: list[str] = []
    for question in questions:
        answer = question()
        assumed += answer.assumed
        if answer.lacks:
            return Answer(answer.lacks, tuple(assumed), answer.reason)
    return Answer((), tuple(dict.fromkeys(assumed)))
