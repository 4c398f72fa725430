"""One variant of a program -> an artifact, by bcc. The only module that imports bcc.

bcc loads LLVM (150 MB), changes the working directory, prints to the standard streams and cleans up in atexit; an error
in LLVM's back end ends the process. So bcc runs in a child of its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from exporter import log
from exporter.ipc import isolated
from exporter.kernel import bpf, bpf_insn, btf_objects, mappings
from exporter.kernel.btf import KernelBtf
from exporter.kernel.near import near
from exporter.loading import artifact, cache_key
from exporter.loading.artifact import Artifact, Function
from exporter.loading.compiling import diagnostics, headers, layout_asserts, needed_types, scratch, source
from exporter.loading.compiling.btf_types import Blob
from exporter.loading.lint import rules
from exporter.loading.refusal import RefusedError
from exporter.loading.target import Target
from exporter.program import DRAIN_EPOCHS, LOST_UPDATES, ODD, Map, Reason
from exporter.spec import ProgramSpec, VariantSpec

if TYPE_CHECKING:
    from bcc import BPF

_log = log.get()

# Values of bcc's ARCH variable, which selects triple, registers and PT_REGS macros; without it bcc takes this host's.
_BCC_ARCH = {"x86_64": "x86", "aarch64": "arm64"}

# An exporter observes: a helper that writes to user memory, changes a return value or signals a process is refused.
# Numbers: enum bpf_func_id, include/uapi/linux/bpf.h.
FORBIDDEN_HELPERS = {
    36: "bpf_probe_write_user",
    58: "bpf_override_return",
    109: "bpf_send_signal",
    117: "bpf_send_signal_thread",
}


def bcc_version() -> str | None:
    """Return the installed bcc's version, read from its file without importing bcc; None if there is no bcc."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:  # no module, or a directory called bcc
        return None
    try:
        match = re.search(r"__version__ *= *['\"]([^'\"]+)", (Path(spec.origin).parent / "version.py").read_text())
    except OSError:
        return None
    return match[1] if match else None


def compile_variant(
    program: ProgramSpec,
    variant: VariantSpec,
    target: Target,
    header_text: str,
    trees: Path | None = None,
) -> Artifact:
    """Compile one variant for a kernel, this host's or another's, in a child that dies with the calling thread.

    header_text  of programs/include/exporter.h
    trees        directory of header trees (Cache.headers); None: a tree is made for this call

    RefusedError, whose text is "compile FILE:LINE:COLUMN: cause (hint)".
    """
    if target.arch not in _BCC_ARCH:
        raise RefusedError(Reason.UNSUPPORTED, f"compile for {target.arch}: only {' and '.join(_BCC_ARCH)} are known")
    if found := rules.findings(program):
        raise RefusedError(Reason.COMPILER, "\n".join(f"compile {line}" for line in found))
    _refuse_foreign_tracepoint_formats(program, target)
    if bcc_version() is None:
        raise RefusedError(
            Reason.BCC, "compile: bcc is not installed (Debian and Ubuntu: apt-get install python3-bpfcc)"
        )
    try:
        text = source.assemble(program, variant, header_text)
        with _tree(target, trees) as tree:
            whole, types = text.text, ""
            if tree:
                headers.add_included(tree, program.text)
                kernel_types = needed_types.read(tree)
                types = kernel_types.needed(" ".join((source.without_comments(text.text), *text.flags)))
                whole += _asserts(program, target, kernel_types.several)
            made_of = cache_key.of(program, target, header_text)
            return _in_child(_Job(program, variant, target, made_of, text, whole, tree, types))
    except headers.HeadersError as error:
        raise RefusedError(Reason.COMPILER, str(error)) from error
    except (OSError, ValueError) as error:
        raise RefusedError(Reason.INTERNAL, f"compile: {error}") from error


@dataclass(frozen=True, slots=True)
class _Job:
    """The input of the child.

    text   the whole C text, with the layout asserts behind it
    types  C text of the kernel types that it needs; "" for all types of the tree, or of installed headers
    """

    program: ProgramSpec
    variant: VariantSpec
    target: Target
    cache_key: cache_key.CacheKey
    source: source.Source
    text: str
    tree: Path | None
    types: str


