"""An artifact -> maps and programs in the kernel, by bpf(2): new, cached or compiled on another host alike."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence

from exporter.kernel import bpf, bpf_insn, btf_objects
from exporter.kernel.features import Kernel
from exporter.loading.artifact import Artifact, Function
from exporter.loading.attaching.kind import BtfTarget
from exporter.loading.attaching.kinds import KINDS, AttachPoint, attach, expand
from exporter.loading.refusal import MEMCG_ACCOUNTING, RefusedError, refused
from exporter.program import Reason


def raise_memlock(kernel: Kernel) -> None:
    """Raise RLIMIT_MEMLOCK as far as this process may, on kernels that charge maps and programs to it. Where that is
    not enough, creating a map fails with EPERM, and the refusal names the limit."""
    if kernel.version >= MEMCG_ACCOUNTING:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):  # no CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def create_maps(artifact: Artifact, kernel: Kernel) -> dict[str, int]:
    """Create every map of the artifact; return the fds by map name. RefusedError, and then no map is left open."""
    _check_arch(artifact, kernel)
    btf_fd = _load_btf(artifact)
    fds: dict[str, int] = {}
    try:
        for wanted in artifact.maps:
            key_type, value_type = artifact.btf_types.get(wanted.name, (0, 0)) if btf_fd else (0, 0)
            layout = (wanted.type, wanted.key_size, wanted.value_size, wanted.max_entries, wanted.flags, wanted.name)
            try:
                fds[wanted.name] = bpf.map_create(*layout, btf_fd if value_type else 0, key_type, value_type)
            except OSError as error:
                if not value_type:
                    raise refused(f"create map {wanted.name}", error, kernel, Reason.MAP) from error
                # Some map types take no BTF (stack traces, map in map: map_check_no_btf()). Then bpftool lacks names
                # of fields; the exporter has the layouts in the artifact.
                try:
                    fds[wanted.name] = bpf.map_create(*layout)
                except OSError as again:
                    raise refused(f"create map {wanted.name}", again, kernel, Reason.MAP) from again
    except RefusedError:
        close(fds.values())
        raise
    finally:
        if btf_fd:
            os.close(btf_fd)  # the maps refer to it
    return fds


class LoadedFunctions:
    """The functions of an artifact, each loaded for the first attach point that needs it and shared with others. Points
    of one program type share a program; fentry, fexit and tp_btf do not, because the verifier binds the program to its
    target, nor does a link for many points share one with a link for a single point."""

    def __init__(self, artifact: Artifact, maps: dict[str, int], kernel: Kernel) -> None:
        self._artifact = artifact
        self._maps = maps
        self._kernel = kernel
        self._fds: dict[tuple[str, int, int, BtfTarget | None], int] = {}

    def load(self, point: AttachPoint, multi: bool = False) -> int:
        """Return the fd of the program for this point, which belongs to this object. RefusedError if the kernel refuses
        it."""
        function = _function(self._artifact, point)
        kind = KINDS[point.kind]
        expected = kind.multi.expected_attach_type if multi and kind.multi else kind.expected_attach_type
        target = kind.target(self._kernel, point) if kind.target else None
        key = (function.name, kind.program_type, expected, target)
        if key not in self._fds:
            code = bpf_insn.relocated(function.instructions, function.maps, self._maps)
            self._fds[key] = _load(self._kernel, point, code, self._artifact.license, expected, target)
        return self._fds[key]

    def release(self, used: Iterable[int]) -> dict[str, int]:
        """Return the fds in `used` by function name ("on_x", and "on_x#2" where it was loaded twice), which belong to
        the caller then; close the others (of optional points that could not be attached)."""
        in_use, named = set(used), dict[str, int]()
        for (function, *_), fd in self._fds.items():
            if fd not in in_use:
                os.close(fd)
                continue
            times = sum(1 for name in named if name.partition("#")[0] == function)
            named[function if not times else f"{function}#{times + 1}"] = fd
        self._fds = {}
        return named

    def close(self) -> None:
        """Close every program that was not released."""
        close(self._fds.values())
        self._fds = {}


def probe(kernel: Kernel, point: AttachPoint) -> None:
    """Attach a program that does nothing, and detach it. RefusedError where this kernel lacks the target or refuses the
    program. It takes milliseconds, compiling takes seconds. Of a glob one match that succeeds is enough."""
    refusal: RefusedError | None = None
    for target in expand(kernel, point):
        try:
            _probe(kernel, target)
        except RefusedError as error:
            refusal = refusal or error
        else:
            return
    if refusal:
        raise refusal


def _probe(kernel: Kernel, point: AttachPoint) -> None:
    kind = KINDS[point.kind]
    target = kind.target(kernel, point) if kind.target else None
    if kind.multi and kind.multi.least == 1:  # quicker to detach
        program = _load(kernel, point, bpf_insn.RETURN_0, "GPL", kind.multi.expected_attach_type, target)
        try:
            os.close(kind.multi.attach(kernel, [point], program))
            return
        except OSError:
            pass
        finally:
            os.close(program)
    program = _load(kernel, point, bpf_insn.RETURN_0, "GPL", kind.expected_attach_type, target)
    try:
        close(attach(kernel, point, program).fds)
    finally:
        os.close(program)


def probe_multi(kernel: Kernel, points: Sequence[AttachPoint]) -> None:
    """Probe several points of one kind by a single link. RefusedError where this kernel has no such links."""
    multi = KINDS[points[0].kind].multi
    assert multi is not None
    program = _load(kernel, points[0], bpf_insn.RETURN_0, "GPL", multi.expected_attach_type, None)
    try:
        os.close(multi.attach(kernel, points, program))
    except OSError as error:
        raise refused(f"attach {points[0].kind}.multi", error, kernel, Reason.UNSUPPORTED) from error
    finally:
        os.close(program)


def _load(kernel: Kernel, point: AttachPoint, code: bytes, terms: str, expected: int, target: BtfTarget | None) -> int:
    kind = KINDS[point.kind]
    step = f"load {point.function} for {point.kind}/{point.target}"
    module_btf = 0
    try:
        if target and target.module:
            module_btf = btf_objects.of_module(target.module)
        return bpf.prog_load(
            kind.program_type, code, terms, point.function, expected, target.id if target else 0, module_btf
        )
    except OSError as error:
        raise refused(step, error, kernel, Reason.UNSUPPORTED) from error
    finally:
        if module_btf:
            os.close(module_btf)


def close(fds: Iterable[int]) -> None:
    """Close the file descriptors."""
    for fd in list(fds):
        os.close(fd)


def _check_arch(artifact: Artifact, kernel: Kernel) -> None:
    """Refuse bytecode of another architecture, which would load and read wrong registers and offsets."""
    if artifact.arch != kernel.machine:
        raise RefusedError(
            Reason.UNSUPPORTED,
            f"load: compiled for {artifact.arch}, this machine is {kernel.machine} (compile it here, or with its BTF)",
        )


def _function(artifact: Artifact, point: AttachPoint) -> Function:
    if function := artifact.function(point.function):
        return function
    names = ", ".join(function.name for function in artifact.functions) or "none"
    raise RefusedError(Reason.BINDING, f"{point.step}: no function {point.function} in the C text (there are: {names})")


def _load_btf(artifact: Artifact) -> int:
    """Return the fd of the maps' BTF, or 0: an older kernel refuses kinds that it does not know (BTF_KIND_FLOAT is
    5.13, DECL_TAG 5.16, TYPE_TAG 5.17, ENUM64 6.0), and maps do not need their BTF."""
    if not artifact.btf:
        return 0
    try:
        return btf_objects.load(artifact.btf)
    except OSError:
        return 0
