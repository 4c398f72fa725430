"""The examples of ebpf_exporter in our schema: each is accepted, compiles for this kernel and fits its maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import config
from exporter.binding import bind_all
from exporter.config import ConfigErrors, model
from exporter.kernel.features import Kernel
from exporter.loading import artifact, requires
from exporter.loading.child import Host
from tests.kernel.programs import ROOT, compile_all

PEER = ROOT / "tests/peer"
NAMES = sorted(path.stem for path in PEER.glob("*.yaml"))

# Keys that are settled and come later: how each is refused until then.
LATER = {
    "bpf_jit": "kaddrs",
    "cgroup_id_map": "fill",
    "xdp": "xdp",
}
# Keys that are being built: name -> a word of the refusal. An entry that is accepted must go.
WAITING = {
    "llcstat": "perf_event",
    "uprobe": "uprobe",
    "usdt": "usdt",
}
READY = [name for name in NAMES if name not in LATER and name not in WAITING]


def spec(name: str) -> model.Program:
    """One of them alone. ConfigErrors if it is refused; names are the peer's, so what they look like is no matter."""
    return config.load_bundled(name, bundled=PEER).config.programs[0]


def refusal(name: str) -> str:
    with pytest.raises(ConfigErrors) as refused:
        spec(name)
    return str(refused.value)


def test_each_configuration_has_its_c_text() -> None:
    assert len(NAMES) == 29
    assert sorted(path.stem for path in PEER.glob("*.c")) == NAMES


@pytest.mark.parametrize("name", LATER)
def test_key_that_comes_later_is_refused_with_a_sentence(name: str) -> None:
    assert f'"{LATER[name]}" is not built in this version' in refusal(name)


@pytest.mark.parametrize("name", WAITING)
def test_configuration_waits_for_a_key(name: str) -> None:
    assert WAITING[name] in refusal(name), "another reason than the one it waits for"


@pytest.mark.parametrize("name", READY)
def test_configuration_is_accepted_and_says_what_it_counts(name: str) -> None:
    for metric in spec(name).metrics:
        assert len(metric.help) > 20 or metric.name.startswith("syscall")


@pytest.mark.parametrize("name", READY)
def test_configuration_compiles_for_this_kernel_and_fits_its_maps(name: str, shared_host: Host) -> None:
    program = spec(name)
    variants = [v for v in program.variants if not requires.unmet(v.requires, Kernel())]
    assert variants, "no variant is for this kernel"
    usable = program.model_copy(update={"variants": variants})
    compile_all(usable, shared_host)
    for variant in variants:
        compiled = shared_host.cache.get(artifact.key(usable, variant, shared_host.target, shared_host.header))
        assert compiled
        functions = {function.name for function in compiled.functions}
        assert {point.function for point in variant.attach} <= functions
        bind_all(program.metrics, compiled.maps)


def test_no_two_of_them_but_one_pair_share_a_metric_name() -> None:
    owners: dict[str, set[str]] = {}
    for name in READY:
        for metric in spec(name).metrics:
            owners.setdefault(metric.name, set()).add(name)
    assert {metric: names for metric, names in owners.items() if len(names) > 1} == {}


def test_texts_are_where_the_configuration_says() -> None:
    for name in READY:
        assert spec(name).source == Path(PEER / f"{name}.c")
