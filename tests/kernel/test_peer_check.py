"""The examples of ebpf_exporter in our schema: each is accepted, compiles for this kernel and fits its maps."""

from __future__ import annotations

import pytest

from exporter.binding.bind import bind_all
from exporter.config import ConfigErrors
from exporter.loading import build
from exporter.loading.build import Host
from tests.kernel.programs import compile_all
from tests.peer.specs import HERE, LATER, NAMES, READY, of_this_kernel, spec

FILE_SYSTEMS = ("cephfs_dist", "ext4dist", "xfsdist")


def refusal(name: str) -> str:
    with pytest.raises(ConfigErrors) as refused:
        spec(name)
    return str(refused.value)


def test_there_are_29_and_a_c_text_of_each_or_one_for_three() -> None:
    assert len(NAMES) == 29
    texts = {name: "file_operations" if name in FILE_SYSTEMS else name for name in NAMES}
    assert {path.stem for path in HERE.glob("*.c")} == set(texts.values())
    for name in READY:
        assert spec(name).source == HERE / f"{texts[name]}.c"


@pytest.mark.parametrize("name", LATER)
def test_key_that_comes_later_is_refused_with_a_sentence(name: str) -> None:
    assert f'"{LATER[name]}" is not built in this version' in refusal(name)


@pytest.mark.parametrize("name", READY)
def test_configuration_is_accepted_and_says_what_it_counts(name: str) -> None:
    for metric in spec(name).metrics:
        assert len(metric.help) > 20 or metric.name.startswith("syscall")


@pytest.mark.parametrize("name", READY)
def test_configuration_compiles_for_this_kernel_and_fits_its_maps(name: str, shared_host: Host) -> None:
    program = of_this_kernel(spec(name))
    assert program.variants, "no variant is for this kernel"
    compile_all(program, shared_host)
    for variant in program.variants:
        compiled, from_cache = build.build(program, variant, shared_host)
        assert from_cache
        functions = {function.name for function in compiled.functions}
        assert {point.function for point in variant.attach} <= functions
        bind_all(program.metrics, compiled.maps)


def test_no_two_of_them_but_one_pair_share_a_metric_name() -> None:
    owners: dict[str, set[str]] = {}
    for name in READY:
        for metric in spec(name).metrics:
            owners.setdefault(metric.name, set()).add(name)
    assert {metric: names for metric, names in owners.items() if len(names) > 1} == {}
