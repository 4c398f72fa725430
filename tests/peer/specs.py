"""The configurations of this directory as the exporter reads them, and which of them need a key that comes later."""

from __future__ import annotations

from pathlib import Path

from exporter import config
from exporter.kernel.features import Kernel
from exporter.loading import requires
from exporter.spec import ProgramSpec

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.yaml"))

# Which key. An entry that is accepted must go.
LATER = {
    "bpf_jit": "kaddrs",
    "cgroup_id_map": "fill",
    "xdp": "xdp",
}
READY = [name for name in NAMES if name not in LATER]


def spec(name: str) -> ProgramSpec:
    """One of them alone. ConfigErrors if it is refused; names are the peer's, so what they look like is no matter."""
    return config.load_bundled(name, bundled=HERE).config.programs[0]


def of_this_kernel(program: ProgramSpec) -> ProgramSpec:
    """With those variants whose `requires` hold here; the others read members that this kernel does not have."""
    variants = [v for v in program.variants if not requires.unmet(v.requires, Kernel())]
    return program.model_copy(update={"variants": variants})
