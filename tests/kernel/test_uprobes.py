"""Probes on functions of programs and libraries: exact, in processes old and new, and gone when they are closed."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel import bpf, bpf_stats, libraries, links
from exporter.kernel.bpf_attr import GetId
from exporter.kernel.elf import ElfFile
from exporter.kernel.features import Kernel
from exporter.loading.attaching import kinds, uprobe
from exporter.loading.refusal import RefusedError
from exporter.program import Descriptors, Reason, State
from exporter.spec import AttachSpec
from tests.kernel import shop
from tests.kernel.loaded import Load, own_descriptors
from tests.kernel.programs import point, spec

COUNT_CALLS = """
BPF_HASH(calls, u32, u64, 10240);
BPF_HASH(sums, u32, u64, 10240);

static inline int count(u64 amount)
{
	u32 process = bpf_get_current_pid_tgid() >> 32;
	u64 zero = 0;

	add(calls.lookup_or_try_init(&process, &zero), 1, LOST(calls));
	add(sums.lookup_or_try_init(&process, &zero), amount, LOST(sums));
	return 0;
}

int on_entry(struct pt_regs *ctx) { return count((u32)PT_REGS_PARM1(ctx)); }
int on_return(struct pt_regs *ctx) { return count((u32)PT_REGS_RC(ctx)); }
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.build(tmp_path_factory.mktemp("shop"), "shop", "-g")


@pytest.fixture
def running(program: Path) -> Iterator[shop.Shop]:
    with shop.running(program) as process:
        yield process


def counted(descriptors: Descriptors, pid: int) -> tuple[int, int]:
    """(calls, sum of the values seen) of a process."""
    found = [bpf.map_lookup(descriptors.readonly[name], struct.pack("=I", pid), 8) for name in ("calls", "sums")]
    return tuple(struct.unpack("=Q", value)[0] if value else 0 for value in found)  # type: ignore[return-value]


@pytest.mark.parametrize("symbol", ["greet", "count_stock"], ids=["global", "static"])
def test_entry_counts_every_call_with_its_argument(load: Load, program: Path, running: shop.Shop, symbol: str) -> None:
    word = {"greet": "greet", "count_stock": "stock"}[symbol]
    outcome, descriptors = load(spec(COUNT_CALLS, [point("uprobe", f"{program}:{symbol}", "on_entry")]))
    assert outcome.state is State.RUNNING, outcome.text
    for _ in range(23):
        running.do(f"{word} 7")
    assert counted(descriptors, running.pid) == (23, 23 * 7)


def test_return_counts_every_call_with_its_result(load: Load, program: Path, running: shop.Shop) -> None:
    outcome, descriptors = load(spec(COUNT_CALLS, [point("uretprobe", f"{program}:greet", "on_return")]))
    assert outcome.state is State.RUNNING, outcome.text
    for _ in range(23):
        running.do("greet 7")
    assert counted(descriptors, running.pid) == (23, 23 * 8)


def test_a_process_that_starts_later_is_counted_too(load: Load, program: Path) -> None:
    _, descriptors = load(spec(COUNT_CALLS, [point("uprobe", f"{program}:greet", "on_entry")]))
    with shop.running(program) as later:
        for _ in range(23):
            later.do("greet 1")
        assert counted(descriptors, later.pid) == (23, 23)


def test_an_offset_in_the_file_is_the_same_place_as_its_symbol(load: Load, program: Path, running: shop.Shop) -> None:
    with ElfFile(program) as elf:
        offset = elf.offset(elf.functions("greet")[0].address)
    outcome, descriptors = load(spec(COUNT_CALLS, [point("uprobe", f"{program}:0x{offset:x}", "on_entry")]))
    assert outcome.state is State.RUNNING, outcome.text
    running.do("greet 7")
    assert counted(descriptors, running.pid) == (1, 7)


def test_a_library_is_found_by_name_and_probed_in_this_process(load: Load) -> None:
    outcome, descriptors = load(spec(COUNT_CALLS, [point("uprobe", "c:getppid", "on_entry")]))
    assert outcome.state is State.RUNNING, outcome.text
    before = counted(descriptors, os.getpid())[0]
    for _ in range(23):
        os.getppid()
    assert counted(descriptors, os.getpid())[0] - before == 23


def test_every_function_that_a_glob_names_is_probed_once(load: Load, program: Path, running: shop.Shop) -> None:
    both = AttachSpec(
        kind="uprobe", targets=[f"{program}:gre?t", f"{program}:*o*_sto*", f"{program}:greet"], function="on_entry"
    )
    outcome, descriptors = load(spec(COUNT_CALLS, [both]))
    assert outcome.state is State.RUNNING, outcome.text
    assert [a.sites for a in outcome.attachments] == [1, 1, 0], "greet hangs where the first glob put it"
    running.do("greet 3")
    running.do("stock 4")
    assert counted(descriptors, running.pid) == (2, 7)


def test_closing_takes_the_probes_out_of_the_program(load: Load, program: Path, running: shop.Shop) -> None:
    _, descriptors = load(spec(COUNT_CALLS, [point("uprobe", f"{program}:greet", "on_entry")]))
    running.do("greet 1")
    descriptors.close()
    assert own_descriptors() == []
    assert running.do("greet 1") == "2"


