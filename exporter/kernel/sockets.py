"""Listening TCP ports of the whole host, every network namespace, out of /proc/PID/net/tcp and tcp6."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def listening_ports(proc: Path = Path("/proc")) -> dict[int, int]:
    """Port -> number of TCP sockets, IPv4 and IPv6, that listen on it, summed over the network namespaces.

    /proc/PID/net shows the namespace of that process, so one process of each is asked and no namespace is entered. One
    without a process (`ip netns add`, and nothing in it) is not seen. Needs root to see other users' namespaces;
    processes that end meanwhile are passed over.
    """
    ports: Counter[int] = Counter()
    seen: set[int] = set()
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            namespace = (process / "ns/net").stat().st_ino
            if namespace in seen:
                continue
            found = _listening(process / "net/tcp") + _listening(process / "net/tcp6")
            if (process / "ns/net").stat().st_ino != namespace:  # gone raises here; its tables were empty, perhaps
                continue
        except OSError:
            continue
        seen.add(namespace)
        ports += found
    return dict(ports)


def _listening(table: Path) -> Counter[int]:
    """Ports of one table. Its listeners come first (tcp_seq_start(), net/ipv4/tcp_ipv4.c): the rest is not read."""
    ports: Counter[int] = Counter()
    try:
        lines = table.open(encoding="ascii")
    except FileNotFoundError:
        if table.name == "tcp6":  # no IPv6 on this kernel
            return ports
        raise
    with lines:
        next(lines, None)
        for line in lines:
            _, local, _, state, *_ = line.split(None, 4)
            if state != _LISTEN:
                break
            ports[int(local.rpartition(":")[2], 16)] += 1
    return ports
