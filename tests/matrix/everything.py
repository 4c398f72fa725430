"""Every program there is, bundled (programs/) and of tests/peer, as entries that a guest can load one by one.

tests/matrix/programs/config.yaml is checked variant by variant; these are loaded by the exporter's own choice of
variant, and count what somebody else counts too (tests/peer/counting.py). What became of them is a row of the table.
"""

from __future__ import annotations

from exporter import config
from exporter.config import bundled
from exporter.spec import ProgramSpec
from tests.matrix import kernels
from tests.peer import specs
from tests.peer.counting import CHECKS

FUNCTIONS = ("kprobe", "kretprobe", "fentry", "fexit")

# `make test` has one kernel each for those that take ten seconds and more there, and all kernels for the others.
SLOW = {
    "programs/tcp_retransmit": "5.10",
    "peer/ext4dist": "6.1",
    "peer/xfsdist": "6.12",
    "peer/tcp_retransmit": "7.2",
}


def programs() -> tuple[dict[str, ProgramSpec], dict[str, str]]:
    """("programs/NAME" or "peer/NAME" -> program; the same -> why the configuration is refused). By name.

    Each is read alone: some count the same thing under the same metric name.
    """
    accepted: dict[str, ProgramSpec] = {}
    refused: dict[str, str] = {}
    for name in bundled.names(config.bundled_dir()):
        accepted[f"programs/{name}"] = config.load_bundled(name).config.programs[0]
    for name in specs.NAMES:
        try:
            accepted[f"peer/{name}"] = specs.spec(name)
        except config.ConfigErrors as error:
            refused[f"peer/{name}"] = str(error)
    return accepted, refused


def loaded_on(series: str) -> list[str]:
    """Names of the programs that this run loads there: all, or for `make test` those with a count that are bundled or
    attach to functions of the kernel only. The running kernel counts the others (tests/kernel/test_peer_counts.py)."""
    accepted, _ = programs()
    if kernels.WHOLE:
        return list(accepted)
    return [
        name
        for name, program in accepted.items()
        if name in CHECKS
        and (name.startswith("programs/") or needs_functions(program))
        and SLOW.get(name, series) == series
    ]


def needs_functions(program: ProgramSpec) -> bool:
    """Whether every variant attaches to functions of the kernel."""
    return all(
        any(point.kind in FUNCTIONS and not point.optional for point in variant.attach) for variant in program.variants
    )
