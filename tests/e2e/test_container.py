"""docs/container.md: the image is built as it says and run with exactly the rights and mounts that it says."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import pin_wheels
from exporter.kernel import cgroups
from tests.e2e import debian
from tests.e2e.podman import Podman, limits, podman
from tests.e2e.queries import ROOT
from tests.matrix.kernels import cache_directory
from tests.waiting import answers, let_collection_expire, until

pytestmark = pytest.mark.side

PAGE = (ROOT / "docs/container.md").read_text()
BLOCKS = [text.replace("\\\n", " ") for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
(BUILD,) = (shlex.split(text) for text in BLOCKS if text.startswith("podman build "))
(RUN,) = (shlex.split(text) for text in BLOCKS if text.startswith("podman run "))
IMAGE = "localhost/bpf-exporter"
CALLS = 23  # a prime that nothing else is likely to make
# Goes into the cgroup, sends CALLS times seven bytes over loopback, and waits: a cgroup that is gone has no name.
CHATTER = f"""
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
for _ in range({CALLS}):
    client.send(b"1234567")
    server.recv(7, socket.MSG_WAITALL)
print("sent", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Container:
    podman: Podman
    port: int

    @property
    def pid(self) -> int:
        """The supervisor, as the host knows it."""
        return int(self.podman.run("inspect", "--format", "{{.State.Pid}}", "bpf-exporter"))

    def page(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def logs(self) -> str:
        return self.podman.run("logs", "bpf-exporter", check=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """The image, on Debian 13 as debootstrap makes it, with wheels that pip of this machine has fetched."""
    packages = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    pip += ["--implementation=cp", f"--python-version={pin_wheels.PYTHONS[1]}", f"--dest={packages}"]
    pip += [f"--platform={name}_x86_64" for name in pin_wheels.PLATFORMS]
    subprocess.run([*pip, "-r", str(pin_wheels.REQUIREMENTS)], check=True, timeout=600)
    with podman() as mine:
        mine.image_of(debian.root(cache_directory(), "trixie"), "localhost/debian:13")
        here = ["--isolation=chroot", "--network=host", f"--volume={packages}:/wheels:ro"]
        here += [
            "--build-arg=BASE=localhost/debian:13",
            "--build-arg=PIP_NO_INDEX=1",
            "--build-arg=PIP_FIND_LINKS=/wheels",
        ]
        _, verb, *arguments, context = BUILD
        assert context == "."
        mine.run(
            verb, *here, *(str(ROOT / x) if x.startswith("deploy/") else x for x in arguments), str(ROOT), timeout=900
        )
        yield mine


@pytest.fixture(scope="module")
def created(image: Podman) -> Container:
    """A container, run by the page's command on a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert RUN[-1] == IMAGE
    image.run(*RUN[1:-1], *limits(), IMAGE, "run", "--web.listen-address", f"127.0.0.1:{port}")
    return Container(image, port)


@pytest.fixture
def container(created: Container) -> Container:
    """The container after every program was tried; it is started again where a test before has stopped it."""
    created.podman.run("start", "bpf-exporter")
    until(lambda: answers(f"http://127.0.0.1:{created.port}/-/ready"), created.logs, 120)
    return created


def test_every_program_of_the_image_runs(container: Container) -> None:
    page = container.page()
    for program in ("tcp_rst", "tcp_sendmsg", "tcp_latency"):
        assert f'bpf_exporter_program_state{{program="{program}",state="running"}} 1' in page, container.logs()


def test_it_counts_what_the_host_does_under_the_name_of_the_hosts_cgroup(container: Container) -> None:
    mount = cgroups.find_mount(Path("/proc"))
    assert mount is not None
    name = f"bpfx{time.monotonic_ns()}.service"
    group = mount / name
    group.mkdir()
    command = [sys.executable, "-c", CHATTER, str(group)]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as chatter:
            assert chatter.stdout is not None
            assert chatter.stdout.readline() == "sent\n"
            let_collection_expire()
            page = container.page()
            chatter.communicate("")
        labels = f'{{container="none",family="ipv4",unit="{name}"}}'
        assert f"ebpf_tcp_sendmsg_calls_total{labels} {CALLS}\n" in page, page
        assert f"ebpf_tcp_sendmsg_bytes_total{labels} {CALLS * 7}\n" in page
    finally:
        group.rmdir()


def test_the_supervisor_has_the_capabilities_of_the_page_and_the_server_none(container: Container) -> None:
    given = {option for before, option in itertools.pairwise(RUN) if before == "--cap-add"}
    rows = re.findall(r"^\| ([A-Z_, ]+) \|", PAGE, re.MULTILINE)
    assert given == {name for row in rows for name in row.split(", ")}
    supervisor = status(container.pid)
    assert capabilities(supervisor["CapEff"]) == capabilities(supervisor["CapBnd"]) == given
    assert supervisor["NoNewPrivs"] == "1"
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    (server,) = [found for found in map(status, map(int, children)) if not found["Uid"].startswith("0\t")]
    assert int(server["CapEff"], 16) == int(server["CapPrm"], 16) == 0


def test_doctor_finds_no_problem_in_it(container: Container) -> None:
    found = container.podman.run("exec", "bpf-exporter", "bpf-exporter", "doctor")
    assert "\n!" not in found
    assert "addresses can be read" in found
    assert "tracefs: /sys/kernel/tracing" in found


def test_a_library_of_the_host_can_be_probed(container: Container) -> None:
    """By /proc/PID/root, as the page says, of a process outside (1 may be guarded better than others)."""
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
    config = (
        "programs:\n"
        "  - name: probe\n"
        "    code: |\n"
        "      BPF_ARRAY(calls, u64, 1);\n"
        "      int on_call(struct pt_regs *ctx)\n"
        "      {\n"
        "          u32 first = 0;\n"
        "          add(calls.lookup(&first), 1, LOST(calls));\n"
        "          return 0;\n"
        "      }\n"
        f"    attach: [{{uprobe: '/proc/{os.getpid()}/root{library}:getppid', function: on_call}}]\n"
        "    metrics: [{name: ebpf_calls_total, type: counter, help: Calls., map: calls}]\n"
    )
    script = 'printf %s "$1" > /tmp/probe.yaml && bpf-exporter check --load /tmp/probe.yaml'
    container.podman.run("exec", "bpf-exporter", "sh", "-c", script, "sh", config)


def test_stopping_detaches_everything(container: Container) -> None:
    container.podman.run("stop", "bpf-exporter")
    assert "everything is detached" in container.logs()
    state = container.podman.run("inspect", "--format", "{{.State.ExitCode}}", "bpf-exporter")
    assert state.strip() == "0"


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def capabilities(mask: str) -> set[str]:
    """Names of the bits of a mask of /proc/PID/status, for those that the page has (linux/capability.h)."""
    names = {1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", 5: "KILL", 6: "SETGID", 7: "SETUID", 19: "SYS_PTRACE"}
    names |= {21: "SYS_ADMIN", 34: "SYSLOG", 38: "PERFMON", 39: "BPF"}
    return {names.get(bit, str(bit)) for bit in range(64) if int(mask, 16) >> bit & 1}
