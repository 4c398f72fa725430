"""Two network namespaces joined by a veth pair whose one side delays what it sends (sch_netem)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.workloads import namespaces
from tests.kernel.workloads.delays import ADDRESSES


@contextmanager
def delayed(name: str, seconds: float) -> Iterator[tuple[str, str]]:
    """As workloads.delays.delayed: names of the client's and the server's namespace; what the client sends takes
    `seconds`. The kernel delays, not a process, so that a slow machine keeps the time."""
    client, server = f"{name}c", f"{name}s"
    with namespaces.namespace(client), namespaces.namespace(server):
        pair = f"d{os.getpid()}c", f"d{os.getpid()}s"
        _command("ip", "link", "add", pair[0], "netns", client, "type", "veth", "peer", pair[1], "netns", server)
        for side, space in enumerate((client, server)):
            _command("ip", "-n", space, "address", "add", f"{ADDRESSES['ipv4'][side]}/24", "dev", pair[side])
            _command("ip", "-n", space, "address", "add", f"{ADDRESSES['ipv6'][side]}/64", "dev", pair[side], "nodad")
            _command("ip", "-n", space, "link", "set", pair[side], "up")
        # A limit that no burst of the test comes near, so that nothing is dropped and sent again.
        delay = ("netem", "delay", f"{seconds * 1e6:.0f}us", "limit", "10000")
        _command("tc", "-n", client, "qdisc", "add", "dev", pair[0], "root", *delay)
        yield client, server


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
