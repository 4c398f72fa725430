"""USDT probes of a program compiled for the test: arguments from registers, memory and constants, semaphores."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.kernel import bpf
from exporter.kernel.features import Kernel
from exporter.loading.attaching import kinds, usdt
from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Descriptors, Program, Reason, State
from exporter.spec import AttachSpec, ProgramSpec
from tests.kernel import shop
from tests.kernel.loaded import Load
from tests.kernel.programs import point, spec
from tests.kernel.shop import SALES


@pytest.fixture(scope="session", params=["-O2", "-O0", "-O2 -no-pie"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each way of compiling has the arguments elsewhere: registers, the stack, a variable by its address."""
    return shop.build(tmp_path_factory.mktemp("shop"), "shop", "-g", *request.param.split())


@pytest.fixture
def load(shared_host: Host) -> Iterator[Load]:
    """Load by the loader's own way, which knows the probes; what it opened is closed after the test."""
    opened: list[Descriptors] = []

    def compile_and_load(program: ProgramSpec) -> tuple[Program, Descriptors]:
        outcome, descriptors = load_program(program, shared_host)
        opened.append(descriptors)
        return outcome, descriptors

    yield compile_and_load
    for descriptors in opened:
        descriptors.close()


def sales(descriptors: Descriptors) -> dict[tuple[str, int, int], int]:
    """(name, price, discount) -> how many."""
    fd, found, key = descriptors.readonly["sales"], {}, None
    while (key := bpf.map_next_key(fd, key, 32)) is not None:
        price, discount, name = struct.unpack("=qq16s", key)
        value = bpf.map_lookup(fd, key, 8)
        assert value
        found[name.rstrip(b"\0").decode(), price, discount] = struct.unpack("=Q", value)[0]
    return found


def test_arguments_of_every_place_are_read(load: Load, program: Path) -> None:
    with shop.running(program) as running:
        outcome, descriptors = load(spec(SALES, [point("usdt", f"{program}:shop:sold", "on_sold")]))
        assert outcome.state is State.RUNNING, outcome.text
        for _ in range(23):
            running.do("sell 2 apples")
        running.do("sell 32767 pears")
        for _ in range(5):
            running.do("sell quinces")  # another place, its count a constant
        assert sales(descriptors) == {
            ("apples", 2000, -3): 46,
            ("pears", 32767000, -3): 32767,
            ("quinces", -1, -3): 5,
        }


def test_semaphore_is_raised_while_attached_and_in_processes_that_start_later(load: Load, program: Path) -> None:
    with shop.running(program) as early:
        assert early.do("listeners") == "0"
        early.do("sell 3 plums")
        _, descriptors = load(spec(SALES, [point("usdt", f"{program}:shop:sold", "on_sold")]))
        assert int(early.do("listeners")) > 0
        with shop.running(program) as late:
            assert int(late.do("listeners")) > 0
            late.do("sell 4 plums")
        assert sales(descriptors) == {("plums", 4000, -3): 4}
        descriptors.close()
        assert early.do("listeners") == "0"


def test_the_uprobe_pmu_raises_the_semaphore_too(program: Path) -> None:
    code = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    fd = bpf.prog_load(bpf.BPF_PROG_TYPE_KPROBE, code, "GPL", "empty")
    with shop.running(program) as running:
        try:
            hold = kinds.attach(Kernel(), kinds.AttachPoint("usdt", f"{program}:shop:sold", "empty"), fd)
            assert len(hold.fds) == 2, "one for each place"
            assert int(running.do("listeners")) > 0
            for held in hold.fds:
                os.close(held)
            assert running.do("listeners") == "0"
        finally:
            os.close(fd)


def test_artifact_belongs_to_the_build_of_the_file(load: Load, tmp_path: Path) -> None:
    path = shop.build(tmp_path, "shop", "-O2")
    at = point("usdt", f"{path}:shop:sold", "on_sold")
    text = SALES + f"// {tmp_path}"
    assert not load(spec(text, [at]))[0].from_cache
    assert load(spec(text, [at]))[0].from_cache
    shutil.move(shop.build(tmp_path, "shop.new", "-O0"), path)
    with shop.running(path) as running:
        outcome, descriptors = load(spec(text, [at]))
        assert not outcome.from_cache
        running.do("sell 2 apples")
        assert sales(descriptors) == {("apples", 2000, -3): 2}


def test_one_function_serves_two_probes_of_two_files(load: Load, program: Path, tmp_path: Path) -> None:
    other = shop.build(tmp_path, "other", "-O1", "-fno-omit-frame-pointer")
    at = AttachSpec(kind="usdt", targets=[f"{program}:shop:sold", f"{other}:shop:sold"], function="on_sold")
    outcome, descriptors = load(spec(SALES, [at]))
    assert outcome.state is State.RUNNING, outcome.text
    with shop.running(program) as one, shop.running(other) as two:
        one.do("sell 2 apples")
        two.do("sell 3 apples")
    assert sales(descriptors) == {("apples", 2000, -3): 2, ("apples", 3000, -3): 3}


def test_an_optional_probe_that_is_absent_costs_nothing_but_itself(load: Load, program: Path) -> None:
    points = [
        point("usdt", "/nowhere/shop:shop:sold", "on_sold", optional=True),
        point("raw_tracepoint", "sys_enter", "on_raw"),
    ]
    outcome, _ = load(spec(SALES + "int on_raw(void *ctx) { return 0; }", points))
    assert outcome.state is State.RUNNING, outcome.text
    assert [a.attached for a in outcome.attachments] == [False, True]
    assert "no file /nowhere/shop (write its absolute path)" in outcome.attachments[0].text


@pytest.mark.parametrize(
    ("target", "text", "reason", "said"),
    [
        ("shop:sol", SALES, Reason.MISSING, "no probe shop:sol in PROGRAM (near: shop:sold)"),
        ("qq:zzzzzzzz", SALES, Reason.MISSING, "(it has shop:closed, shop:sold, shop:weighed)"),
        ("shop:closed", SALES, Reason.UNSUPPORTED, "on_sold reads argument 1, and the probe has none"),
        ("shop:weighed", SALES, Reason.UNSUPPORTED, "is a floating number"),
        ("bash", SALES, Reason.MISSING, "(it has none: built without sys/sdt.h, or --enable-dtrace and the like)"),
    ],
)
def test_what_cannot_be_read_is_told(
    load: Load, program: Path, target: str, text: str, reason: Reason, said: str
) -> None:
    where = f"{program}:{target}" if ":" in target else "/bin/true:a:b"
    outcome, _ = load(spec(text, [point("usdt", where, "on_sold")]))
    assert (outcome.state, outcome.reason) == (State.FAILED, reason), outcome.text
    assert said.replace("PROGRAM", str(program)) in outcome.text


def test_every_place_is_found_with_its_semaphore(program: Path) -> None:
    places = usdt.locate(Kernel(), kinds.AttachPoint("usdt", f"{program}:shop:sold", "f"))
    assert len(places) == 2
    assert len({place.offset for place in places}) == 2
    assert all(place.semaphore for place in places)
