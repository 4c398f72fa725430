"""pyproject.toml and constraints.txt -> requirements.txt: every wheel that the Debian package takes in, with its hash.

    .venv/bin/python deploy/pin_wheels.py

Run it after a change of either; it asks the package index that pip is configured for and downloads nothing else. A
dependency with compiled code has a wheel, and so a hash, for each Python of PYTHONS on each machine of MACHINES.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"

PYTHONS = ("3.11", "3.13")  # of Debian 12 and of Debian 13
MACHINES = ("x86_64", "aarch64")  # as wheels and uname -m spell them
# Wheels for any glibc up to 2.28; Debian 12 has 2.36.
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")

HEADER = """\
# The wheels inside the Debian package: Python 3.11 and 3.13, x86-64 and arm64. Written by deploy/pin_wheels.py.
"""


def main() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    hashes: dict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        for machine in MACHINES:
            for requirement, digest in _resolve(wanted, python, machine):
                hashes[requirement].add(digest)
    REQUIREMENTS.write_text(HEADER + "".join(_entry(name, hashes[name]) for name in sorted(hashes, key=str.lower)))


def _entry(requirement: str, digests: set[str]) -> str:
    return " \\\n".join((requirement, *(f"    --hash=sha256:{digest}" for digest in sorted(digests)))) + "\n"


def _resolve(wanted: list[str], python: str, machine: str) -> list[tuple[str, str]]:
    """("NAME==VERSION", sha256 of its wheel) of all that `wanted` needs there (pip's installation report)."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += [
            f"--report={report}",
            f"--target={scratch}/none",
            "--only-binary=:all:",
            f"--python-version={python}",
        ]
        command += [f"--platform={platform}_{machine}" for platform in PLATFORMS]
        command += [f"--constraint={ROOT / 'constraints.txt'}", *wanted]
        subprocess.run(command, check=True)
        items = json.loads(report.read_text())["install"]
    return [
        (
            f"{item['metadata']['name']}=={item['metadata']['version']}",
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in items
    ]


if __name__ == "__main__":
    main()
