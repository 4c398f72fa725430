"""A series -> everything that is checked on its kernel: fetched, cross-compiled for, booted once, results read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import lanes
from tests.matrix import apt, crosscompile, everything, foreign, kernels, machine
from tests.matrix.architecture import AMD64
from tests.matrix.initramfs import WORK, Files

AT_ONCE = 2  # kernels; each keeps a CPU and 1 GB busy, at nice 19: beside other tests they take what is left
DEADLINE = 900.0 * (2 if kernels.WHOLE else 1)  # seconds for all checks on one kernel; some 200 are usual, or 400
HERE = "here"  # the series that is the running kernel
BYTECODE = "bytecode"  # directory beside those of the kernels
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """What one check in the guest found (guest/steps.py)."""

    value: Any
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Examined:
    """One kernel. `failure` is "" if its machine ran to the end; `steps` has every check then, else those before."""

    series: str
    kernel: kernels.Kernel | None = None
    failure: str = ""
    compiled: dict[str, str] = field(default_factory=dict)
    compiled_everything: dict[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # fetch, compile, boot, run

    def value(self, step: str) -> Any:
        """Return the result of a check. AssertionError with the name of the kernel where there is none."""
        found = self.steps.get(step)
        name = self.kernel.release if self.kernel else self.series
        assert found is not None, f"linux {name}: {step} did not run: {self.failure or 'no such check'}"
        assert not found.error, f"linux {name}: {step}:\n{found.error}"
        return found.value


def start(series: Iterable[str], work: Path) -> tuple[ThreadPoolExecutor, dict[str, Future[Examined]]]:
    """Examine all of `series` in threads, AT_ONCE at a time. The caller shuts the pool down with cancel_futures."""
    _write_bytecode(work)
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="matrix")
    return pool, {one: pool.submit(examine, one, work / one) for one in series}


def examine(series: str, work: Path) -> Examined:
    """Examine one kernel. What it lacks or does wrong is no exception but its `failure`."""
    if series == HERE:
        return _examine_here(work)
    seconds: dict[str, float] = {}
    kernel: kernels.Kernel | None = None
    compiled: dict[str, str] = {}
    all_compiled: dict[str, str] = {}
    failure = ""
    work.mkdir(parents=True)
    try:
        began = time.monotonic()
        kernel = kernels.get(series, kernels.cache_directory())
        seconds["fetch"] = time.monotonic() - began
        began = time.monotonic()
        compiled, all_compiled = _compile(str(kernel.vmlinuz), work, everything.loaded_on(series))
        seconds["compile"] = time.monotonic() - began
        seen = _files(kernel, kernels.cache_directory())
        outcome = machine.run(kernel, _job(kernel, work), work, DEADLINE, seen)
        seconds["boot"], seconds["run"] = outcome.boot_seconds, outcome.seconds
        if outcome.exit_code:
            failure = f"the checks ended with exit code {outcome.exit_code}:\n{outcome.log[-3000:]}"
    except (kernels.KernelError, machine.MachineError, apt.AptError, OSError, subprocess.SubprocessError) as error:
        failure = f"{error}\n{getattr(error, 'stderr', None) or ''}".strip()
    return Examined(series, kernel, failure, compiled, all_compiled, _steps(work / "results.jsonl"), seconds)


def _examine_here(work: Path) -> Examined:
    """The running kernel: every program loaded and counted the same way, nothing else; tests/kernel has the rest."""
    work.mkdir(parents=True)
    compiled: dict[str, str] = {}
    all_compiled: dict[str, str] = {}
    failure = ""
    began = time.monotonic()
    try:
        compiled, all_compiled = _compile(crosscompile.HERE, work, everything.loaded_on(HERE))
        command = [sys.executable, "-m", "tests.matrix.guest.everything", str(work)]  # and no other checks
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=DEADLINE)
    except (OSError, subprocess.SubprocessError) as error:
        failure = f"{error}\n{getattr(error, 'stderr', None) or ''}".strip()
    seconds = {"run": time.monotonic() - began}
    return Examined(HERE, None, failure, compiled, all_compiled, _steps(work / "results.jsonl"), seconds)


def _compile(image: str, work: Path, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    # A process of its own: the compiler forks, and this one has threads.
    command = ["nice", "-n", "19", sys.executable, "-m", "tests.matrix.crosscompile", image, str(work), *names]
    with lanes.room.beside():
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=1200)
    return json.loads((work / "compiled.json").read_text()), json.loads((work / "compiled_everything.json").read_text())


def _files(kernel: kernels.Kernel, cache: Path) -> Files:
    """This machine's files and its Python, or for another architecture a root of its own, this checkout and modules."""
    if kernel.architecture is AMD64:
        return Files()
    return Files(
        foreign.root(kernel.architecture, cache), (CHECKOUT, *{module.parent for module in kernel.more_modules})
    )


def _job(kernel: kernels.Kernel, work: Path) -> str:
    lines = [f"insmod {module}" for module in kernel.more_modules]
    if kernel.architecture is AMD64:
        settings = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX={work.parent / BYTECODE}"
        lines += [f"cd {CHECKOUT} && {settings} exec {sys.executable} -m tests.matrix.guest {WORK}"]
    else:
        lines.insert(0, "ldconfig")  # no package's script has run in that root
        lines += [f"cd {CHECKOUT} && PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m tests.matrix.guest {WORK}"]
    return "\n".join([*lines, ""])


def _write_bytecode(work: Path) -> None:
    """Compile here, once, the 600 modules that the guests import: under TCG that is a third of a run."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(work / BYTECODE), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", "import tests.matrix.guest.__main__"]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, timeout=120)


def _steps(results: Path) -> dict[str, Step]:
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines() if line.endswith("}")]
    return {line["name"]: Step(line["value"], line["error"], line["seconds"]) for line in lines}
