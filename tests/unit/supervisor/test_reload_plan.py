"""What a new configuration changes: entry by entry, and what is not taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.program import Program, Reason, State
from exporter.spec import AttachSpec, MapOptions, MetricSpec, ProgramSpec, Requirements, VariantSpec
from exporter.supervisor.managed_program import ManagedProgram, failed
from exporter.supervisor.reload_plan import Action, plan, refusals, same_in_kernel, same_meaning, same_series, staying


def spec(name: str, metric: str = "", **more: Any) -> ProgramSpec:
    metrics = [MetricSpec(name=metric or f"{name}_total", type="counter", help="h", map="m")]
    variant = VariantSpec(attach=[AttachSpec(kind="kprobe", targets=["f"], function="on_f")])
    fields: dict[str, Any] = {"variants": [variant], "metrics": metrics, "source": Path("x.c"), "text": name, **more}
    return ProgramSpec(name=name, **fields)


def managed(of: ProgramSpec, state: State = State.RUNNING) -> ManagedProgram:
    return ManagedProgram(of, Program(of.name, state))


def steps(programs: list[ManagedProgram], wanted: list[ProgramSpec]) -> list[tuple[str, str]]:
    return [(step.spec.name, step.action.value) for step in plan(programs, wanted).steps]


def test_each_program_is_told_apart_by_name_in_the_new_order() -> None:
    a, b, c = spec("a"), spec("b"), spec("c")
    planned = plan(gone := [managed(b), managed(a)], [a, c])
    assert [(step.spec, step.action, step.managed) for step in planned.steps] == [
        (a, Action.KEEP, gone[1]),
        (c, Action.LOAD, None),
    ]
    assert planned.gone == (gone[0],)
    assert plan([], []).steps == ()
    assert plan(gone, []).gone == tuple(gone)


def test_where_an_entry_stands_is_no_matter() -> None:
    moved = spec("a", source=Path("other.yaml"), line=20, indent=6)
    assert steps([managed(spec("a"))], [moved]) == [("a", "keep")]
    assert plan([managed(spec("a"))], [moved]).steps[0].spec.line == 20


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({"text": "another"}, "load"),
        ({"defines": {"N": 1}}, "load"),
        ({"requires": Requirements(kernel=">=5")}, "load"),
        ({"variants": []}, "load"),
        ({"maps": {"m": MapOptions(seed="listening_ports")}}, "load"),
        ({"maps": {"m": MapOptions(drain=True)}}, "load"),
        ({"maps": {"m": MapOptions(ttl=60)}}, "bind"),
        ({"metrics": []}, "bind"),
        ({"budget": 0.1}, "bind"),
        ({"lifetime": 60.0}, "bind"),
        ({"optional": True}, "bind"),
        ({"enabled": False}, "disable"),
    ],
    ids=str,
)
def test_only_what_the_kernel_sees_is_loaded_again(change: dict[str, Any], action: str) -> None:
    assert steps([managed(spec("a"))], [spec("a", **change)]) == [("a", action)]


def test_every_key_of_a_program_belongs_to_the_kernel_or_not() -> None:
    """A new key has to be thought about here: what none of these tells apart is a change that is never made."""
    names = set(ProgramSpec.__dataclass_fields__)
    place, kernel = {"source", "line", "indent"}, {"text", "defines", "requires", "variants", "maps"}
    assert names - place - kernel == {"name", "enabled", "optional", "lifetime", "budget", "metrics"}


@pytest.mark.parametrize(
    ("state", "same", "other"),
    [
        (State.RUNNING, "keep", "load"),
        (State.LOADING, "keep", "load"),
        (State.FAILED, "load", "load"),
        (State.SKIPPED, "load", "load"),
        (State.DISABLED, "load", "load"),
        (State.ENDED, "keep", "load"),
        (State.OVER_BUDGET, "keep", "load"),
        (State.QUARANTINED, "keep", "load"),
    ],
)
def test_what_a_state_makes_of_the_same_and_of_another_text(state: State, same: str, other: str) -> None:
    assert steps([managed(spec("a"), state)], [spec("a")]) == [("a", same)]
    assert steps([managed(spec("a"), state)], [spec("a", text="another")]) == [("a", other)]


def test_other_metrics_of_what_does_not_run_are_a_reason_to_load_it() -> None:
    for state in (State.LOADING, State.ENDED, State.OVER_BUDGET, State.QUARANTINED):
        assert steps([managed(spec("a"), state)], [spec("a", metric="b_total")]) == [("a", "load")]


def test_a_program_that_is_called_otherwise_stays_in_the_kernel() -> None:
    before = managed(spec("a", text="same"))
    (step,) = plan([before], [spec("b", text="same")]).steps
    assert (step.action, step.managed) == (Action.BIND, before)
    assert plan([before], [spec("b", text="same")]).gone == ()
    assert steps([before], [spec("b", text="another")]) == [("b", "load")]
    # Two of one text: each name takes one.
    both = [managed(spec("a", text="same")), managed(spec("b", text="same"))]
    assert [step.managed for step in plan(both, [spec("c", text="same"), spec("d", text="same")]).steps] == both
    # One that does not run has nothing to stay.
    assert steps([managed(spec("a", text="same"), State.FAILED)], [spec("b", text="same")]) == [("b", "load")]


def test_a_program_whose_metrics_another_takes_over_counts_until_then() -> None:
    a, b = managed(spec("a", metric="x_total")), managed(spec("b"))
    planned = plan([a, b], [spec("c", metric="x_total")])
    assert (planned.gone, planned.replaced) == ((a, b), (a,))


def test_all_are_bound_where_all_metrics_change() -> None:
    planned = plan([managed(spec("a")), managed(spec("b"), State.ENDED)], [spec("a"), spec("b")], bind_all=True)
    assert [step.action for step in planned.steps] == [Action.BIND, Action.KEEP]


def test_totals_are_right_for_the_same_label_sets_only() -> None:
    a = spec("a")
    (metric,) = a.metrics
    assert same_series(a, replace(a, metrics=[replace(metric, help="other")], lifetime=1.0))
    changes: list[dict[str, Any]]
    changes = [{"name": "b_total"}, {"labels": []}, {"max_series": 7}, {"value": "v"}, {"scale": 2.0}]
    for change in changes:
        assert not same_series(a, replace(a, metrics=[replace(metric, **change)]))
    assert not same_series(a, replace(a, maps={"m": MapOptions(ttl=1)}))
    assert same_in_kernel(a, replace(a, name="b"))
    assert not same_meaning(a, replace(a, name="b"))


def test_what_cannot_be_loaded_is_refused_where_something_runs() -> None:
    running, broken, ended = managed(spec("a")), managed(spec("b"), State.FAILED), managed(spec("c"), State.ENDED)
    wanted = [spec(name, text="typo") for name in "abcd"]
    tried = {each.name: ManagedProgram(each, failed(each, Reason.COMPILER, f"{each.name}: typo")) for each in wanted}
    made = plan([running, broken, ended], wanted).steps
    assert refusals(made, tried, {}) == {"a": "a: typo"}
    tried["a"].program = replace(tried["a"].program, state=State.SKIPPED)  # as its new text asks for
    assert refusals(made, tried, {}) == {}


def test_a_metric_waits_for_the_program_that_still_has_it() -> None:
    """a gives x to b, b gives y to c, c gives z to d; a has a mistake, so nobody can take."""
    before = [managed(spec(name, metric=m)) for name, m in (("a", "x"), ("b", "y"), ("c", "z"))]
    wanted = [spec("a", metric="w", text="typo"), spec("b", metric="x"), spec("c", metric="y"), spec("d", metric="z")]
    made = plan(before, wanted).steps
    tried = {"a": ManagedProgram(wanted[0], failed(wanted[0], Reason.COMPILER, "a: typo")), "d": managed(wanted[3])}
    assert refusals(made, tried, {}) == {
        "a": "a: typo",
        "b": "b: metric x is still that of a, which has a mistake",
        "c": "c: metric y is still that of b, which has a mistake",
        "d": "d: metric z is still that of c, which has a mistake",
    }
    assert refusals(made, {"a": managed(wanted[0]), "d": managed(wanted[3])}, {}) == {}


def test_a_program_goes_on_where_what_takes_its_metric_over_does_not_load() -> None:
    gone, other = managed(spec("a", metric="x")), managed(spec("o", metric="y"))
    wanted = [spec("b", metric="x", text="typo"), spec("c", metric="y")]
    made = plan([gone, other], wanted)
    assert made.replaced == (gone, other)
    tried = {"b": ManagedProgram(wanted[0], failed(wanted[0], Reason.COMPILER, "b: typo")), "c": managed(wanted[1])}
    assert staying(made.replaced, tried) == {"a": "b: typo"}
    assert refusals(made.steps, tried, {}, [gone]) == {}  # b is broken, and shows nothing
    both = replace(spec("b", metric="y"), metrics=[*spec("b", metric="y").metrics, *wanted[0].metrics])
    made = plan([gone], [wanted[0], both])
    assert refusals(made.steps, {"b": tried["b"]}, {}, [gone]) == {}


def test_metrics_that_do_not_fit_are_refused() -> None:
    made = plan([managed(spec("a"))], [spec("a", metric="b_total")]).steps
    assert refusals(made, {}, {"a": "a: no such map"}) == {"a": "a: no such map"}
