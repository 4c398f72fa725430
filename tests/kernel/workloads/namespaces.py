"""Network namespaces: made by name, entered by a child process that runs one function and hands back its result."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import start_child, until

CLONE_NEWNET = 0x40000000  # linux/sched.h
# Outside the default 32768-60999: no port that a client gets here is one that a listener got in another namespace.
CLIENT_PORTS = "61000 64999"

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A fresh network namespace with its loopback up, gone at the end."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        call(name, _prepare)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _prepare() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # sysctl files of the network belong to the namespace of whoever opens them.
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(CLIENT_PORTS)


def enter(name: str) -> None:
    """Move this process into the namespace. Mounts stay, so tracefs does too (`ip netns exec` hides it)."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def call(name: str, function: Callable[..., Any], *arguments: Any, join: Path | None = None) -> Any:
    """`function(*arguments)` in a child process inside the namespace; its result, which has to be JSON.

    join  a cgroup directory that the child moves itself to first

    What the function raises there is raised here.
    """
    result = start(name, function, *arguments, join=join)
    return result()


def start(name: str, function: Callable[..., Any], *arguments: Any, join: Path | None = None) -> Callable[[], Any]:
    """As `call`, but returns at once; calling what it returns waits for the result."""

    def work() -> str:
        if join:
            (join / "cgroup.procs").write_text(str(os.getpid()))
        enter(name)
        return json.dumps(function(*arguments))

    result = start_child(work)
    return lambda: json.loads(result())


def wait_for_listener(port: int) -> None:
    """Until somebody in this namespace listens on the port."""
    wanted = f":{port:04X}"

    def is_there() -> bool:
        tables = [Path("/proc/self/net/tcp").read_text(), Path("/proc/self/net/tcp6").read_text()]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return any(row[1].endswith(wanted) and row[3] == "0A" for row in rows)

    until(is_there, f"nobody listens on port {port}", 10)
