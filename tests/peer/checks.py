"""Each of the peer's programs against somebody else's count of the same: {what: (least, counted, most)}, for JSON.

`least` and `most` differ only where the other count cannot be read at the same instant, or in other units. Work is in
namespaces and cgroups of its own; what a program cannot tell apart (a softirq has no owner) is read twice around it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.kernel.bundled import Running, Samples
from tests.kernel.workloads import namespaces
from tests.peer.workloads import cgroups, counters, disks, inet, tasks, unix

Found = dict[str, tuple[float, float, float]]

COUNT = 23
WAIT = 0.15  # seconds; above 131.072 ms, so in the bucket that ends at 262.144 ms or, on a slow machine, a later one


def exactly(expected: float, counted: float) -> tuple[float, float, float]:
    return expected, counted, expected


def wrong(found: Found) -> dict[str, str]:
    """What was not counted as it should have been."""
    return {
        what: f"{counted:g}, not {least:g}{f' to {most:g}' if most != least else ''}"
        for what, (least, counted, most) in found.items()
        if not least <= counted <= most
    }


def rise_of(running: Running, work: Callable[..., object], *arguments: object) -> Samples:
    before = running.scrape()
    work(*arguments)
    return running.scrape().since(before)


def _late(rise: Samples, name: str, bound: float, **labels: str) -> float:
    """Observations above a bound."""
    return sum(n for le, n in rise.buckets(name, **labels).items() if le > bound)


# --- block devices and file systems ---


def biolatency(running: Running, name: str = "bio_latency_seconds") -> Found:
    with disks.loop_device() as device:
        disks.read_and_write(device, 1, 1, 1)
        own = disks.requests(device)
        rise = rise_of(running, disks.read_and_write, device, COUNT, COUNT + 6, 0)
        made = counters.rise(own, disks.requests(device))
    found: Found = {}
    for operation in ("read", "write"):
        labels = {"device": device, "operation": operation}
        count = rise.sum(f"{name}_count", **labels)
        found[f"{operation}s"] = exactly(made[operation], count)
        # The kernel counts from the allocation of the request on, which is no later, and cuts the sum to milliseconds.
        milliseconds = rise.sum(f"{name}_sum", **labels) * 1000
        found[f"{operation} ms"] = (0.001 * count, milliseconds, made.get(f"{operation}_ms", 0) + 1)
    return found | {"at least as many as asked for": (COUNT, rise.sum(f"{name}_count", device=device), 10 * COUNT)}


def _file_system(running: Running, kind: str) -> Found:
    name = f"{kind}_latency_seconds_count"
    with disks.mounted(kind) as directory:
        made: dict[str, int] = {}
        rise = rise_of(running, lambda: made.update(disks.use(directory, COUNT)))
    made = {"ext4": made, "xfs": {what: n for what, n in made.items() if what != "getattr"}}[kind]
    return {operation: exactly(n, rise.sum(name, operation=operation)) for operation, n in made.items()}


def ext4dist(running: Running) -> Found:
    return _file_system(running, "ext4")


def xfsdist(running: Running) -> Found:
    return _file_system(running, "xfs")


def cachestat(running: Running, name: str = "page_cache_ops_total") -> Found:
    """On an otherwise idle machine: pages written are made dirty, pages read for the first time are added."""
    pages = 230
    with disks.mounted("ext4") as directory:
        file = directory / "file"
        dirtied = counters.vmstat()["nr_dirtied"]
        written = rise_of(running, lambda: file.write_bytes(b"x" * pages * disks.BLOCK))
        dirtied = counters.vmstat()["nr_dirtied"] - dirtied
        os.sync()
        again = rise_of(running, disks.read_ends, file, pages)
    marked = written.sum(name, operation="page_mark_dirties")
    return {
        # A folio may have several pages, and a CPU keeps up to 125 of them to itself (mm/vmstat.c's threshold).
        "dirtied": (1, marked, dirtied + 125 * (os.cpu_count() or 1)),
        "added by writing": (1, written.sum(name, operation="page_add_lru"), 2 * pages),
        "accessed by reading what is there": (pages, again.sum(name, operation="cache_access"), pages + 50),
        "added by reading what is there": (0, again.sum(name, operation="page_add_lru"), 10),
    }


def kstack(running: Running) -> Found:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        file = Path(directory) / "file"
        file.write_bytes(bytes(200 * disks.BLOCK))
        rise = rise_of(running, disks.read_pages, file, 200)
    stacks = rise.of("mark_page_accessed_total")
    reads = sum(n for has, n in stacks.items() if "read" in dict(has)["kstack"])
    return {"with a function that reads": (200, reads, 300)}


# --- processes ---


def cgroup(running: Running) -> Found:
    with cgroups.cgroup("migrate") as own:
        made = 0

        def work() -> None:
            nonlocal made
            made = cgroups.call(own, tasks.migrate, COUNT)

        rise = rise_of(running, work)
        counted = rise.sum("cgroup_sched_migrations_total", cgroup=cgroups.path(own))
        return {"migrations": exactly(made, counted), "at least": (COUNT - 1, counted, 2 * COUNT)}


def cfs_throttling(running: Running) -> Found:
    name = "cfs_throttling_seconds"
    with cgroups.cgroup("throttle", controller="cpu") as own:
        (own / "cpu.max").write_text("10000 50000")
        before = running.scrape()
        cgroups.call(own, tasks.burn, 1.0)
        said = dict(line.split() for line in (own / "cpu.stat").read_text().splitlines())
        rise = running.scrape().since(before)
    labels = {"cgroup": cgroups.path(own)}
    count = rise.sum(f"{name}_count", **labels)
    microseconds = rise.sum(f"{name}_sum", **labels) * 1e6
    throttled = int(said["throttled_usec"])
    return {
        "times": (5, count, int(said["nr_throttled"]) * 2),
        "microseconds": (throttled - count - 1, microseconds, throttled + 1),  # each is cut to whole ones
    }


def syscalls(running: Running, prefix: str = "") -> Found:
    calls = rise_of(running, tasks.ask_interval, COUNT)
    errors = rise_of(running, tasks.fail_with_eloop, COUNT)
    return {
        "calls": exactly(COUNT, calls.sum(f"{prefix}syscalls_total", syscall="sched_rr_get_interval")),
        "errors": exactly(COUNT, errors.sum(f"{prefix}syscall_errors_total", errno="ELOOP")),
    }


def raw_tracepoints(running: Running) -> Found:
    with namespaces.namespace(f"tim{os.getpid()}") as space:
        rise = rise_of(running, namespaces.call, space, inet.keep_alive, inet.own_port(), COUNT)
    return {"timers": exactly(COUNT, rise.sum("raw_timer_starts_total", function="tcp_keepalive_timer"))}


def _softirqs(running: Running, work: Callable[[], object]) -> tuple[Samples, dict[str, tuple[int, int]]]:
    """What rose, and by how much /proc/softirqs rose between our two readings at least and at most."""
    outer = counters.softirqs()
    before = running.scrape()
    inner = counters.softirqs()
    work()
    inner = {kind: n - inner[kind] for kind, n in counters.softirqs().items()}
    rise = running.scrape().since(before)
    outer = {kind: n - outer[kind] for kind, n in counters.softirqs().items()}
    return rise, {kind: (inner[kind], outer[kind]) for kind in outer}


def softirq_latency(running: Running, prefix: str = "") -> Found:
    with namespaces.namespace(f"sirq{os.getpid()}") as space:
        rise, bounds = _softirqs(running, _datagrams(space))
    found: Found = {}
    for kind in ("timer", "net_rx", "sched", "rcu"):
        least, most = bounds[kind]
        found[kind] = (least, rise.sum(f"{prefix}softirq_serviced_total", kind=kind), most)
        # One may be running while we read, at either end, on each CPU.
        cpus = os.cpu_count() or 1
        observed = rise.sum(f"{prefix}softirq_service_latency_seconds_count", kind=kind)
        found[f"{kind} timed"] = (least - cpus, observed, most + cpus)
    found["net_rx at least"] = (1, rise.sum(f"{prefix}softirq_entry_latency_seconds_count", kind="net_rx"), 10**9)
    return found


def softirq_latency_net_rx(running: Running) -> Found:
    with namespaces.namespace(f"nrx{os.getpid()}") as space:
        rise, bounds = _softirqs(running, _datagrams(space))
    least, most = bounds["net_rx"]
    cpus = os.cpu_count() or 1
    serviced = rise.sum("softirq_net_rx_serviced_total")
    return {
        "serviced": (least, serviced, most),
        "timed": (serviced - cpus, rise.sum("softirq_runtime_seconds_count"), serviced + cpus),
        "waited": (1, rise.sum("softirq_wait_seconds_count"), serviced + cpus),
        "raised": (serviced - cpus, rise.sum("softirq_net_rx_raised_total"), 10 * serviced + cpus),
    }


def _datagrams(space: str) -> Callable[[], object]:
    return lambda: namespaces.call(space, inet.datagrams, inet.own_port(), 20 * COUNT)


def cgroup_rstat_flushing(running: Running) -> Found:
    """Each reading of cpu.stat flushes: with one lock that may be yielded to, or (later) the lock of each CPU."""
    depth = 5
    with cgroups.cgroup("rstat", depth=depth) as own:
        rise = rise_of(running, tasks.read_times, str(own / "cpu.stat"), COUNT)
    locked = rise.sum("cgroup_rstat_locked_total", level=str(depth))
    held = rise.sum("cgroup_rstat_lock_hold_seconds_count")
    cpus = os.cpu_count() or 1
    return {"locked": (COUNT, locked, COUNT * (cpus + 1)), "held": (COUNT, held, 10**6)}


def regexp(running: Running) -> Found:
    """Dropping the caches runs every shrinker until it has nothing left to give."""
    rise = rise_of(running, lambda: Path("/proc/sys/vm/drop_caches").write_text("2"))
    comm = Path("/proc/self/comm").read_text().strip()
    return {"runs": (1, rise.sum("mm_shrink_slab_events_total", comm=comm), 10**6)}


def uprobe(running: Running) -> Found:
    counted = []
    with cgroups.cgroup("malloc") as own, tempfile.TemporaryDirectory() as directory:
        program = str(tasks.compile_allocator(Path(directory)))
        for calls in (0, 10 * COUNT):
            rise = rise_of(running, cgroups.call, own, os.spawnv, os.P_WAIT, program, [program, f"{calls:03}"])
            counted.append(rise.sum("libc_malloc_calls_total", cgroup=cgroups.path(own)))
    return {"calls": exactly(10 * COUNT, counted[1] - counted[0])}


def usdt(running: Running) -> Found:
    with tempfile.TemporaryDirectory() as directory:
        names = [f"imported_{number}_{os.getpid()}" for number in range(COUNT)]
        for name in names:
            (Path(directory) / f"{name}.py").touch()
        text = f"import sys; sys.path.insert(0, {directory!r}); import {', '.join(names)}"
        rise = rise_of(running, tasks.run, ["/usr/bin/python3", "-S", "-c", text])
    return {name: exactly(1, rise.sum("python_module_imports_total", module=name)) for name in names}


def pci(running: Running) -> Found:
    said = ("", 0)

    def work() -> None:
        nonlocal said
        said = tasks.read_pci_configuration(COUNT)

    rise = rise_of(running, work)
    return {f"reads of {said[0]}": exactly(said[1], rise.sum("pci_user_read_config_ops_total"))}


# --- TCP, UDP, ICMP and Unix sockets ---


def tcp_retransmit(running: Running) -> Found:
    found: Found = {}
    name, port = f"rtx{os.getpid()}", inet.own_port()
    with inet.cable(name) as (client, server):
        for family in inet.FAMILIES:
            finish = namespaces.start(server, inet.accept_one, family, port)
            namespaces.call(server, namespaces.wait_for_listener, port)
            before = running.scrape()
            made = namespaces.call(client, inet.lose_segments, family, port, 2.0)
            finish()
            rise = running.scrape().since(before)
            labels = {"peer_ip": inet.SERVER[family], "local_ip": inet.CLIENT[family], "main_port": str(port)}
            counted = {
                kind: rise.sum("tcp_retransmit_packets_total", family=family, type=kind, **labels)
                for kind in ("retransmit", "tail_loss_probe")
            }
            probes = made.get("TcpExtTCPLossProbes", 0)
            found[f"{family} probes"] = exactly(probes, counted["tail_loss_probe"])
            found[f"{family} again"] = exactly(made["TcpRetransSegs"] - probes, counted["retransmit"])
            found[f"{family} at least"] = (2, sum(counted.values()), 100)
    return found


def backlog(running: Running, name: str, slot: Callable[[int], float]) -> Found:
    found: Found = {}
    port = inet.own_port()
    with namespaces.namespace(f"syn{os.getpid()}") as space:
        namespaces.call(space, inet.raise_somaxconn)
        for family in inet.FAMILIES:
            rise = rise_of(running, namespaces.call, space, inet.fill_backlog, family, port, 5 * COUNT)
            expected: dict[float, float] = {}
            for waiting in range(5 * COUNT):
                expected[slot(waiting)] = expected.get(slot(waiting), 0) + 1
            found |= {f"{family} le {b:g}": exactly(n, rise.buckets(name).get(b, 0)) for b, n in expected.items()}
            found[f"{family} sum"] = exactly(sum(range(5 * COUNT)), rise.sum(f"{name}_sum"))
    return found


def tcp_syn_backlog(running: Running) -> Found:
    return backlog(running, "tcp_syn_backlog", lambda waiting: -(-waiting // 50) * 50.0)


def tcp_syn_backlog_exp2zero(running: Running) -> Found:
    return backlog(running, "tcp_syn_backlog_exp2zero", power_of_two)


def power_of_two(number: int) -> float:
    """The bound of an exp2zero bucket: 0, 1, 2, 4, ..."""
    return float(1 << max(0, number - 1).bit_length()) if number > 1 else float(number)


def accept_latency(running: Running, name: str = "accept_latency_seconds") -> Found:
    port = inet.own_port()
    with namespaces.namespace(f"acc{os.getpid()}") as space:
        rise = rise_of(running, namespaces.call, space, inet.fill_backlog, "ipv4", port, COUNT, WAIT)
    return {
        "accepted": exactly(COUNT, rise.sum(f"{name}_count")),
        "later than 131 ms": exactly(COUNT, _late(rise, name, 0.131072)),
        "seconds": (COUNT * WAIT, rise.sum(f"{name}_sum"), COUNT * WAIT * 5),
    }


def icmp_ip(running: Running) -> Found:
    found: Found = {}
    with namespaces.namespace(f"icmp{os.getpid()}") as space:
        for family, number, source in (("ipv4", 4, "127.77.0.5"), ("ipv6", 6, "::1")):
            before = running.scrape()
            made = namespaces.call(space, inet.ping, family, source, COUNT)
            rise = running.scrape().since(before)
            metric = f"icmp{number}_received_packets_total"
            total = made["Icmp6InMsgs" if number == 6 else "IcmpInMsgs"]
            found[f"{family} received"] = exactly(total, rise.sum(metric))
            sent = COUNT if number == 4 else 2 * COUNT  # the answers come from ::1 too
            found[f"{family} from {source}"] = exactly(sent, rise.sum(metric, source_addr=source))
    return found


def inet_frags(running: Running) -> Found:
    found: Found = {}
    with namespaces.namespace(f"frag{os.getpid()}") as space:
        for family, key in (("ipv4", "IpReasmReqds"), ("ipv6", "Ip6ReasmReqds")):
            before = running.scrape()
            made = namespaces.call(space, inet.send_fragments, family, inet.own_port(), COUNT)
            rise = running.scrape().since(before)
            counted = rise.sum("inet_frags_total", interface="lo", ip_version=family[-1])
            found[family] = exactly(made[key], counted)
    return found


def unix_accept_latency(running: Running) -> Found:
    name = "unix_accept_latency_seconds"
    path = "/run/dbus/system_bus_socket"
    with cgroups.cgroup("unix") as own:
        rise = rise_of(running, cgroups.call, own, unix.connect_and_wait, path, COUNT, WAIT)
    return {
        "accepted": exactly(COUNT, rise.sum(f"{name}_count", addr=path)),
        "later than 128 ms": exactly(COUNT, _late(rise, name, 0.128, addr=path)),
    }


def unix_socket_backlog(running: Running) -> Found:
    name = "unix_socket_backlog"
    path = "/var/run/docker/metrics.sock"
    with cgroups.cgroup("unix") as own:
        rise = rise_of(running, cgroups.call, own, unix.connect_and_wait, path, COUNT, 0)
    expected: dict[float, float] = {}
    for waiting in range(COUNT):
        expected[power_of_two(waiting)] = expected.get(power_of_two(waiting), 0) + 1
    buckets = rise.buckets(name, addr=path)
    found: Found = {f"le {bound:g}": exactly(n, buckets.get(bound, 0)) for bound, n in expected.items()}
    return found | {"sum": exactly(sum(range(COUNT)), rise.sum(f"{name}_sum", addr=path))}


# What a kernel without kprobes and fentry can run is first.
CHECKS: dict[str, Callable[[Running], Found]] = {
    check.__name__: check
    for check in (
        biolatency,
        cgroup,
        cgroup_rstat_flushing,
        raw_tracepoints,
        regexp,
        softirq_latency,
        softirq_latency_net_rx,
        syscalls,
        uprobe,
        usdt,
        accept_latency,
        cachestat,
        cfs_throttling,
        ext4dist,
        icmp_ip,
        inet_frags,
        kstack,
        pci,
        tcp_retransmit,
        tcp_syn_backlog,
        tcp_syn_backlog_exp2zero,
        unix_accept_latency,
        unix_socket_backlog,
        xfsdist,
    )
}
