"""Which variant of a program is used, and what state, reason and text a program ends with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.kernel import credentials
from exporter.loading import build
from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Descriptors, Program, Reason, State
from exporter.spec import MetricSpec, Requirements, VariantSpec
from tests.kernel.loaded import RAW, TP_BTF, TRACEPOINT, Load, own_descriptors
from tests.kernel.programs import COUNT_GETPPID, compile_all, host, point, spec
from tests.waiting import in_child


def test_optional_point_that_is_absent_is_shown_and_the_variant_stands(load: Load) -> None:
    absent = point("raw_tracepoint", "no_such_event", "on_raw", optional=True)
    outcome, descriptors = load(spec(COUNT_GETPPID, [absent, TP_BTF]))
    assert outcome.state is State.RUNNING
    shown = [(a.target, a.attached, a.reason) for a in outcome.attachments]
    assert shown == [("no_such_event", False, Reason.MISSING), ("sys_enter", True, Reason.NONE)]
    assert "no such tracepoint" in outcome.attachments[0].text
    assert list(descriptors.programs) == ["on_btf"], "a program without an attachment must not stay loaded"


def test_variant_of_nothing_but_absent_optional_points_is_not_used(load: Load) -> None:
    absent = point("raw_tracepoint", "no_such_event", "on_raw", optional=True)
    outcome, _ = load(spec(COUNT_GETPPID, [absent]))
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.MISSING)


def test_next_variant_is_used_and_the_failed_one_is_kept_with_its_reason(load: Load) -> None:
    before = own_descriptors()
    outcome, descriptors = load(
        spec(
            COUNT_GETPPID,
            VariantSpec(name="future", requires=Requirements(kernel=">=99.0"), attach=[RAW]),
            VariantSpec(name="half", attach=[RAW, point("raw_tracepoint", "no_such_event", "on_raw")]),
            VariantSpec(name="typed", attach=[TP_BTF]),
            VariantSpec(name="never_tried", attach=[TRACEPOINT]),
        )
    )
    assert (outcome.state, outcome.variant) == (State.RUNNING, "typed")
    assert [(a.variant, a.reason) for a in outcome.attempts] == [
        ("future", Reason.REQUIRES),
        ("half", Reason.MISSING),
    ]
    descriptors.close()
    assert own_descriptors() == before, "a variant that failed half way left something open"


def test_program_whose_variants_all_lack_a_requirement_is_skipped(load: Load) -> None:
    outcome, _ = load(
        spec(
            COUNT_GETPPID,
            VariantSpec(name="new", requires=Requirements(kernel=">=99.0"), attach=[RAW]),
            VariantSpec(name="other", requires=Requirements(member=["sock.no_such_member"]), attach=[RAW]),
        )
    )
    assert (outcome.state, outcome.reason) == (State.SKIPPED, Reason.REQUIRES)
    assert "new: requires kernel >=99.0 (this one is " in outcome.text
    assert "other: requires member sock.no_such_member (not in this kernel's BTF)" in outcome.text


def test_program_with_an_unmet_requirement_is_skipped_before_any_variant(load: Load) -> None:
    outcome, _ = load(spec(COUNT_GETPPID, [RAW], requires=Requirements(kernel="<3.0")))
    assert (outcome.state, outcome.reason, outcome.attempts) == (State.SKIPPED, Reason.REQUIRES, ())


@pytest.mark.parametrize(("optional", "state"), [(False, State.FAILED), (True, State.SKIPPED)])
def test_nothing_to_attach_to_is_a_failure_unless_the_program_is_optional(
    load: Load, optional: bool, state: State
) -> None:
    absent = point("raw_tracepoint", "no_such_event", "on_raw")
    outcome, _ = load(spec(COUNT_GETPPID, [absent], optional=optional))
    assert (outcome.state, outcome.reason) == (state, Reason.MISSING)


def test_metric_that_does_not_fit_its_map_is_found_before_anything_is_created(shared_host: Host) -> None:
    absent = MetricSpec(name="a", type="counter", help="A.", map="nothing")
    unfit = MetricSpec(name="c", type="counter", help="C.", map="calls", value="nothing")
    program = spec(COUNT_GETPPID, [RAW]).model_copy(update={"metrics": [absent, unfit]})
    compile_all(program, shared_host)
    before = own_descriptors()
    outcome, _ = load_program(program, shared_host)
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.BINDING)
    assert outcome.text == (
        'test: metric a: no map "nothing" (the C text has: calls, lost_updates); '
        'metric c: value: no field "nothing" in u64 (the value is no struct: write "value")'
    )
    assert own_descriptors() == before


def test_artifact_of_another_architecture_is_refused(shared_host: Host) -> None:
    program = spec(COUNT_GETPPID, [RAW], name="foreign")
    compile_all(program, shared_host)
    compiled, from_cache = build.build(program, program.variants[0], shared_host)
    assert from_cache
    shared_host.cache.put(replace(compiled, cache_key=replace(compiled.cache_key, arch="riscv64")))
    outcome, _ = load_program(program, shared_host)
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.UNSUPPORTED)
    assert "compiled for riscv64" in outcome.text


def test_missing_capability_is_named_and_never_skipped(shared_host: Host) -> None:
    program = spec(COUNT_GETPPID, [RAW], optional=True)
    compile_all(program, shared_host)

    def without_rights() -> Program:
        credentials.set_capabilities(set())
        return load_program(program, shared_host)[0]

    outcome = in_child(without_rights)
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.PERMISSION)
    assert "(run as root, or give CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN)" in outcome.text


def test_program_is_compiled_once_and_then_comes_from_the_cache(tmp_path: Path) -> None:
    program, cold = spec(COUNT_GETPPID, [RAW]), host(tmp_path)
    first = in_child(lambda: load_program(program, cold)[0])
    assert (first.state, first.from_cache) == (State.RUNNING, False)
    assert first.compile_seconds > 0

    def without_llvm() -> Program:
        outcome, _ = load_program(program, cold)
        assert "libLLVM" not in Path("/proc/self/maps").read_text()
        return outcome

    second = in_child(without_llvm)
    assert (second.state, second.from_cache, second.compile_seconds) == (State.RUNNING, True, 0)
    assert second.maps == first.maps


def test_compiler_error_is_the_programs_state(tmp_path: Path) -> None:
    program = spec("int on_raw(void *ctx) { return nothing; }", [RAW])
    outcome = in_child(lambda: load_program(program, host(tmp_path))[0])
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.COMPILER)
    assert outcome.text.startswith("test: compile test.c:1:32: use of undeclared identifier 'nothing'")


def test_variant_that_cannot_attach_here_is_not_compiled(tmp_path: Path) -> None:
    absent = point("raw_tracepoint", "no_such_event", "on_raw")
    outcome, _ = load_program(spec("this is no C", [absent]), host(tmp_path))
    assert outcome.reason is Reason.MISSING


def test_disabled_program_is_not_touched(shared_host: Host) -> None:
    program = spec("this is no C", [RAW]).model_copy(update={"enabled": False})
    outcome, descriptors = load_program(program, shared_host)
    assert outcome.state is State.DISABLED
    assert descriptors == Descriptors()