def _in_child(job: _Job) -> Artifact:
    began = time.monotonic()
    outcome = isolated.run_isolated(lambda output: _answer(job, output))
    word, _, rest = outcome.answer.partition(" ")
    if word == "artifact":
        return replace(artifact.loads(rest), compile_seconds=time.monotonic() - began)
    if word == "refused":
        reason, _, text = rest.partition(" ")
        moved = diagnostics.further_right(text, str(job.program.source), job.program.indent)
        raise RefusedError(Reason(reason), moved)
    if outcome.status == -signal.SIGKILL:
        raise RefusedError(Reason.KILLED, "compile: the compiler was killed (out of memory?)")
    # LLVM's back end ends the process where it finds an error, by abort() where it has no instruction for something.
    if outcome.status < 0 and "LLVM ERROR" not in outcome.output:
        raise RefusedError(Reason.COMPILER, f"compile: the compiler crashed with signal {-outcome.status}")
    raise diagnostics.from_clang(outcome.output)


def _answer(job: _Job, output: IO[bytes]) -> str:
    """Return, in the child, "artifact JSON" or "refused REASON TEXT"."""
    try:
        return "artifact " + artifact.dumps(_artifact(job, _compile(job, output)))
    except RefusedError as error:
        return f"refused {error.reason} {error.text}"
    except (OSError, ValueError, KeyError) as error:  # of bpf(2) on the maps, or of BTF with an unknown kind
        return f"refused {Reason.INTERNAL} compile: read what bcc made: {error}"


@contextmanager
def _tree(target: Target, trees: Path | None) -> Iterator[Path | None]:
    """Yield a header tree in `trees`; where that is full or cannot be written to, one for this call alone."""
    if trees:
        try:
            kept = headers.source_tree(target, trees)
        except headers.UnwritableError as error:
            _log.warning("kernel headers not kept: each program makes them again", error=str(error))
        else:
            yield kept
            return
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-", dir=scratch.directory()) as directory:
        yield headers.source_tree(target, Path(directory))


def _asserts(program: ProgramSpec, target: Target, several: frozenset[str]) -> str:
    with KernelBtf(target.btf_path) as btf:
        return layout_asserts.asserts(source.without_comments(program.text), btf, several)


def _refuse_foreign_tracepoint_formats(program: ProgramSpec, target: Target) -> None:
    match = re.search(r"\bTRACEPOINT_PROBE\s*\(", source.without_comments(program.text))
    if match and target.release != os.uname().release:
        where = source.position(program, match.start())
        raise RefusedError(
            Reason.UNSUPPORTED,
            f"compile {where}: TRACEPOINT_PROBE() takes the format from the running kernel, not from {target.release} "
            "(write a raw tracepoint, or a function that takes struct trace_event_raw_EVENT *)",
        )


def _compile(job: _Job, output: IO[bytes]) -> BPF:
    """Return bcc's module. RefusedError with the first errors that clang printed."""
    os.environ["ARCH"] = _BCC_ARCH[job.target.arch]
    if job.tree:
        os.environ["BCC_KERNEL_SOURCE"] = str(job.tree)
    else:
        os.environ.pop("BCC_KERNEL_SOURCE", None)
    module = _module_of_needed_types(job) if job.types else None
    if module is None:
        output.seek(0)  # the offset is that of standard output and error
        output.truncate()
        module = _bcc_module(job.text, job.source.flags)
    ctypes.CDLL(None).fflush(None)  # bcc's C++ and libbpf print through stdio, clang does not
    output.seek(0)
    said = output.read().decode(errors="replace")
    if module is None:
        raise diagnostics.from_clang(said, _near_members(job.target))
    for name in job.program.defines:
        if match := re.search(rf"^(\S+?:\d+:\d+): warning: '{re.escape(name)}' macro redefined", said, re.MULTILINE):
            raise RefusedError(
                Reason.COMPILER,
                f"compile {match[1]}: the program defines {name} itself, so `defines:` would have no effect on it "
                f"(put #ifndef {name} and #endif around it)",
            )
    return module


def _near_members(target: Target) -> diagnostics.NearMembers:
    """Return a function that finds members with similar names in the target's structs; it finds none without BTF."""

    def near_members(tag: str, name: str) -> list[str]:
        try:
            with KernelBtf(target.btf_path) as btf:
                names = {member.name for member in btf.struct_members(tag)}
                return near(name, names, cutoff=0.6)  # names of members are short: "pid" for "pdi" is 0.67
        except (OSError, KeyError):
            return []

    return near_members


def _attach_nothing(_module: BPF) -> None:
    pass


def _module_of_needed_types(job: _Job) -> BPF | None:
    """Return bcc's module compiled with the needed types only; None where the program needs more of them, or has an
    error. Then it is compiled again with all types, because clang would also report the types that were left out."""
    with os.fdopen(os.memfd_create("types"), "w") as file:
        file.write(job.types)
        file.flush()
        flags = (*job.source.flags, f'-DEXPORTER_TYPES="/proc/self/fd/{file.fileno()}"')
        module = _bcc_module(job.text, flags)
        ctypes.CDLL(None).fflush(None)
    return module


