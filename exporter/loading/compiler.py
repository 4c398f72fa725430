"""One variant of a program -> an artifact, by bcc, which does nothing else here. The only module that imports bcc.

bcc comes with LLVM (150 MB), changes the working directory, prints to the standard streams and cleans up in atexit:
call `compile_variant` in a child that ends with os._exit(). Importing this module imports none of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from exporter.config import model
from exporter.kernel import bpf
from exporter.kernel.btf import KernelBtf
from exporter.loading import artifact, bytecode, diagnostics, guard, headers, lint, source
from exporter.loading.artifact import Artifact, Function
from exporter.loading.diagnostics import CompileError
from exporter.loading.layout import Blob
from exporter.loading.target import Target
from exporter.program import LOST_UPDATES, Map, Reason

if TYPE_CHECKING:
    from bcc import BPF

__all__ = ["CompileError", "Target", "bcc_version", "compile_in_child", "compile_variant"]

# What bcc's ARCH variable takes: it selects triple, registers and PT_REGS macros. Unset it would be this host's.
_BCC_ARCH = {"x86_64": "x86", "aarch64": "arm64"}

_FLAGS = (
    "-fms-extensions",  # 7.x kernels are built so: BTF has `struct socket_alloc;` as an anonymous member
    "-Wno-microsoft",
    "-Werror=missing-declarations",  # "declaration does not declare anything": such a member is dropped, offsets shift
    "-Werror=implicit-function-declaration",  # no such helper; else the verifier says so, obscurely
    "-Wno-macro-redefined",  # our number macros beside bcc's; one of `defines` is looked for by name
)


def bcc_version() -> str | None:
    """The installed bcc's version, read from its file without importing it; None if there is no bcc."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:  # none, or just a directory called bcc
        return None
    try:
        match = re.search(r"__version__ *= *['\"]([^'\"]+)", (Path(spec.origin).parent / "version.py").read_text())
    except OSError:
        return None
    return match[1] if match else None


def compile_variant(
    program: model.Program,
    variant: model.Variant,
    target: Target,
    header_text: str,
    trees: Path | None = None,
) -> Artifact:
    """Compiles one variant for a kernel, this host's or another's.

    header_text  of programs/include/exporter.h
    trees        where header trees are kept (Cache.headers); None makes one for this call

    Raises CompileError with the reason and a text for people, "compile FILE:LINE:COLUMN: cause (hint)".
    """
    began = time.monotonic()
    if target.arch not in _BCC_ARCH:
        raise CompileError(Reason.UNSUPPORTED, f"compile for {target.arch}: only {' and '.join(_BCC_ARCH)} are known")
    if found := lint.findings(program):
        raise CompileError(Reason.COMPILER, "\n".join(f"compile {line}" for line in found))
    _refuse_foreign_tracepoint_formats(program, target)
    if bcc_version() is None:
        raise CompileError(
            Reason.BCC, "compile: bcc is not installed (Debian and Ubuntu: apt-get install python3-bpfcc)"
        )
    try:
        text = source.assemble(program, variant, header_text)
        with _tree(target, trees) as tree:
            if tree:
                headers.add_included(tree, program.text)
                guarded = text.text + _guard(program, target, tree)
            else:
                guarded = text.text
            module = _compile(program, target, guarded, (*_FLAGS, *text.flags), tree)
            return _artifact(program, variant, target, header_text, module, text.lost, began)
    except source.SourceError as error:
        raise CompileError(Reason.COMPILER, f"compile {error}") from error
    except headers.HeadersError as error:
        raise CompileError(Reason.COMPILER, str(error)) from error


