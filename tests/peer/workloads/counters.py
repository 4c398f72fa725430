"""The kernel's own counters as numbers, and what they rose by."""

from __future__ import annotations

from pathlib import Path

Counters = dict[str, int]


def netstat(protocol: str = "") -> Counters:
    """Of this network namespace: {"TcpRetransSegs": ..., "TcpExtTCPLossProbes": ..., "Icmp6InMsgs": ...}."""
    found: Counters = {}
    for name in ("snmp", "netstat"):
        lines = Path(f"/proc/self/net/{name}").read_text().splitlines()
        for header, values in zip(lines[::2], lines[1::2], strict=True):
            prefix, names = header.split(":")
            found |= {prefix + k: int(v) for k, v in zip(names.split(), values.split()[1:], strict=True)}
    for line in Path("/proc/self/net/snmp6").read_text().splitlines():
        key, value = line.split()
        found[key] = int(value)
    return {key: value for key, value in found.items() if key.startswith(protocol)}


def rise(before: Counters, after: Counters) -> Counters:
    return {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}


def softirqs() -> Counters:
    """/proc/softirqs summed over CPUs: {"net_rx": ...}."""
    rows = (line.split() for line in Path("/proc/softirqs").read_text().splitlines()[1:])
    return {row[0].rstrip(":").lower(): sum(map(int, row[1:])) for row in rows}


def vmstat() -> Counters:
    return {name: int(value) for name, value in map(str.split, Path("/proc/vmstat").read_text().splitlines())}
