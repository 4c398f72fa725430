"""Globs, lists, functions in modules and files, samples, on each kernel: exact, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.matrix.examine import Examined
from tests.matrix.guest.places import EVENTS, MORE
from tests.matrix.kernels import NO_TRAMPOLINES, TESTED

Matrix = Callable[[str], Examined]

KPROBE_MULTI = ("6.12", "7.2")  # Debian's 6.1 has no CONFIG_FPROBE
UPROBE_MULTI = ("6.12", "7.2", "arm64-6.12")  # since 6.6
MODULE_BTF = ("6.1", "6.12", "7.2", "arm64-6.1", "arm64-6.12")  # since 5.11

pytestmark = pytest.mark.parametrize("series", TESTED)


def running(on: Matrix, series: str, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = on(series).value(f"place/{variant}")
    assert (found["state"], found["text"]) == ("running", ""), found["text"]
    return found


def unsupported(on: Matrix, series: str, variant: str) -> str:
    """Why this kernel cannot attach it."""
    found = on(series).value(f"place/{variant}")
    assert (found["state"], found["reason"]) == ("failed", "unsupported"), found["text"]
    return str(found["text"])


@pytest.mark.parametrize("variant", ["kprobe_glob", "kretprobe_glob", "kprobe_list", "fentry_glob", "tracepoint_glob"])
def test_two_functions_count_each_call_once(on: Matrix, series: str, variant: str) -> None:
    if series in NO_TRAMPOLINES and variant == "fentry_glob":
        assert "not supported by this kernel (ENOTSUPP)" in unsupported(on, series, variant)
        return
    found = running(on, series, variant)
    assert (found["places"], found["calls"]) == (2, EVENTS + MORE)
    multi = variant.startswith("k") and series in KPROBE_MULTI
    assert found["links"] == (1 if multi else 2)


def test_globs_and_a_name_of_one_entry_hang_on_one_link_where_there_is_kprobe_multi(on: Matrix, series: str) -> None:
    found = running(on, series, "kprobe_many")
    assert found["places"] > 3
    assert found["calls"] >= EVENTS
    assert found["links"] == (1 if series in KPROBE_MULTI else found["places"])


@pytest.mark.parametrize("variant", ["kprobe_module", "module_glob"])
def test_function_of_a_module_counts_each_call(on: Matrix, series: str, variant: str) -> None:
    assert running(on, series, variant)["calls"] == EVENTS


@pytest.mark.parametrize("variant", ["fentry_module", "fentry_any_module"])
def test_function_of_a_module_by_its_btf(on: Matrix, series: str, variant: str) -> None:
    if series in MODULE_BTF and series not in NO_TRAMPOLINES:
        assert running(on, series, variant)["calls"] == EVENTS
        return
    lacking = "module dummy has no BTF" if series not in MODULE_BTF else "not supported by this kernel (ENOTSUPP)"
    assert lacking in unsupported(on, series, variant)


@pytest.mark.parametrize("variant", ["uprobe", "uretprobe"])
def test_function_of_libc_counts_each_call(on: Matrix, series: str, variant: str) -> None:
    assert running(on, series, variant)["calls"] == EVENTS


def test_usdt_probe_counts_at_both_its_places_and_lowers_its_semaphore_at_the_end(on: Matrix, series: str) -> None:
    found = running(on, series, "usdt")
    assert found["calls"] == EVENTS
    assert (found["before"], found["after"]) == ("0", "0")
    assert found["links"] == (1 if series in UPROBE_MULTI else 2)


def test_a_cpu_that_was_offline_is_sampled_again_after_a_look(on: Matrix, series: str) -> None:
    found = running(on, series, "perf_event")
    assert found["cpus"] == [0, 1]
    assert found["offline"] == [0]
    assert found["first"] > 0
    assert found["dead"] == 0, "the kernel put the event back: the watch is not needed"
    assert found["back"] > 0
    assert found["links"] == 2


def test_types_of_a_module_are_the_modules_own(on: Matrix, series: str) -> None:
    found = on(series).value("module_types")
    if series in MODULE_BTF:
        assert (found["state"], found["text"]) == ("running", ""), found["text"]
        assert found["seen"] == found["expected"]
        return
    assert found["state"] == "skipped"
    assert "member veth_priv.peer (not in this kernel's BTF, nor in that of veth and dummy)" in found["text"]
