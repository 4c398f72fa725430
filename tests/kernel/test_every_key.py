"""Every key of the configuration at work: tests/kernel/every_key runs, and what each key does is seen in /metrics.

What only another kernel has (kprobes, trampolines) is optional there and counted in tests/matrix.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from exporter.config import document
from tests.daemon import ROOT, Daemon, running
from tests.kernel.renames import rename
from tests.waiting import until

DIRECTORY = ROOT / "tests/kernel/every_key"
LATER = {
    ("MapOptionsDocument", "drain"),
}
WITHIN: dict[tuple[str, str], type[document.Document]] = {
    ("MainFile", "limits"): document.LimitsDocument,
    ("ProgramDocument", "requires"): document.RequiresDocument,
    ("VariantDocument", "requires"): document.RequiresDocument,
    ("ProgramDocument", "attach"): document.AttachDocument,
    ("VariantDocument", "attach"): document.AttachDocument,
    ("ProgramDocument", "variants"): document.VariantDocument,
    ("ProgramDocument", "metrics"): document.MetricDocument,
    ("UseDocument", "metrics"): document.MetricOverrideDocument,
    ("MetricDocument", "labels"): document.LabelDocument,
    ("MetricDocument", "buckets"): document.BucketsDocument,
}


def keys(written: Any, of: type[document.Document]) -> Iterator[tuple[str, str]]:
    """(document, key) of every key in what YAML holds."""
    for each in written if isinstance(written, list) else [written]:
        for key, value in each.items():
            yield of.__name__, key
            if key == "programs":
                for program in value:
                    yield from keys(program, document.UseDocument if "use" in program else document.ProgramDocument)
            elif key == "maps":
                yield from keys(list(value.values()), document.MapOptionsDocument)
            elif inner := WITHIN.get((of.__name__, key)):
                yield from keys(value, inner)


def test_every_key_is_there() -> None:
    files = [*DIRECTORY.glob("conf.d/*.yaml"), *DIRECTORY.glob("programs/*.yaml")]
    used = set(keys(yaml.safe_load((DIRECTORY / "main.yaml").read_text()), document.MainFile))
    for path in files:
        content = yaml.safe_load(path.read_text())
        used |= set(keys(content, document.IncludedFile if "programs" in content else document.ProgramDocument))
    documents = [d for d in vars(document).values() if isinstance(d, type) and issubclass(d, document.Document)]
    every = {(each.__name__, key) for each in documents for key in each.model_fields}
    assert every - used - LATER == set()


@pytest.fixture(scope="module")
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, listener: int) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("every_key") / "config"
    shutil.copytree(DIRECTORY, place)
    for path in [place, *place.rglob("*")]:  # as a checkout may have it, whatever umask says
        os.chown(path, 0, 0)
        path.chmod(0o755)
    with running(place / "main.yaml", place.parent) as started:
        started.wait_ready()
        rename(1)
        os.getppid()
        yield started


def state(daemon: Daemon, program: str) -> str:
    return next(
        dict(labels)["state"]
        for (name, labels), value in daemon.samples().items()
        if name == "bpf_exporter_program_state" and value and ("program", program) in labels
    )


def shown(daemon: Daemon, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(labels)): value for (n, labels), value in daemon.samples().items() if n == name}


def test_states_are_those_that_the_entries_ask_for(daemon: Daemon) -> None:
    wanted = {
        "shapes": "running", "steps_of_five": "running", "variants": "running", "kinds": "running",
        "switched_off": "disabled", "nothing_here": "skipped", "unmet": "skipped",
    }  # fmt: skip
    assert {program: state(daemon, program) for program in wanted} == wanted


def test_budgets_are_those_of_the_entries(daemon: Daemon) -> None:
    assert daemon.value("bpf_exporter_program_budget_ratio", program="shapes") == 50
    assert daemon.value("bpf_exporter_program_budget_ratio", program="steps_of_five") == 60


def test_values_are_scaled_reduced_and_labelled(daemon: Daemon) -> None:
    name = ("name", "abcdefghijklmnop")  # limits.label_length
    assert shown(daemon, "ebpf_key_seconds_total") == {
        (("kind", "plain"), name, ("op", "read")): 1,
        (("kind", "plain"), name, ("op", "write")): 2,
        (("kind", "plain"), name, ("op", "other_op")): 3,
    }
    assert [daemon.value(f"ebpf_key_{what}") for what in ("most", "least", "whole", "entries")] == [30, 10, 60, 3]
    folded = shown(daemon, "ebpf_key_folded")
    assert len(folded) == 2
    assert sum(folded.values()) == 6000
    assert (("op", "other"),) in folded
    assert shown(daemon, "ebpf_key_dropped") == {}


def test_maps_are_read_as_their_options_say(daemon: Daemon, listener: int) -> None:
    by_cpu = shown(daemon, "ebpf_key_cpu")
    assert {labels[0][0] for labels in by_cpu} == {"cpu"}
    assert set(by_cpu.values()) <= {0, 2}
    assert 2 in by_cpu.values()
    assert shown(daemon, "ebpf_key_sparse") == {(("at", "2"),): 3}
    assert daemon.value("ebpf_key_listeners", port=str(listener)) == 1
    assert daemon.value("bpf_exporter_metric_expired_series_total", metric="ebpf_key_seconds_total") == 0
    assert daemon.value("bpf_exporter_map_max_entries", map="by_op") == 64  # defines


def buckets(daemon: Daemon, name: str) -> list[float]:
    """Counts in the order of their bounds."""
    found = {dict(labels)["le"]: value for labels, value in shown(daemon, f"{name}_bucket").items()}
    return [found[bound] for bound in sorted(found, key=float)]


def test_histograms_of_every_kind(daemon: Daemon) -> None:
    bounds = sorted(float(dict(labels)["le"]) for labels in shown(daemon, "ebpf_key_linear_seconds_bucket"))
    assert bounds == pytest.approx([50e-6, 100e-6, 150e-6, float("inf")])
    assert buckets(daemon, "ebpf_key_linear_seconds") == [3, 6, 10, 21]
    assert daemon.value("ebpf_key_linear_seconds_sum") == pytest.approx(99e-6)
    assert buckets(daemon, "ebpf_key_exp2") == [1, 3, 6, 10, 15, 21]
    assert buckets(daemon, "ebpf_key_exp2zero") == [1, 3, 6, 10, 15, 21]
    assert daemon.value("ebpf_key_exp2zero_bucket", le="0.0") == 1
    assert buckets(daemon, "ebpf_key_fixed") == [1, 3, 6, 10, 15, 21]
    assert buckets(daemon, "ebpf_key_by_slot") == [1, 3, 3, 3, 3]
    assert daemon.value("ebpf_key_by_slot_sum") == 3
    assert buckets(daemon, "ebpf_key_by_bound") == [3, 6, 6]  # 7 is no bound: it counts in the next


def test_use_changes_what_it_names(daemon: Daemon) -> None:
    steps = shown(daemon, "ebpf_key_steps")
    assert sorted(steps.values()) == [5, 15]  # STEP, and the three that max_series folds
    assert steps[(("at", "other"),)] == 15
    assert shown(daemon, "ebpf_key_steps_unseen") == {}


def test_the_first_variant_whose_demands_hold_is_used(daemon: Daemon) -> None:
    assert daemon.value("bpf_exporter_program_info", program="variants", variant="everything-is-here") == 1
    assert daemon.value("bpf_exporter_program_variant_info", variant="too-new", reason="requires") == 1
    assert daemon.value("ebpf_key_variant") == 1


def test_every_kind_is_attached_that_this_kernel_has_and_runs(daemon: Daemon) -> None:
    points = shown(daemon, "bpf_exporter_program_attached")
    absent = {dict(labels)["kind"] for labels, value in points.items() if not value}
    assert absent <= {"kprobe", "kretprobe", "fentry", "fexit"}
    wanted = {"tracepoint", "raw_tracepoint", "tp_btf", "uprobe", "uretprobe", "frequency", "period"}

    def missing() -> set[str]:
        """Make an event of each kind, but for ticks of the clock; the kinds that have counted none so far."""
        rename(1)
        os.getppid()
        bytearray(1 << 20)
        return wanted - {dict(labels)["kind"] for labels, value in shown(daemon, "ebpf_key_kind").items() if value}

    until(lambda: not missing(), missing, every=0.2)
    assert any(dict(labels)["kind"] == "usdt" and value for labels, value in points.items())
