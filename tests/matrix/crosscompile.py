"""The configuration of the virtual machines -> artifacts for another kernel, compiled on this machine.

    python -m tests.matrix.crosscompile BTF RELEASE ARCH WORK [NAME...]

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
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporter import config
from exporter.config import model
from exporter.loading import artifact, compiler, target
from tests.matrix import everything, kernels

CONFIG = Path(__file__).with_name("programs") / "config.yaml"
EXPORTER = Path(config.__file__).parents[1]
UNUSED_DAYS = 7


def header() -> str:
    """The text that the loader puts in front of every program."""
    return (config.bundled_dir() / "include" / "exporter.h").read_text()


def programs() -> list[model.Program]:
    return config.load(CONFIG).config.programs


def main(wanted: target.Target, work: Path, names: Sequence[str]) -> int:
    """Compile every variant; 0 even if some did not compile: that is for the tests to judge."""
    own = artifact.Cache(kept(kernels.cache_directory() / "crosscompiled"))
    compile_ = Crosscompiler(wanted, artifact.Cache(work / "artifacts"), own, work)
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
    """Fills `cache` with what is in `kept`, or is compiled now for `wanted`."""

    wanted: target.Target
    cache: artifact.Cache
    kept: artifact.Cache
    work: Path

    def program(self, spec: model.Program) -> dict[str, str]:
        """Variant -> what the compiler said."""
        return {variant.name: self._variant(spec, variant) for variant in spec.variants}

    def _variant(self, spec: model.Program, variant: model.Variant) -> str:
        key = artifact.key(spec, variant, self.wanted, header())
        if found := self.kept.get(key, compiler.bcc_version()):
            self.cache.put(found)
            return ""
        said = self._compile(spec, variant)
        if not said and (found := self.kept.get(key)):
            self.cache.put(found)
        return said

    def _compile(self, spec: model.Program, variant: model.Variant) -> str:
        """In a child that ends without destructors, as the loader does it: bcc and LLVM go with it."""
        words = self.work / "compiler.txt"
        words.write_text("")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.nice(5)
                self.kept.put(compiler.compile_variant(spec, variant, self.wanted, header(), self.work / "trees"))
                code = 0
            except compiler.CompileError as error:
                words.write_text(str(error))
            except BaseException:  # noqa: BLE001 - its last words
                words.write_text(traceback.format_exc())
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return "" if status == 0 else words.read_text() or f"the compiler ended with {status}"


if __name__ == "__main__":
    to = target.of_btf(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.exit(main(to, Path(sys.argv[4]), sys.argv[5:]))
