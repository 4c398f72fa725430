"""A program to attach to (workloads/shop.c), compiled for the test, that a test drives line by line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("workloads") / "shop.c"
# Counts what is sold, by the arguments of the probe shop:sold.
SALES = """
struct sale { s64 price; s64 discount; char name[16]; };
BPF_HASH(sales, struct sale, u64, 256);

int on_sold(struct pt_regs *ctx)
{
	struct sale sale = {};
	int count = 0;
	u64 name = 0, zero = 0;

	bpf_usdt_readarg(1, ctx, &count);
	bpf_usdt_readarg(2, ctx, &sale.price);
	bpf_usdt_readarg(3, ctx, &name);
	bpf_usdt_readarg(4, ctx, &sale.discount);
	bpf_probe_read_user_str(sale.name, sizeof(sale.name), (void *)name);
	add(sales.lookup_or_try_init(&sale, &zero), count, LOST(sales));
	return 0;
}
"""


def build(directory: Path, name: str = "shop", *flags: str) -> Path:
    """Compile the program with -O2 and `flags`, and return its path."""
    path = directory / name
    subprocess.run(["gcc", "-O2", *flags, "-o", path, SOURCE], check=True, capture_output=True, text=True)
    return path


class Shop:
    """A shop that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, line: str) -> str:
        """Send one line, and return the answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def running(path: Path) -> Iterator[Shop]:
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Shop(process)
        assert process.stdin
        process.stdin.close()
        process.wait(10)