def _bcc_module(text: str, flags: tuple[str, ...]) -> BPF | None:
    from bcc import BPF

    # bcc attaches functions by their prefixes while it compiles; the exporter attaches what the YAML lists.
    BPF._trace_autoload = _attach_nothing
    try:
        return BPF(text=text.encode(), cflags=list(flags))
    except Exception:  # noqa: BLE001 (bcc raises a bare Exception; its cause is on the standard error)
        return None


def _artifact(job: _Job, module: BPF) -> Artifact:
    lib = _libbcc()
    tables = {}
    for index in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, index)
        tables[name.decode()] = lib.bpf_table_fd(module.module, name)
    btf, types, maps = _maps(tables, job.source)
    names = {descriptor: name for name, descriptor in tables.items()}
    functions = []
    for index in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, index)
        start = lib.bpf_function_start(module.module, name)
        code = ctypes.string_at(start, lib.bpf_function_size(module.module, name))
        functions.append(_function(name.decode(), code, names))
    if not functions:
        wanted = f"with {source.variant_macro(job.variant.name)}" if job.variant.name else "without a variant"
        raise RefusedError(
            Reason.COMPILER, f"compile {job.program.source}: no function to attach (all static, or none {wanted}?)"
        )
    return Artifact(
        key=job.cache_key.key(job.program.name, job.variant.name),
        program=job.program.name,
        variant=job.variant.name,
        cache_key=job.cache_key,
        bcc_version=bcc_version() or "",
        license=lib.bpf_module_license(module.module).decode(),
        maps=maps,
        functions=tuple(functions),
        btf=btf,
        btf_types=types,
        compile_seconds=0.0,  # the parent measures it
    )


def forbidden_calls(code: bytes) -> list[str]:
    """Return the names of the forbidden helpers that the program calls, each once."""
    return sorted(FORBIDDEN_HELPERS[number] for number in bpf_insn.helpers(code) & FORBIDDEN_HELPERS.keys())


def _function(name: str, code: bytes, map_names: dict[int, str]) -> Function:
    if calls := forbidden_calls(code):
        raise RefusedError(
            Reason.COMPILER,
            f"compile function {name}: calls {', '.join(calls)}, which changes what it observes (refused; take it out)",
        )
    # bcc puts the data of a C text into the memory of this process, and its address into the code.
    memory = mappings.mapped_ranges()
    if any(address in span for address in bpf_insn.constants(code) for span in memory):
        raise RefusedError(
            Reason.COMPILER,
            f"compile function {name}: uses a variable of the file, a table of constants or a text in quotes, and none "
            "of them gets into the kernel (a map for what changes, `defines:` for what does not, switch for a table, "
            'char name[] = "text" inside the function)',
        )
    if bpf_insn.has_subprograms(code):
        raise RefusedError(
            Reason.COMPILER, f"compile function {name}: calls a function that is not inlined (declare it static inline)"
        )
    return Function(name, *bpf_insn.relocatable(code, map_names))


def _maps(
    tables: dict[str, int], assembled: source.Source
) -> tuple[bytes, dict[str, tuple[int, int]], tuple[Map, ...]]:
    """Return (raw BTF, type ids by map, definitions) of the maps that bcc created while compiling, asked of the
    kernel."""
    raw, blob = b"", None
    types: dict[str, tuple[int, int]] = {}
    maps = []
    for name, descriptor in sorted(tables.items()):
        info = bpf.map_info(descriptor)
        key = value = None
        if info.btf_id:
            if blob is None:
                raw = _btf(info.btf_id)
                blob = Blob(raw)
            types[name] = (info.btf_key_type_id, info.btf_value_type_id)
            key, value = (blob.layout(type_id) if type_id else None for type_id in types[name])
        indices = [names.index(name) if name in names else None for names in (assembled.lost, assembled.drained)]
        maps.append(
            Map(name, info.type, info.key_size, info.value_size, info.max_entries, info.map_flags, key, value, *indices)
        )
    return raw, types, tuple(maps)


def _btf(btf_id: int) -> bytes:
    descriptor = btf_objects.by_id(btf_id)
    try:
        return btf_objects.read(descriptor)
    finally:
        os.close(descriptor)


def _libbcc() -> Any:
    """Return libbcc with the prototypes that bcc's Python module lacks."""
    from bcc import lib

    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    return lib


# The names in programs/include/exporter.h.
assert (LOST_UPDATES, DRAIN_EPOCHS, ODD) == ("lost_updates", "drain_epochs", "_odd")
