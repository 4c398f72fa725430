"""What the table of the matrix says of a program on a kernel."""

from __future__ import annotations

from typing import Any

import pytest

from tests.matrix import table
from tests.matrix.examine import Examined, Step
from tests.matrix.guest.programs import REQUESTS

ROW = "load/programs/udp_drops"
RIGHT, OFF_BY_ONE = {"ipv4": [23, 23, 23]}, {"ipv4": [23, 23, 23], "ipv6": [23, 22, 23]}


def loaded(counted: dict[str, Any] | None = None, **more: Any) -> Step:
    value: dict[str, Any] = {
        "state": "running",
        "variant": "fexit",
        "reason": "",
        "text": "",
        "attempts": [],
        "counted": counted,
    }
    return Step(value | more, "", 1.0)


@pytest.mark.parametrize(
    ("step", "cell"),
    [
        (loaded(RIGHT), "**fexit**"),
        (loaded(RIGHT, variant=""), "**runs**"),
        (loaded(OFF_BY_ONE), "fexit: WRONG"),
        (loaded(), "fexit"),
        (loaded(state="skipped", reason="requires"), "skipped: requires"),
        (Step(None, "Traceback\nOSError: no loop device", 1.0), "BROKEN"),
    ],
)
def test_bold_is_what_was_compared_and_agrees(step: Step, cell: str) -> None:
    assert table.cell(Examined("6.1", steps={ROW: step}), ROW) == cell


def test_check_that_did_not_run_is_broken_only_where_the_machine_failed() -> None:
    assert table.cell(Examined("6.1"), ROW) == "-"
    assert table.cell(Examined("6.1", failure="linux 6.1: the kernel panicked"), ROW) == "BROKEN"


def test_numbers_of_a_program_with_a_check_of_its_own_are_compared_too() -> None:
    row, own = "load/programs/tcp_rst", "program/tcp_rst/fexit"
    all_of_them = {"sent": 299, "out_resets": 299, "ipv4": {"response": {"0.016": 3.0, "0.032": REQUESTS - 3.0}}}
    for found, cell in (
        (all_of_them, "**fexit**"),
        (all_of_them | {"sent": 298}, "fexit"),
        (all_of_them | {"ipv4": {"response": {"0.032": REQUESTS - 1.0}}}, "fexit"),
        (all_of_them | {"ipv6": {"made": {"calls": 5}, "counted": {"calls": 4}}}, "fexit"),
    ):
        counts = Step({"state": "running", **found}, "", 1.0)
        assert table.cell(Examined("6.1", steps={row: loaded(), own: counts}), row) == cell


def test_a_program_is_counted_that_one_kernel_counted_and_the_others_are_named_with_the_reason() -> None:
    rows = {ROW: loaded(RIGHT), "load/peer/llcstat": loaded(state="skipped", reason="unsupported", text="llcstat: no")}
    text = table.markdown([Examined("5.10", steps={ROW: loaded(OFF_BY_ONE)}), Examined("6.1", steps=rows)])
    assert "| programs/udp_drops | fexit: WRONG | **fexit** |" in text
    assert "- programs: 1 of 1 were counted on one kernel at least.\n" in text
    assert (
        "- peer: 0 of 1 were counted on one kernel at least, not peer/llcstat (needs the counters of a real CPU)"
        in text
    )
    assert "- peer/llcstat, 6.1: llcstat: no\n" in text