def compile_in_child(
    program: model.Program,
    variant: model.Variant,
    target: Target,
    header_text: str,
    trees: Path | None = None,
) -> Artifact:
    """`compile_variant` in a child, for a process that must stay free of LLVM (`check`, `compile`, tests).

    Raises the same CompileError, and one with Reason.KILLED where the child did not live to answer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with open(writing, "w") as pipe:
            try:
                pipe.write("artifact" + artifact.dumps(compile_variant(program, variant, target, header_text, trees)))
            except CompileError as error:
                pipe.write(f"error {error.reason} {error.text}")
            except BaseException as error:  # noqa: BLE001 (the child has no other way to say it)
                pipe.write(f"error {Reason.INTERNAL} compile: {error!r}")
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if answer.startswith("artifact"):
        return artifact.loads(answer.removeprefix("artifact"))
    word, _, rest = answer.partition(" ")
    if word == "error":
        reason, _, text = rest.partition(" ")
        raise CompileError(Reason(reason), text)
    ended = os.waitstatus_to_exitcode(status)
    raise CompileError(Reason.KILLED, f"compile: the compiler ended with {ended} (negative: a signal; out of memory?)")


@contextmanager
def _tree(target: Target, trees: Path | None) -> Iterator[Path | None]:
    if trees:
        yield headers.source_tree(target, trees)
        return
    with tempfile.TemporaryDirectory(prefix="bpf-exporter-") as directory:
        yield headers.source_tree(target, Path(directory))


def _guard(program: model.Program, target: Target, tree: Path) -> str:
    several = guard.duplicates((tree / "include/vmlinux.h").read_text())
    with KernelBtf(target.btf_path) as btf:
        return guard.asserts(source.without_comments(program.text), btf, several)


def _refuse_foreign_tracepoint_formats(program: model.Program, target: Target) -> None:
    match = re.search(r"\bTRACEPOINT_PROBE\s*\(", source.without_comments(program.text))
    if match and target.release != os.uname().release:
        where = source.position(program, match.start())
        raise CompileError(
            Reason.UNSUPPORTED,
            f"compile {where}: TRACEPOINT_PROBE() takes the format from the running kernel, not from {target.release} "
            "(write a raw tracepoint, or a function that takes struct trace_event_raw_EVENT *)",
        )


def _compile(program: model.Program, target: Target, text: str, flags: tuple[str, ...], tree: Path | None) -> BPF:
    """bcc's module. CompileError with what clang said first."""
    os.environ["ARCH"] = _BCC_ARCH[target.arch]
    if tree:
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    else:
        os.environ.pop("BCC_KERNEL_SOURCE", None)
    with tempfile.TemporaryFile() as output:
        with _standard_streams_to(output):
            module = _bcc_module(text, flags)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if module is None:
        raise diagnostics.from_clang(said)
    for name in program.defines:
        if match := re.search(rf"^(\S+?:\d+:\d+): warning: '{re.escape(name)}' macro redefined", said, re.MULTILINE):
            raise CompileError(
                Reason.COMPILER,
                f"compile {match[1]}: the program defines {name} itself, so `defines:` would have no effect on it "
                f"(put #ifndef {name} and #endif around it)",
            )
    return module


def _attach_nothing(_module: BPF) -> None:
    pass


def _bcc_module(text: str, flags: tuple[str, ...]) -> BPF | None:
    from bcc import BPF

    # bcc attaches functions by their prefixes while it compiles; only the points that the YAML lists are ours.
    BPF._trace_autoload = _attach_nothing
    try:
        return BPF(text=text.encode(), cflags=list(flags))
    except Exception:  # noqa: BLE001 (bcc raises Exception itself, with no cause in it: that is on the standard error)
        return None


@contextmanager
def _standard_streams_to(file: IO[bytes]) -> Iterator[None]:
    """File descriptors 1 and 2 go to `file`: clang writes to them directly."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, _ in saved:
            os.dup2(file.fileno(), number)
        yield
    finally:
        flush(None)
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)


def _artifact(
    program: model.Program,
    variant: model.Variant,
    target: Target,
    header_text: str,
    module: BPF,
    lost: tuple[str, ...],
    began: float,
) -> Artifact:
    lib = _libbcc()
    tables = {}
    for index in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, index)
        tables[name.decode()] = lib.bpf_table_fd(module.module, name)
    btf, types, maps = _maps(tables, lost)
    names = {descriptor: name for name, descriptor in tables.items()}
    functions = []
    for index in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, index)
        start = lib.bpf_function_start(module.module, name)
        code = ctypes.string_at(start, lib.bpf_function_size(module.module, name))
        functions.append(_function(name.decode(), code, names))
    if not functions:
        raise CompileError(Reason.COMPILER, f"compile {program.source}: no function (static ones cannot be attached)")
    return Artifact(
        key=artifact.key(program, variant, target, header_text),
        program=program.name,
        variant=variant.name,
        arch=target.arch,
        release=target.release,
        bcc_version=bcc_version() or "",
        license=lib.bpf_module_license(module.module).decode(),
        maps=maps,
        functions=tuple(functions),
        btf=btf,
        btf_types=types,
        compile_seconds=time.monotonic() - began,
    )


def _function(name: str, code: bytes, map_names: dict[int, str]) -> Function:
    if calls := bytecode.forbidden_calls(code):
        raise CompileError(
            Reason.COMPILER,
            f"compile function {name}: calls {', '.join(calls)}, which changes what it observes (refused; take it out)",
        )
    if bytecode.has_subprograms(code):
        raise CompileError(
            Reason.COMPILER, f"compile function {name}: calls a function that is not inlined (declare it static inline)"
        )
    return Function(name, *bytecode.relocatable(code, map_names))


def _maps(tables: dict[str, int], lost: tuple[str, ...]) -> tuple[bytes, dict[str, tuple[int, int]], tuple[Map, ...]]:
    """(raw BTF, type ids by map, definitions) of the maps that bcc made while compiling: the kernel knows them best."""
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
        index = lost.index(name) if name in lost else None
        maps.append(
            Map(name, info.type, info.key_size, info.value_size, info.max_entries, info.flags, key, value, index)
        )
    return raw, types, tuple(maps)


def _btf(btf_id: int) -> bytes:
    descriptor = bpf.btf_fd_by_id(btf_id)
    try:
        return bpf.btf_raw(descriptor)
    finally:
        os.close(descriptor)


def _libbcc() -> Any:
    """libbcc with the prototypes that bcc's Python leaves out."""
    from bcc import lib

    lib.bpf_num_tables.restype, lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    return lib


assert LOST_UPDATES == "lost_updates"  # the name that programs/include/exporter.h gives it
