"""The configuration of the virtual machines -> artifacts for another kernel, compiled on this machine.

    python -m tests.matrix.crosscompile BTF RELEASE WORK

fills WORK/artifacts (a cache as the exporter's own), WORK/specs.json and WORK/exporter.h (the programs as
the guest loads them) and WORK/compiled.json ("program/variant" -> what the compiler said, "" if all went well).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from exporter import config
from exporter.config import model
from exporter.loading import artifact, compiler, target

CONFIG = Path(__file__).with_name("programs") / "config.yaml"
ARCH = "x86_64"


def header() -> str:
    """The text that the loader puts in front of every program."""
    return (config.bundled_dir() / "include" / "exporter.h").read_text()


def programs() -> list[model.Program]:
    return config.load(CONFIG).config.programs


def main(btf: Path, release: str, work: Path) -> int:
    """Compile every variant; 0 even if some did not compile: that is for the tests to judge."""
    wanted = target.of_btf(btf, release, ARCH)
    cache = artifact.Cache(work / "artifacts")
    specs = programs()
    said = {
        f"{spec.name}/{variant.name}": _compile(spec, variant, wanted, cache, work)
        for spec in specs
        for variant in spec.variants
    }
    (work / "exporter.h").write_text(header())
    (work / "specs.json").write_text(json.dumps([spec.model_dump(mode="json") for spec in specs]))
    (work / "compiled.json").write_text(json.dumps(said))
    return 0


def _compile(
    spec: model.Program, variant: model.Variant, wanted: target.Target, cache: artifact.Cache, work: Path
) -> str:
    """In a child that ends without destructors, as the loader does it: bcc and LLVM go with it."""
    words = work / "compiler.txt"
    words.write_text("")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.nice(5)
            cache.put(compiler.compile_variant(spec, variant, wanted, header(), work / "trees"))
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
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
