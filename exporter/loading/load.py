"""An artifact -> maps and programs in the kernel, by bpf(2): one path for what is new, cached or made elsewhere."""

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
    """Lift RLIMIT_MEMLOCK as far as this process may, on kernels that count maps and programs in it. Where that is not
    far enough what comes next is EPERM, and says so."""
    if kernel.version >= MEMCG_ACCOUNTING:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):  # no CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def create_maps(artifact: Artifact, kernel: Kernel) -> dict[str, int]:
    """Map name -> fd of a new, empty map, for every map of the artifact. RefusedError, and then none is left open."""
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
                # Some types take no BTF (stack traces, map in map: map_check_no_btf()). bpftool loses the names of
                # fields then, the exporter nothing: the layouts are in the artifact.
                try:
                    fds[wanted.name] = bpf.map_create(*layout)
                except OSError as again:
                    raise refused(f"create map {wanted.name}", again, kernel, Reason.MAP) from again
    except RefusedError:
        close(fds.values())
        raise
    finally:
        if btf_fd:
            os.close(btf_fd)  # the maps hold it
    return fds


class LoadedFunctions:
    """The functions of an artifact, each loaded when the first point asks for it and once for all points that can share
    it: points of one program type do, but fentry, fexit and tp_btf are bound to their target by the verifier, and a
    program for many points at once is another one than for a single point."""

    def __init__(self, artifact: Artifact, maps: dict[str, int], kernel: Kernel) -> None:
        self._artifact = artifact
        self._maps = maps
        self._kernel = kernel
        self._fds: dict[tuple[str, int, int, BtfTarget | None], int] = {}

    def load(self, point: AttachPoint, multi: bool = False) -> int:
        """The fd of the program for this point; it belongs to this object. RefusedError says why there is none."""
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
        """Hand over the fds in `used` by function name ("on_x", and "on_x#2" where it had to be loaded again), close
        the others (optional points that could not be attached)."""
        kept, named = set(used), dict[str, int]()
        for (function, *_), fd in self._fds.items():
            if fd not in kept:
                os.close(fd)
                continue
            times = sum(1 for name in named if name.partition("#")[0] == function)
            named[function if not times else f"{function}#{times + 1}"] = fd
        self._fds = {}
        return named

    def close(self) -> None:
        close(self._fds.values())
        self._fds = {}


def probe(kernel: Kernel, point: AttachPoint) -> None:
    """Attach a program that does nothing, and detach it: RefusedError where this kernel has no such place, or does not
    let us there. Takes milliseconds, a compiler run seconds. Of a glob the first place that lets us is enough."""
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
    """The same at several points of one kind by a single link. RefusedError where this kernel has no such links."""
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
    for fd in list(fds):
        os.close(fd)


def _check_arch(artifact: Artifact, kernel: Kernel) -> None:
    """Bytecode of another architecture loads and reads wrong registers and offsets: it must not come that far."""
    if artifact.arch != kernel.machine:
        raise RefusedError(
            Reason.UNSUPPORTED,
            f"load: compiled for {artifact.arch}, this machine is {kernel.machine} (compile it here, or with its BTF)",
        )


def _function(artifact: Artifact, point: AttachPoint) -> Function:
    for function in artifact.functions:
        if function.name == point.function:
            return function
    names = ", ".join(function.name for function in artifact.functions) or "none"
    raise RefusedError(Reason.BINDING, f"{point.step}: no function {point.function} in the C text (there are: {names})")


def _load_btf(artifact: Artifact) -> int:
    """The fd of the maps' BTF, 0 without: an older kernel refuses kinds that it does not know (BTF_KIND_FLOAT is 5.13,
    DECL_TAG 5.16, TYPE_TAG 5.17, ENUM64 6.0), and maps do without."""
    if not artifact.btf:
        return 0
    try:
        return btf_objects.load(artifact.btf)
    except OSError:
        return 0
