"""Attach points beyond one function of the kernel: globs, lists, modules, files, samples on CPUs that come and go."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.kernel import bpf, cpus
from exporter.kernel.btf import KernelBtf
from exporter.kernel.features import Kernel
from exporter.loading import build
from exporter.loading.attaching import cpu_hotplug
from exporter.program import Program, State
from exporter.spec import AttachSpec, ProgramSpec, Requirements, VariantSpec
from tests.kernel import shop
from tests.matrix.guest import product

EVENTS = 23
MORE = 17
SHOP = Path("/run/shop")
LAST_CPU = Path("/sys/devices/system/cpu/cpu1/online")

Check = Callable[[ProgramSpec, str, build.Host], dict[str, Any]]


def _two_calls(spec: ProgramSpec, variant: str, on: build.Host) -> dict[str, Any]:
    return _seen(spec, variant, on, _getppid_and_getpid)


def _getppid_and_getpid() -> int:
    for _ in range(EVENTS):
        os.getppid()
    for _ in range(MORE - 1):
        os.getpid()
    return os.getpid()


def _getppid() -> int:
    for _ in range(EVENTS):
        os.getppid()
    return os.getpid()


def _seen(spec: ProgramSpec, variant: str, on: build.Host, work: Callable[[], int]) -> dict[str, Any]:
    """What was counted of the process whose id `work` returns, or why nothing was."""
    program, fds = product.load(product.only(spec, variant), on)
    found = _outcome(program)
    try:
        if program.state is State.RUNNING:
            running = product.running(program, spec, fds)
            tgid = work()
            found["calls"] = running.scrape().sum("calls_total", tgid=str(tgid))
    finally:
        began = time.monotonic()
        fds.close()
    return {**found, "close_seconds": time.monotonic() - began}


def _outcome(program: Program) -> dict[str, Any]:
    return {
        "state": str(program.state),
        "reason": str(program.reason),
        "text": program.text,
        "places": sum(a.sites for a in program.attachments),
        "links": len({link for a in program.attachments for link in a.links}),
    }


def _uprobe(spec: ProgramSpec, variant: str, on: build.Host) -> dict[str, Any]:
    return _seen(spec, variant, on, _getppid)


def _module(spec: ProgramSpec, variant: str, on: build.Host) -> dict[str, Any]:
    with _dummy() as send:

        def work() -> int:
            for _ in range(EVENTS):
                send()
            return os.getpid()

        return _seen(spec, variant, on, work)


@contextmanager
def _dummy() -> Iterator[Callable[[], object]]:
    """Something that sends a packet through a dummy interface."""
    name = f"dummy{os.getpid() % 10000}"
    for words in (["add", name, "type", "dummy"], ["set", name, "up"]):
        subprocess.run(["ip", "link", *words], check=True)
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((name, 0x88B5))
            yield lambda: sock.send(b"\xff" * 6 + b"\x02" + b"\0" * 5 + b"\x88\xb5" + b"x" * 46)
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


def _usdt(spec: ProgramSpec, variant: str, on: build.Host) -> dict[str, Any]:
    """A process that runs before, and its semaphore, which the kernel raises while the program is attached."""
    shop.build(SHOP.parent, SHOP.name)
    with shop.running(SHOP) as early:
        before = early.do("listeners")

        def work() -> int:
            early.do("sell 2 apples")
            for _ in range(EVENTS - 1):
                early.do("sell apples")
            return early.pid

        found = _seen(spec, variant, on, work)
        return {**found, "before": before, "after": early.do("listeners")}


def _hotplug(spec: ProgramSpec, variant: str, on: build.Host) -> dict[str, Any]:
    """{"cpus": covered at first, "dead": samples of CPU 1 after it was offline and came back, "back": after a look}."""
    only = product.only(spec, variant)
    program, fds = product.load(only, on)
    try:
        found = _outcome(program)
        if program.state is not State.RUNNING:
            return found
        watch = cpu_hotplug.CpuHotplugWatch(only, Kernel())
        running = product.running(program, spec, fds)

        def samples_of_last() -> float:
            before = running.scrape().sum("samples_total", core="1")
            _busy(1, 1.0)
            return running.scrape().sum("samples_total", core="1") - before

        found["cpus"] = list(program.attachments[0].cpus)
        found["first"] = samples_of_last()
        program = watch.update(program, fds)
        LAST_CPU.write_text("0")
        found["offline"] = cpus.online()
        program = watch.update(program, fds)
        LAST_CPU.write_text("1")
        found["dead"] = samples_of_last()
        program = watch.update(program, fds)
        found["back"] = samples_of_last()
        found["links"] = len(fds.links)
        return found
    finally:
        fds.close()


def _busy(cpu: int, seconds: float) -> None:
    def work() -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


CHECKS: dict[str, Check] = {
    **dict.fromkeys(("kprobe_glob", "kretprobe_glob", "kprobe_list", "fentry_glob", "tracepoint_glob"), _two_calls),
    **dict.fromkeys(("kprobe_module", "fentry_module", "fentry_any_module", "module_glob"), _module),
    **dict.fromkeys(("kprobe_many", "uprobe", "uretprobe"), _uprobe),
    "usdt": _usdt,
    "perf_event": _hotplug,
}


MODULE_TYPES = """
BPF_HASH(sizes, u32, u64, 64);
int on_xmit(struct pt_regs *ctx, struct sk_buff *skb, struct net_device *dev)
{
	u32 first = 0, second = 1;
	u64 size = sizeof(struct veth_priv), offset = __builtin_offsetof(struct veth_rq, xdp_mem);

	sizes.update(&first, &size);
	sizes.update(&second, &offset);
	return 0;
}
"""


def module_types(header: str) -> dict[str, Any]:
    """{"state", "text", "seen": size of struct veth_priv and offset of veth_rq.xdp_mem in a program compiled here}."""
    sys.modules.pop("bcc", None)
    at = AttachSpec(kind="kprobe", targets=["dummy:dummy_xmit"], function="on_xmit")
    spec = ProgramSpec(
        name="module_types",
        requires=Requirements(module=["veth", "dummy"], member=["veth_priv.peer"]),
        variants=[VariantSpec(attach=[at])],
        metrics=[],
        source=Path("module_types.c"),
        text=MODULE_TYPES,
    )
    with tempfile.TemporaryDirectory() as cache, _dummy() as send:
        program, fds = product.load(spec, product.host(Path(cache), header))
        try:
            found = _outcome(program)
            if program.state is State.RUNNING:
                send()
                values = [bpf.map_lookup(fds.readonly["sizes"], struct.pack("=I", key), 8) for key in (0, 1)]
                found["seen"] = [struct.unpack("=Q", value)[0] for value in values if value]
                with KernelBtf() as base, KernelBtf("/sys/kernel/btf/veth", base) as btf:
                    member = next(m for m in btf.struct_members("veth_rq") if m.name == "xdp_mem")
                    found["expected"] = [btf.struct_size("veth_priv"), member.offset // 8]
            return found
        finally:
            fds.close()
