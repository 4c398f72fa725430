"""The bundled programs whose metrics the peer's users know, against somebody else's count of the same (checks.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.kernel.bundled import Running, Samples
from tests.kernel.workloads import namespaces
from tests.peer import checks
from tests.peer.checks import COUNT, Found, exactly, rise_of
from tests.peer.workloads import cgroups, inet, tasks

LITTLE = 64 << 20  # bytes; this process itself has to fit
SILENCE = 1.5  # seconds; a SYN is sent again after one


def tcp_retransmit(running: Running) -> Found:
    """Of each kind; all of them together are TcpRetransSegs of the namespace."""
    found: Found = {}
    name, port = f"rtb{os.getpid()}", inet.own_port()
    with inet.cable(name) as (client, server):
        for family in inet.FAMILIES:
            finish = namespaces.start(server, inet.accept_one, family, port)
            namespaces.call(server, namespaces.wait_for_listener, port)
            before = running.scrape()
            made = namespaces.call(client, inet.lose_segments, family, port, 2.0)
            finish()
            counted = _resent(running.scrape().since(before), family, "ephemeral")
            probes = made.get("TcpExtTCPLossProbes", 0)
            found[f"{family} probes"] = exactly(probes, counted["tail_loss_probe"])
            found[f"{family} again"] = exactly(made["TcpRetransSegs"] - probes, counted["retransmit"])
            found[f"{family} of both kinds"] = (2, counted["retransmit"] + min(1, probes), 100)

            before = running.scrape()
            made = namespaces.call(client, inet.connect_to_nobody, family, port, SILENCE)
            counted = _resent(running.scrape().since(before), family, "ephemeral")
            found[f"{family} syn"] = exactly(made["TcpExtTCPSynRetrans"], counted["syn"])

            finish = namespaces.start(server, inet.listen_unheard, family, port, 2 * SILENCE)
            namespaces.call(server, namespaces.wait_for_listener, port)
            before = running.scrape()
            with_client = namespaces.start(client, inet.connect_in_vain, family, port, SILENCE)
            made = finish()
            with_client()
            counted = _resent(running.scrape().since(before), family, str(port))
            found[f"{family} syn_ack"] = exactly(made["TcpRetransSegs"], counted["syn_ack"])
    return found


def _resent(rise: Samples, family: str, port: str) -> dict[str, float]:
    name = "ebpf_tcp_retransmit_packets_total"
    kinds = ("syn", "retransmit", "tail_loss_probe", "syn_ack")
    return {kind: rise.sum(name, family=family, type=kind, port=port) for kind in kinds}


def udp_drops(running: Running) -> Found:
    found: Found = {}
    port = inet.own_port()
    with namespaces.namespace(f"udp{os.getpid()}") as space:
        for family, key in (("ipv4", "UdpRcvbufErrors"), ("ipv6", "Udp6RcvbufErrors")):
            before = running.scrape()
            made = namespaces.call(space, inet.overflow_receiver, family, port, COUNT)
            rise = running.scrape().since(before)
            labels = {"local_port": str(port), "family": family, "reason": "receive_buffer"}
            found[family] = exactly(made[key], rise.sum("ebpf_udp_fail_queue_rcv_skbs_total", **labels))
    return found


def kfree_skb(running: Running) -> Found:
    """Datagrams for a port where nobody is: UdpNoPorts."""
    found: Found = {}
    with namespaces.namespace(f"drop{os.getpid()}") as space:
        for family in inet.FAMILIES:
            rise = rise_of(running, namespaces.call, space, inet.closed_udp_port, family, 9, COUNT)
            counted = rise.sum("ebpf_kfree_skb_total", reason="NO_SOCKET", eth_proto=family)
            found[family] = exactly(COUNT, counted)
    return found


def oomkill(running: Running) -> Found:
    with _little_memory() as (unit, directory):
        kills = tasks.oom_kills()
        before = running.scrape()
        signals = {cgroups.call(directory, tasks.run_out_of_memory, 256) for _ in range(3)}
        kills = tasks.oom_kills() - kills
        rise = running.scrape().since(before)
    return {
        "killed": exactly(9, sum(signals)),
        "kills": exactly(kills, rise.sum("ebpf_oom_kills_total")),
        "of the unit": exactly(3, rise.sum("ebpf_oom_kills_total", unit=unit, container="none")),
    }


@contextmanager
def _little_memory() -> Iterator[tuple[str, Path]]:
    """A unit's name and its cgroup (v2), where this process's children get 32 MB by either version's controller."""
    unit = f"oom-{os.getpid()}.service"
    directory = cgroups.root() / unit
    directory.mkdir()
    try:
        if "memory" in (cgroups.root() / "cgroup.controllers").read_text().split():
            (cgroups.root() / "cgroup.subtree_control").write_text("+memory")
            (directory / "memory.max").write_text(str(LITTLE))
            yield unit, directory
        else:
            with _little_memory_v1(Path("/sys/fs/cgroup/memory"), unit):
                yield unit, directory
    finally:
        directory.rmdir()


@contextmanager
def _little_memory_v1(root: Path, unit: str) -> Iterator[None]:
    """This process goes to a cgroup with so little, for its children to begin there, and back."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    own = root / next(path for _, controllers, path in lines if controllers == "memory").lstrip("/")
    limited = root / unit
    limited.mkdir()
    try:
        (limited / "memory.limit_in_bytes").write_text(str(LITTLE))
        (limited / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        limited.rmdir()


def runqlat(running: Running) -> Found:
    """Whoever leaves a CPU has come to it before; no more waits end than tasks are switched."""
    name = "ebpf_run_queue_latency_seconds"
    with cgroups.cgroup("runq") as own:
        switches = tasks.context_switches()
        before = running.scrape()
        least = cgroups.call(own, tasks.ping_pong, 100 * COUNT)
        rise = running.scrape().since(before)
        switches = tasks.context_switches() - switches
    # Idle tasks are switched to as well, without having waited.
    return {
        "waits": (least - 2, rise.sum(f"{name}_count"), switches),
        "at least": (200 * COUNT, least, switches),
        "seconds": (0, rise.sum(f"{name}_sum"), switches),
    }


CHECKS: dict[str, Callable[[Running], Found]] = {
    "accept_latency": partial(checks.accept_latency, name="ebpf_accept_latency_seconds"),
    "biolatency": partial(checks.biolatency, name="ebpf_bio_latency_seconds"),
    "cachestat": partial(checks.cachestat, name="ebpf_page_cache_ops_total"),
    "kfree_skb": kfree_skb,
    "oomkill": oomkill,
    "runqlat": runqlat,
    "softirq_latency": partial(checks.softirq_latency, prefix="ebpf_"),
    "syscalls": partial(checks.syscalls, prefix="ebpf_"),
    "tcp_retransmit": tcp_retransmit,
    "tcp_syn_backlog": lambda running: checks.backlog(running, "ebpf_tcp_syn_backlog", checks.power_of_two),
    "udp_drops": udp_drops,
}
