"""The configuration of the virtual machines -> artifacts for another kernel, compiled on this machine.

    python -m tests.matrix.crosscompile VMLINUZ|here WORK [NAME...]

fills WORK/artifacts (a cache as the exporter's own), WORK/specs.json and WORK/exporter.h (the programs as
the guest loads them) and WORK/compiled.json ("program/variant" -> what the compiler said, "" if all went well).
WORK/everything.json has the programs of everything.py that are named, WORK/compiled_everything.json the same of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporter import config
from exporter.commands.compile import make
from exporter.loading import artifact, target
from exporter.spec import ProgramSpec, VariantSpec
from tests.matrix import everything, kernels

CONFIG = Path(__file__).with_name("programs") / "config.yaml"
EXPORTER = Path(config.__file__).parents[1]
UNUSED_DAYS = 7
HERE = "here"  # the running kernel


def header() -> str:
    """Return the text that the loader puts in front of every program."""
    return (config.bundled_dir() / "include" / "exporter.h").read_text()


def programs() -> list[ProgramSpec]:
    return config.load(CONFIG).config.programs


def main(wanted: target.Target, work: Path, names: Sequence[str]) -> int:
    """Compile every variant; 0 even if some did not compile: that is for the tests to judge."""
    own = artifact.Cache(kept(kernels.cache_directory() / "crosscompiled"))
    compile_ = Crosscompiler(wanted, artifact.Cache(work / "artifacts"), own)
    specs = programs()
    said = {f"{spec.name}/{variant}": text for spec in specs for variant, text in compile_.program(spec).items()}
    (work / "exporter.h").write_text(header())
    (work / "specs.json").write_text(json.dumps([spec.model_dump(mode="json") for spec in specs]))
    every, _ = everything.programs()
    of_all = {f"{name}/{variant}": text for name in names for variant, text in compile_.program(every[name]).items()}
    (work / "everything.json").write_text(json.dumps({name: every[name].model_dump(mode="json") for name in names}))
    (work / "compiled_everything.json").write_text(json.dumps(of_all))
    (work / "compiled.json").write_text(json.dumps(said))
    return 0


def kept(base: Path) -> Path:
    """A cache in `base` for runs with the compiler as it is now: the key of an artifact does not know the exporter's
    own code. Those of compilers that no run has used for UNUSED_DAYS go."""
    files = sorted(path for folder in ("kernel", "loading") for path in (EXPORTER / folder).rglob("*.py"))
    own = base / hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(own)
    for directory in base.iterdir():
        with suppress(FileNotFoundError):  # another run was faster
            if time.time() - directory.stat().st_mtime > UNUSED_DAYS * 86400:
                shutil.rmtree(directory)
    return own


@dataclass(frozen=True, slots=True)
class Crosscompiler:
    """Fills `cache` with what is in `kept`, or is compiled now for `wanted`, as `bpf-exporter compile` does it."""

    wanted: target.Target
    cache: artifact.Cache
    kept: artifact.Cache

    def program(self, spec: ProgramSpec) -> dict[str, str]:
        """Variant -> what the compiler said."""
        return {variant.name: self._variant(spec, variant) for variant in spec.variants}

    def _variant(self, spec: ProgramSpec, variant: VariantSpec) -> str:
        made = make(spec, variant, self.wanted, self.kept)
        if made.key and (found := self.kept.get(made.key)):
            self.cache.put(found)
        return made.text


if __name__ == "__main__":
    os.nice(5)
    image, work, *names = sys.argv[1:]
    with target.of_options(None if image == HERE else Path(image), None, None, None) as wanted:
        sys.exit(main(wanted, Path(work), names))
