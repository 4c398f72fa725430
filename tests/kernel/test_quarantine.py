"""A host that died while the exporter ran, as the next boot finds it: a real exporter killed, and its record made to be
of another boot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from exporter.supervisor.crash_record import CrashRecord
from tests.daemon import ROOT, Daemon, running
from tests.kernel.renames import rename, write_config
from tests.waiting import let_collection_expire, until

OTHER = """\
  - name: other
    code: |
      BPF_ARRAY(others, u64, 1);
      int on_other(void *ctx) { return 0; }
    attach: [{raw_tracepoint: task_rename, function: on_other}]
    metrics: [{name: ebpf_others, type: gauge, help: None., map: others, labels: []}]
"""


def quarantine(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "quarantine", "--state.dir", str(directory / "state"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def die_with_host(daemon: Daemon, directory: Path) -> None:
    """As if the host had gone down with the exporter: nothing more is written, and the next boot has another id."""
    daemon.process.kill()
    daemon.process.wait()
    path = CrashRecord(directory / "state").path
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "11111111-2222-3333-4444-555555555555"}))


def test_a_program_that_the_host_died_with_is_kept_away_until_a_person_clears_it(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        assert daemon.state("renames") == "running"
        assert quarantine(tmp_path).stdout == "no program is quarantined\n"
        die_with_host(daemon, tmp_path)
    write_config(tmp_path, OTHER)
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        assert (daemon.state("renames"), daemon.state("other")) == ("quarantined", "running")
        assert daemon.value("bpf_exporter_program_variant_info", program="renames", reason="crash") == 1
        assert "bpf-exporter quarantine --clear renames" in daemon.log
        assert "this host died within five minutes of" in daemon.get("/")
        assert quarantine(tmp_path).stdout.startswith("renames  attached since 20")
        nobody = quarantine(tmp_path, "--clear", "nobody")
        assert (nobody.returncode, nobody.stdout) == (2, "")
        assert nobody.stderr == "bpf-exporter quarantine: nobody is not quarantined (renames is)\n"
        assert quarantine(tmp_path, "--clear", "renames").stdout.startswith("renames: cleared, attached again within")
        until(lambda: daemon.state("renames") == "running", lambda: daemon.log)
        before = daemon.value("ebpf_renames_total")
        rename(23)
        let_collection_expire()
        assert daemon.value("ebpf_renames_total") - before >= 23
        assert daemon.stop() == 0
    assert json.loads(CrashRecord(tmp_path / "state").path.read_text())["ended"] is True


def test_another_text_is_loaded_and_where_only_the_exporter_died_nothing_is_kept_away(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        daemon.process.kill()
        daemon.process.wait()
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        assert daemon.state("renames") == "running"
        die_with_host(daemon, tmp_path)
    config.write_text(config.read_text().replace("    code: |\n", "    code: |\n      // mended\n"))
    with running(config, tmp_path) as daemon:
        daemon.wait_ready()
        assert daemon.state("renames") == "running"
        assert quarantine(tmp_path).stdout.startswith("renames  attached since 20")  # the text of before
