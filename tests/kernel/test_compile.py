"""`compile` fills a cache, and `run --no-compile` takes from it what fits and refuses the rest by name; without bcc."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.commands.compile import make
from exporter.loading.artifact import Cache
from exporter.loading.build import Host
from exporter.loading.load_program import load_program
from exporter.program import Reason, State
from tests.daemon import ROOT, running
from tests.kernel import shop
from tests.kernel.programs import point, spec
from tests.kernel.renames import CONFIG, rename, write_config
from tests.kernel.shop import SALES

BTF = Path("/sys/kernel/btf/vmlinux")
RELEASE = os.uname().release
VARIANTS = """\
  - name: calls
    code: |
      BPF_HASH(calls, u32, u64, 64);

      int on_call(void *ctx)
      {
          u64 zero = 0;
          u32 key = 0;

          add(calls.lookup_or_try_init(&key, &zero), 1, LOST(calls));
          return 0;
      }
    variants:
      - name: newest
        requires: {kernel: ">=7.99"}
        attach: [{raw_tracepoint: sys_enter, function: on_call}]
      - name: absent
        requires: {member: task_struct.no_such_member}
        attach: [{raw_tracepoint: sys_enter, function: on_call}]
      - {name: first, attach: [{raw_tracepoint: no_such_event, function: on_call}]}
      - {name: second, attach: [{raw_tracepoint: sys_enter, function: on_call}]}
    metrics:
      - {name: ebpf_calls_total, type: counter, help: System calls., map: calls, labels: []}
"""


def compiled(config: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "compile", str(config), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python that has what the exporter needs, and no bcc."""
    directory = tmp_path_factory.mktemp("bare")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(directory)], check=True)
    return [str(directory / "bin/python3")]


@pytest.fixture
def without_bcc() -> dict[str, str]:
    packages = [path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *packages])}


def test_a_host_without_bcc_runs_what_was_compiled_for_its_kernel(
    tmp_path: Path, bare: list[str], without_bcc: dict[str, str]
) -> None:
    config = write_config(tmp_path, VARIANTS)
    done = compiled(config, tmp_path / "out", "--btf", str(BTF), "--release", RELEASE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "renames: compiled",
        f"calls newest: not needed (requires kernel >=7.99 (that one is {RELEASE}))",
        "calls absent: not needed (requires member task_struct.no_such_member (not in this BTF))",
        "calls first: compiled",
        "calls second: compiled",
        f"{tmp_path}/out: 3 artifacts for linux {RELEASE} {platform.machine()}, of 2 programs",
    ]
    with running(
        config, tmp_path, "--no-compile", cache=tmp_path / "out", environment=without_bcc, python=bare
    ) as daemon:
        daemon.wait_ready()
        rename(23)
        assert daemon.value("ebpf_renames_total", pid=str(os.getpid())) >= 23
        assert re.search(r'program=renames .*how="from cache"', daemon.log)
        assert re.search(r'program=calls variant=second .*how="from cache"', daemon.log), daemon.log
        for pid in (daemon.process.pid, daemon.server_pid()):
            assert not re.search("libLLVM|libclang|libbcc", Path(f"/proc/{pid}/maps").read_text())


def test_what_is_there_is_not_compiled_again(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert compiled(config, tmp_path / "out").stdout.startswith("renames: compiled\n")
    assert compiled(config, tmp_path / "out").stdout.startswith("renames: in the cache\n")


@pytest.mark.parametrize(
    ("release", "text", "why"),
    [
        ("6.99.0-test", CONFIG, "found for linux 6.99.0-test {arch}, BTF {btf}: another release"),
        (RELEASE, CONFIG.replace("4096", "2048"), "found for {host}: another C text or other defines"),
        (RELEASE, CONFIG.replace("name: renames", "name: others"), "nothing of this program is there"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused_by_name(tmp_path: Path, release: str, text: str, why: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = write_config(tmp_path / "elsewhere")
    elsewhere.write_text(text)
    assert compiled(elsewhere, tmp_path / "out", "--btf", str(BTF), "--release", release).returncode == 0
    with running(write_config(tmp_path), tmp_path, "--no-compile", cache=tmp_path / "out") as daemon:
        daemon.wait_ready()
        assert daemon.value("bpf_exporter_program_state", program="renames", state="failed") == 1
        digest = subprocess.run(["sha256sum", BTF], check=True, capture_output=True, text=True).stdout[:12]
        arch = platform.machine()
        host = f"linux {RELEASE} {arch}, BTF {digest}"
        found = why.format(arch=arch, btf=digest, host=host)
        said = f"renames: compile: not allowed here, and not in {tmp_path}/out: it needs {host}; {found}"
        assert said in daemon.get("/").replace("&gt;", ">"), daemon.log
        assert "reason=cache" in daemon.log


def test_arguments_of_usdt_probes_are_bound_to_the_build_of_the_file(tmp_path: Path, shared_host: Host) -> None:
    cache = Cache(tmp_path / "out")
    host = replace(shared_host, cache=cache, compiles=False)
    program = spec(SALES, [point("usdt", f"{shop.build(tmp_path)}:shop:sold", "on_sold")], name="sales")
    assert make(program, program.variants[0], host.target, cache).state == "compiled"
    outcome, descriptors = load_program(program, host)
    descriptors.close()
    assert (outcome.state, outcome.from_cache) == (State.RUNNING, True), outcome.text
    shop.build(tmp_path, "shop", "-O0")
    outcome, _ = load_program(program, host)
    assert (outcome.state, outcome.reason) == (State.FAILED, Reason.CACHE)
    assert "sales: compile: not allowed here" in outcome.text
    assert "another shared header, other modules or another build of a probed file" in outcome.text


def test_a_program_that_has_nothing_there_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("LOST(renames)", "LOST(renames"))
    done = compiled(config, tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr == "bpf-exporter compile: nothing for renames\n"
    assert f"renames: refused (compile {config}:" in done.stdout


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--btf", str(BTF)], f"--btf {BTF}: a BTF file has no release (--release: what uname -r says there)"),
        (["--btf", "{scratch}/none", "--release", "6.1.0"], "--btf {scratch}/none: read BTF {scratch}/none: "),
        (["--btf", "{scratch}/text", "--release", "6.1.0"], "--btf {scratch}/text: read BTF {scratch}/text: not a BTF"),
        (["--kernel", "{scratch}/none"], "--kernel {scratch}/none: No such file or directory"),
        (["--kernel", "{scratch}/text"], "--kernel {scratch}/text: no compressed kernel found inside"),
        (["--btf", str(BTF), "--release", "new"], "--release: kernel release 'new' does not start with a version"),
        (
            ["--btf", str(BTF), "--release", "6.1.0", "--arch", "{other}"],
            "--btf {btf}: these are the types of {arch}, not",
        ),
    ],
)
def test_a_kernel_that_is_not_known_is_a_mistake_in_the_command(tmp_path: Path, options: list[str], why: str) -> None:
    (tmp_path / "text").write_text("no kernel\n")
    arch = platform.machine()
    names = {
        "scratch": tmp_path, "btf": BTF, "arch": arch, "other": "aarch64" if arch == "x86_64" else "x86_64",
    }  # fmt: skip
    done = compiled(write_config(tmp_path), tmp_path / "out", *(option.format(**names) for option in options))
    assert done.returncode == 2
    assert done.stderr.startswith(f"bpf-exporter compile: {why.format(**names)}")
