"""Listening TCP ports in all network namespaces, from /proc/PID/net/tcp and tcp6 (proc_pid_net(5))."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def listening_ports(proc: Path = Path("/proc")) -> dict[int, int]:
    """Return port -> number of listening TCP sockets, IPv4 and IPv6, summed over the network namespaces.

    /proc/PID/net shows the namespace of that process, so one process of each namespace is read and no namespace is
    entered. A namespace without a process (`ip netns add`) is not seen, and other users' namespaces only by root.
    Processes that end meanwhile are skipped.
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
            if (
                process / "ns/net"
            ).stat().st_ino != namespace:  # OSError if the process has ended: its tables may have been empty
                continue
        except OSError:
            continue
        seen.add(namespace)
        ports += found
    return dict(ports)


def _listening(table: Path) -> Counter[int]:
    """Return the ports of one table. Listeners come first (tcp_seq_start(), net/ipv4/tcp_ipv4.c), the rest is not
    read."""
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
