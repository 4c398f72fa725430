"""The command as a person or a service manager sees it: exit codes, and one clear message each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.web.listening import listen
from tests.daemon import ROOT
from tests.kernel.renames import write_config

NO_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]


def command(
    *arguments: str, prefix: list[str] | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    line = [*(prefix or []), sys.executable, "-m", "exporter", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run(config: Path, tmp_path: Path, *arguments: str, prefix: list[str] | None = None,
        environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    rest = ["--config.file", str(config), "--cache.dir", str(tmp_path / "cache"), *arguments]
    return command("run", "--log.format", "logfmt", *rest, prefix=prefix, environment=environment)


def test_without_rights_run_ends_with_4_before_anything_else(tmp_path: Path) -> None:
    done = run(tmp_path / "none.yaml", tmp_path, prefix=NO_RIGHTS)
    assert done.returncode == 4
    assert "loading BPF programs needs CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN: run as root" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_without_the_right_to_become_another_user_run_ends_with_4(tmp_path: Path) -> None:
    done = run(write_config(tmp_path), tmp_path, prefix=["setpriv", "--bounding-set=-setuid,-setgid,-kill", "--"])
    assert done.returncode == 4, done.stderr
    assert "needs CAP_SETUID, CAP_SETGID, CAP_KILL: run as root" in done.stderr


def test_without_bcc_and_with_an_empty_cache_run_ends_with_4(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(bare)], check=True)
    packages = [path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *packages])}
    config = str(write_config(tmp_path))

    def bare_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [str(bare / "bin/python3"), "-m", "exporter", *arguments]
        return subprocess.run(
            line, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60, check=False
        )

    checked = bare_command("check", config)
    assert checked.returncode == 0, checked.stderr
    assert "only the files were checked: bcc is not installed (apt-get install python3-bpfcc)" in checked.stdout
    assert bare_command("check", config, "--btf", "/sys/kernel/btf/vmlinux").returncode == 4
    done = bare_command(
        "run", "--config.file", config, "--cache.dir", str(tmp_path / "cache"), "--web.listen-address", "127.0.0.1:0"
    )
    assert done.returncode == 4, done.stderr
    assert "renames: compile: bcc is not installed" in done.stderr
    assert "apt-get install python3-bpfcc" in done.stderr


def test_a_port_in_use_ends_with_1_and_names_it(tmp_path: Path) -> None:
    with listen("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(write_config(tmp_path), tmp_path, "--web.listen-address", address)
    assert done.returncode == 1
    assert f'listen address \\"{address}\\": Address already in use' in done.stderr


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    done = run(write_config(tmp_path), tmp_path, "--web.listen-address", "127.0.0.1:0")
    assert done.returncode == 1
    assert "it can be written by its group and everybody (mode 0777)" in done.stderr


def test_a_wrong_configuration_ends_with_3_and_every_position(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("programs:\n  - use: tcp_rts\n    enabeld: true\n")
    done = run(config, tmp_path)
    assert done.returncode == 3
    assert f"{config}:2:10: " in done.stderr
    assert f"{config}:3:5: " in done.stderr


def test_a_configuration_of_another_user_is_refused_as_kernel_code(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    os.chown(config, 12345, 0)
    done = run(config, tmp_path)
    assert done.returncode == 3
    assert "12345" in done.stderr
    assert "chown" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["run", "--web.telemetry-path", "metrics"], "'metrics' must be a path of its own, such as /metrics"),
        (["run", "--user", "no-such-user"], "no user 'no-such-user' here: name one, or give a number"),
        (["programs", "tcp_rts"], "no bundled program 'tcp_rts'; did you mean \"tcp_rst\"?"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], text: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr


def test_check_needs_no_root_and_says_what_it_saw(tmp_path: Path) -> None:
    done = command("check", "config.example.yaml", prefix=NO_RIGHTS)
    assert done.returncode == 0, done.stderr
    assert "no mistakes found" in done.stdout


def test_check_reads_a_web_configuration_too(tmp_path: Path) -> None:
    config, web = write_config(tmp_path), tmp_path / "web.yaml"
    web.write_text("tls_server_config: {cert_file: no.crt}\n")
    done = command("check", str(config), "--web.config.file", str(web))
    assert done.returncode == 3
    assert f"{web}:1:21: {tmp_path}/no.crt: cannot be read: no such file or directory" in done.stderr
    web.write_text("{}\n")
    assert command("check", str(config), "--web.config.file", str(web)).returncode == 0


def test_strict_check_makes_warnings_errors(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("ebpf_renames_total", "ebpf_renames"))
    relaxed, strict = command("check", str(config)), command("check", "--strict", str(config))
    assert relaxed.returncode == 0
    assert "warning: " in relaxed.stderr
    assert strict.returncode == 3
    assert "_total" in strict.stderr


def test_check_compiles_every_variant_and_finds_what_the_files_cannot_say(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    good = command("check", str(config))
    assert (good.returncode, good.stdout.splitlines()[0]) == (0, "renames: compiled")
    config.write_text(config.read_text().replace("map: renames", "map: renmaes"))
    bad = command("check", str(config))
    assert bad.returncode == 3
    assert "renmaes" in bad.stdout
    assert "renames" in bad.stdout.split("renmaes", 1)[1]  # the map that there is


def test_check_load_attaches_and_takes_away(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = command("check", "--load", str(config))
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "renames: running")
    config.write_text(config.read_text().replace("task_rename", "task_renmae"))
    missing = command("check", "--load", str(config))
    assert missing.returncode == 5
    assert "near: " in missing.stdout
    assert "task_rename" in missing.stdout
    assert command("check", "--load", str(config), prefix=NO_RIGHTS).returncode == 4


def test_check_compiles_for_the_types_of_another_kernel(tmp_path: Path) -> None:
    types = tmp_path / "vmlinux"
    types.write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    done = command("check", str(write_config(tmp_path)), "--btf", str(types), "--release", "6.99.0-test")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "renames: used")
    assert command("check", str(write_config(tmp_path)), "--btf", str(tmp_path / "none")).returncode == 2


def test_check_says_what_the_maps_take(tmp_path: Path) -> None:
    done = command("check", str(write_config(tmp_path)))
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    said = r"maps: 0\.\d MiB of kernel memory when they are full, with \d+ possible CPUs \(most: renames 0\.\d MiB\)"
    assert re.fullmatch(said, last)


def test_check_speaks_json(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    report = json.loads(command("check", "--json", str(config)).stdout)
    assert report["errors"] == []
    assert report["programs"][0].pop("map_memory") > 4096 * 12, "keys and values alone take as much"
    assert report["programs"] == [
        {"program": "renames", "variant": "", "ok": True, "state": "compiled", "reason": "", "text": "", "assumed": []}
    ]
    config.write_text("programs: 3\n")
    done = command("check", "--json", str(config))
    assert done.returncode == 3
    assert json.loads(done.stdout)["errors"][0].startswith(f"{config}:1:11: ")


def test_check_finds_banned_calls_without_a_compiler(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    text = config.read_text().replace(
        "add(renames.lookup_or_try_init(&key, &zero), 1, LOST(renames));", "renames.increment(key);"
    )
    config.write_text(text)
    done = command("check", str(config), prefix=NO_RIGHTS)
    assert done.returncode == 3
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "increment" in row)
    assert f"config.yaml:{line}" in done.stderr
    assert "lookup_or_try_init" in done.stderr


def test_doctor_looks_at_the_real_host_and_says_what_to_do() -> None:
    healthy = command("doctor", "--json")
    lines = {line["subject"]: line for line in json.loads(healthy.stdout)}
    assert healthy.returncode == 0
    assert lines["kernel"]["found"].startswith(os.uname().release)
    for kind in ("raw_tracepoint", "tracepoint", "tp_btf", "uprobe", "usdt", "perf_event"):
        assert lines[f"attach {kind}"] == {"subject": f"attach {kind}", "level": "ok", "found": "yes", "advice": ""}
    others = ("kprobe", "kretprobe", "fentry", "fexit", "uretprobe", "kprobe.multi", "uprobe.multi")
    tried = {f"attach {kind}" for kind in others} | {"hardware counters"}
    assert all(lines[subject]["level"] == "ok" or lines[subject]["advice"] for subject in tried)
    read = ("kernel symbols", "memory to compile", "clock", "cgroups", "pods", "kernel types (BTF)", "lockdown")
    assert set(read) <= set(lines)
    limited = command("doctor", prefix=NO_RIGHTS)
    assert limited.returncode == 1
    assert "! rights: without CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN\n    run as root" in limited.stdout


def test_programs_lists_all_and_explains_one() -> None:
    listed = command("programs")
    assert listed.returncode == 0
    for name in ("tcp_rst", "tcp_sendmsg", "tcp_latency"):
        assert f"\n{name} " in listed.stdout
        explained = command("programs", name)
        assert explained.returncode == 0
        assert "Variants" in explained.stdout
    assert "before 6.7" in command("programs", "tcp_rst").stdout  # what kprobes may miss


def test_a_reader_that_leaves_early_is_no_error() -> None:
    shell = f"{sys.executable} -m exporter schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command_is_there() -> None:
    found = shutil.which("bpf-exporter", path=str(Path(sys.executable).parent))
    assert found is not None
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("bpf-exporter ")
