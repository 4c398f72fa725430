"""The bundled programs, one variant at a time: what they counted of traffic that is known to the last packet."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.loading import build
from exporter.program import Program, State
from exporter.spec import ProgramSpec
from tests.kernel.bundled import Running, Samples
from tests.kernel.workloads import delays, namespaces, resets, sends
from tests.matrix.guest import netem, product

PORT = 20123  # below what the kernel gives out by itself
RESETS = 23  # of each kind
SENDS = 5  # of each size
REQUESTS = 23
DELAY = 0.020
BUCKET = 0.032768  # the bound of the bucket that holds DELAY: 2^15 us; the one below ends at 16.384 ms
TRIES = 4  # until this machine was not itself the slow one


@dataclass(frozen=True, slots=True)
class Checks:
    """What to do with a program that runs. Traffic in, what should be and what was counted out, as JSON."""

    specs: dict[str, ProgramSpec]
    on: build.Host

    def variant(self, program: str, variant: str) -> dict[str, Any]:
        """One variant by itself. {"state", "reason", "text"} and, if it runs, what its check in CHECKS found."""
        spec = self.specs[program]
        loaded, fds = product.load(product.only(spec, variant), self.on)
        try:
            found = _outcome(loaded)
            if loaded.state is State.RUNNING:
                found |= CHECKS[program](product.running(loaded, spec, fds))
            return found
        finally:
            fds.close()

    def chosen(self, program: str) -> dict[str, Any]:
        """What the exporter does by itself: the first variant that works, and why not those before it."""
        loaded, fds = product.load(self.specs[program], self.on)
        fds.close()
        attempts = [[a.variant, str(a.reason), a.text] for a in loaded.attempts]
        return {**_outcome(loaded), "variant": loaded.variant, "attempts": attempts}

    def compiled_inside(self, program: str) -> dict[str, Any]:
        """The same with bcc on this kernel and an empty cache."""
        sys.modules.pop("bcc", None)
        spec = self.specs[program]
        with tempfile.TemporaryDirectory() as cache:
            loaded, fds = product.load(spec, product.host(Path(cache), self.on.header))
            found = {**_outcome(loaded), "variant": loaded.variant, "compile_seconds": loaded.compile_seconds}
            if loaded.state is State.RUNNING:
                found |= CHECKS[program](product.running(loaded, spec, fds))
            return found


def _outcome(program: Program) -> dict[str, Any]:
    return {
        "state": str(program.state),
        "reason": str(program.reason),
        "text": program.text,
        "cached": program.from_cache,
    }


def _resets(running: Running) -> dict[str, Any]:
    """{"made", "counted": rows of six labels and a number, "sent", "out_resets": the kernel's own count of them}."""
    names = ("direction", "kind", "state", "reason", "family", "port")
    with namespaces.namespace(f"rst{os.getpid()}") as space:
        before, own = running.scrape(), namespaces.call(space, resets.out_resets)
        made = namespaces.call(space, resets.make, RESETS, PORT)
        out = namespaces.call(space, resets.out_resets) - own
        rise = running.settled("ebpf_tcp_resets_total", sum(int(str(row[-1])) for row in made), before)
    counted = [[dict(has)[name] for name in names] + [n] for has, n in rise.of("ebpf_tcp_resets_total").items()]
    sent = rise.sum("ebpf_tcp_resets_total", direction="sent")
    return {"made": sorted(made), "counted": sorted(counted), "sent": sent, "out_resets": out}


def _sends(running: Running) -> dict[str, Any]:
    """By family {"made", "counted"}, each {"calls", "bytes", "errors", "sizes": {bound: how many}, "sum"}."""
    with _cgroup() as (cgroup, labels), namespaces.namespace(f"send{os.getpid()}") as space:
        before = running.scrape()
        made = namespaces.call(space, sends.make, SENDS, PORT, join=cgroup)
        rise = running.scrape().since(before)
    size = "ebpf_tcp_sendmsg_size_bytes"
    found: dict[str, Any] = {}
    for family, expected in made.items():
        sizes = expected["sizes"]
        bounds = Counter(float(1 << max(0, n - 1).bit_length()) for n in sizes)
        counted = {
            what: rise.sum(f"ebpf_tcp_sendmsg_{what}_total", family=family, **labels)
            for what in ("calls", "bytes", "errors")
        }
        counted_sizes = {
            "sizes": _sorted(rise.buckets(size, family=family)),
            "sum": rise.sum(f"{size}_sum", family=family),
        }
        found[family] = {
            "made": {**expected, "sizes": _sorted(bounds), "sum": sum(sizes)},
            "counted": {**counted, **counted_sizes},
        }
    return found


def _latency(running: Running) -> dict[str, Any]:
    """By family {"late": answers that took user space longer than BUCKET, "seen": seconds of all of them,
    "response" and "connect": {bound: how many} of the client, "sum": of its responses, "server": how many samples}."""
    with netem.delayed(f"lat{os.getpid()}", DELAY) as line:
        return {family: _talk(running, line, family) for family in delays.ADDRESSES}


def _talk(running: Running, line: tuple[str, str], family: str) -> dict[str, Any]:
    for _ in range(TRIES):
        finish = namespaces.start(line[1], delays.echo, family, PORT, 2)
        namespaces.call(line[1], namespaces.wait_for_listener, PORT)
        namespaces.call(line[0], delays.ask, family, PORT, 0)  # the neighbour's address takes a way of its own
        before = running.scrape()
        seen = namespaces.call(line[0], delays.ask, family, PORT, REQUESTS)
        finish()
        rise = running.scrape().since(before)
        late = sum(seconds > BUCKET for seconds in seen["answers"])
        if late < REQUESTS / 4:
            break
    client = {"family": family, "role": "client", "port": "ephemeral"}
    server = {"family": family, "role": "server", "port": str(PORT)}
    return {
        "late": late,
        "late_connect": int(seen["connect"] > BUCKET),
        "seen": sum(seen["answers"]),
        "response": _samples(rise, "response", client),
        "connect": _samples(rise, "connect", client),
        "sum": rise.sum("ebpf_tcp_response_seconds_sum", **client),
        "server": {
            "response": rise.sum("ebpf_tcp_response_seconds_count", **server),
            "srtt": rise.sum("ebpf_tcp_srtt_seconds_count", **server),
        },
    }


def _samples(rise: Samples, what: str, labels: dict[str, str]) -> dict[str, float]:
    return _sorted(rise.buckets(f"ebpf_tcp_{what}_seconds", **labels))


def _sorted(buckets: Counter[float] | dict[float, float]) -> dict[str, float]:
    """By the bound as text, which JSON wants."""
    return {repr(bound): float(buckets[bound]) for bound in sorted(buckets)}


@contextmanager
def _cgroup() -> Iterator[tuple[Path, dict[str, str]]]:
    """A cgroup that looks like a container in a service, and the labels that it should have."""
    service = Path("/sys/fs/cgroup") / f"test-{secrets.token_hex(4)}.service"
    identity = secrets.token_hex(32)
    container = service / f"docker-{identity}.scope"
    container.mkdir(parents=True)
    try:
        yield container, {"unit": service.name, "container": identity[:12]}
    finally:
        container.rmdir()
        service.rmdir()


CHECKS: dict[str, Callable[[Running], dict[str, Any]]] = {
    "tcp_rst": _resets,
    "tcp_sendmsg": _sends,
    "tcp_latency": _latency,
}