def test_the_uprobe_pmu_does_what_the_link_does(program: Path, running: shop.Shop) -> None:
    """What kernels before 6.6 get, without a program of bcc's: the kernel counts the runs of an empty one."""
    kernel = Kernel()
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    fd = bpf.prog_load(bpf.BPF_PROG_TYPE_KPROBE, code, "GPL", "empty")
    stats = bpf.call(32, GetId(id=0), "BPF_ENABLE_STATS", "")
    try:
        hold = kinds.attach(kernel, kinds.AttachPoint("uprobe", f"{program}:greet", "empty"), fd)
        for _ in range(23):
            running.do("greet 1")
        assert bpf_stats.read(fd).runs == 23
        for held in hold.fds:
            os.close(held)
    finally:
        os.close(stats)
        os.close(fd)


def test_uprobe_events_is_never_written(load: Load, program: Path) -> None:
    events = Path("/sys/kernel/tracing/uprobe_events")
    before = events.read_text()
    load(spec(COUNT_CALLS, [point("uprobe", f"{program}:greet", "on_entry")]))
    assert events.read_text() == before


@pytest.mark.parametrize(
    ("target", "reason", "text"),
    [
        ("PROGRAM:gret", Reason.MISSING, "no function gret in PROGRAM (near: greet)"),
        ("PROGRAM:frobnicate", Reason.MISSING, "no function frobnicate in PROGRAM (C++ and Rust names"),
        ("PROGRAM:puts", Reason.MISSING, "no function puts in PROGRAM (it is imported: name the library that has it)"),
        ("PROGRAM:0x10", Reason.MISSING, "0x10 is not in the code of PROGRAM (an offset in the file is meant"),
        ("/nowhere/at/all:main", Reason.MISSING, "no file /nowhere/at/all (write its absolute path)"),
        ("qqqq:main", Reason.MISSING, "no file qqqq in ld.so's cache and directories, nor a program in /usr/bin"),
        ("c:memcpy", Reason.UNSUPPORTED, "memcpy only chooses an implementation for this CPU, once"),
        ("c:pthread_create@GLIBC_9", Reason.MISSING, "no version GLIBC_9 of pthread_create in THE_C (it has GLIBC_2."),
        ("PROGRAM:qq*", Reason.MISSING, "no function of PROGRAM matches (see `nm -D`)"),
        ("c:*", Reason.LIMIT, "targets match, and 200 is the most (write a narrower glob, or several)"),
        ("/etc/passwd:main", Reason.UNSUPPORTED, "/etc/passwd is no ELF file (damaged or no program:"),
        ("SCRIPT:main", Reason.UNSUPPORTED, "is no ELF file (a script: name the program that runs it)"),
    ],
)
def test_what_cannot_be_probed_is_told_with_what_would_work(
    load: Load, program: Path, tmp_path: Path, target: str, reason: Reason, text: str
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    libc = libraries.find("c")
    for name, path in (("PROGRAM", program), ("THE_C", libc), ("SCRIPT", script)):
        target, text = target.replace(name, str(path)), text.replace(name, str(path))
    outcome, descriptors = load(spec(COUNT_CALLS, [point("uprobe", target, "on_entry")]))
    assert (outcome.state, outcome.reason) == (State.FAILED, reason), outcome.text
    assert outcome.text.startswith(f"test: attach uprobe/{target}: ")
    assert text in outcome.text
    assert descriptors == Descriptors()


def test_a_file_that_may_not_be_looked_at_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        found = libraries.find(f"{closed}/program")
        assert found == closed / "program"
        with pytest.raises(PermissionError):
            ElfFile(found, "x86_64")
    finally:
        os.seteuid(0)


def test_a_stripped_program_says_so(load: Load, program: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-s", "-o", stripped, program], check=True)
    outcome, _ = load(spec(COUNT_CALLS, [point("uprobe", f"{stripped}:greet", "on_entry")]))
    assert outcome.reason is Reason.MISSING
    assert "the file is stripped: install its debug symbols, or write FILE:0xOFFSET" in outcome.text


def test_code_of_another_machine_is_refused(tmp_path: Path, program: Path) -> None:
    foreign = tmp_path / "foreign"
    image = bytearray(program.read_bytes())
    image[18:20] = struct.pack("<H", 40)  # e_machine: EM_ARM
    foreign.write_bytes(image)
    with pytest.raises(RefusedError, match="is 64-bit code for EM_ARM, this kernel runs"):
        uprobe.locate(Kernel(), kinds.AttachPoint("uprobe", f"{foreign}:greet", "f"))


def test_one_link_holds_many_functions_of_a_file(load: Load, program: Path) -> None:
    targets = [f"{program}:{name}" for name in ("greet", "sell", "sell_one")]
    at = AttachSpec(kind="uprobe", targets=targets, function="on_entry")
    outcome, descriptors = load(spec(COUNT_CALLS, [at]))
    assert outcome.state is State.RUNNING, outcome.text
    assert len(descriptors.links) == (1 if has_uprobe_multi() else 3)


def has_uprobe_multi() -> bool:
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    fd = bpf.prog_load(bpf.BPF_PROG_TYPE_KPROBE, code, "GPL", "empty", bpf.BPF_TRACE_UPROBE_MULTI)
    libc = libraries.find("c")
    assert libc
    with ElfFile(libc) as elf:
        offset = elf.offset(elf.functions("getppid")[0].address)
    try:
        os.close(links.uprobe_multi(fd, libc, [offset or 0], [0], at_return=False))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
