"""A kernel that really dies while the exporter runs: what the next boot of the same machine makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.renames import write_config
from tests.matrix import kernels, machine
from tests.matrix.examine import CHECKOUT

EXPORTER = (
    f"cd {CHECKOUT}; {sys.executable} -m exporter run --no-compile --config.file /mnt/config.yaml"
    " --cache.dir /mnt/cache --state.dir /mnt/state --web.listen-address 127.0.0.1:10435 > /mnt/exporter.log 2>&1 &"
    " until grep -q event=ready /mnt/exporter.log; do sleep 0.2; done"
)
FETCH = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:10435/metrics').read().decode())"
PAGE = f'{sys.executable} -c "{FETCH}"'


if kernels.WHOLE:  # two more boots, 40 to 100 s: make matrix has them

    def test_a_program_that_the_kernel_died_with_is_not_attached_in_the_next_boot(tmp_path: Path) -> None:
        kernel = kernels.get("6.12", kernels.cache_directory())
        config = write_config(tmp_path)
        compiled = [sys.executable, "-m", "exporter", "compile", str(config), "--kernel", str(kernel.vmlinuz)]
        subprocess.run([*compiled, "--out", str(tmp_path / "cache")], check=True, cwd=CHECKOUT)
        with pytest.raises(machine.MachineError, match="the kernel panicked"):
            machine.run(kernel, f"{EXPORTER}\necho c > /proc/sysrq-trigger; sleep 60", tmp_path, timeout=300)
        assert "program running" in (tmp_path / "exporter.log").read_text()
        boot = machine.run(kernel, f"{EXPORTER}\n{PAGE}", tmp_path, timeout=300)
        assert 'bpf_exporter_program_state{program="renames",state="quarantined"} 1' in boot.log
        assert "bpf_exporter_quarantine_armed 1" in boot.log
        said = (tmp_path / "exporter.log").read_text()
        assert "this host died within five minutes of" in said
        assert "program running" not in said
