"""ebpf_exporter on a map of its own that only the benchmark fills, so that a scrape costs what the exporter takes.

It is built beforehand (docs/development.md): OUTDIR holds `peer/`, a checkout of it, `dest/`, an installed libbpf, and
the binary `ebpf_exporter`. The BPF program is compiled here, by clang, as its own Makefile compiles its examples.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from exporter.kernel import bpf

DEADLINE = 60.0  # seconds for it to start


@dataclass(frozen=True, slots=True)
class Shape:
    """A map with one entry for each key, and the metric that the peer makes of it."""

    name: str  # of the program and its files
    map: str
    key: str  # members of the key
    metric: str  # the text under `metrics:` in its configuration


COUNTER = Shape(
    "scale",
    "scale_total",
    "u32 pid; u32 port; u32 ip; u32 op;",
    """\
  counters:
    - name: scale_total
      help: x
      labels:
        - {name: pid, size: 4, decoders: [{name: uint}]}
        - {name: port, size: 4, decoders: [{name: uint}]}
        - {name: ip, size: 4, decoders: [{name: inet_ip}]}
        - {name: op, size: 4, decoders: [{name: uint}]}
""",
)
# Each bucket is an entry of its own, and its number the last part of the key.
HISTOGRAM = Shape(
    "hist",
    "lat_seconds",
    "u32 pid; u32 op; u64 bucket;",
    """\
  histograms:
    - name: lat_seconds
      help: x
      bucket_type: exp2
      bucket_min: 0
      bucket_max: 26
      bucket_multiplier: 0.000001
      labels:
        - {name: pid, size: 4, decoders: [{name: uint}]}
        - {name: op, size: 4, decoders: [{name: uint}]}
        - {name: bucket, size: 8, decoders: [{name: uint}]}
""",
)
SOURCE = """\
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

struct key_t { %(key)s };
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_HASH);
    __uint(max_entries, %(entries)d);
    __type(key, struct key_t);
    __type(value, u64);
} %(map)s SEC(".maps");

SEC("raw_tp/task_rename")
int on_rename(void *ctx)
{
    struct key_t key = {};
    u64 one = 1;

    bpf_map_update_elem(&%(map)s, &key, &one, 0);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


@contextmanager
def running(build: Path, shape: Shape, entries: int, directory: Path) -> Iterator[tuple[int, int, int]]:
    """Run the peer: its port, a descriptor of its map, which has room for so many entries, and its process id."""
    (directory / f"{shape.name}.yaml").write_text(f"metrics:\n{shape.metric}")
    source = directory / f"{shape.name}.bpf.c"
    source.write_text(SOURCE % {"key": shape.key, "map": shape.map, "entries": entries})
    includes = [f"-I{build}/peer/include/x86", f"-I{build}/dest/usr/include"]
    command = ["clang", "-O2", "-g", "-target", "bpf", *includes, "-c", str(source), "-o"]
    subprocess.run([*command, str(directory / f"{shape.name}.bpf.o")], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = map_ids(shape.map)
    options = [f"--config.dir={directory}", f"--config.names={shape.name}", f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "peer.log").open("wb") as log:
        process = subprocess.Popen(
            [str(build / "ebpf_exporter"), *options],
            env={**os.environ, "LD_LIBRARY_PATH": f"{build}/dest/usr/lib"},
            stderr=log,
            stdout=log,
        )
    try:
        _await_answer(port, process, directory / "peer.log")
        (number,) = map_ids(shape.map) - before
        fd = bpf.map_fd_by_id(number)
        yield port, fd, process.pid
        os.close(fd)
    finally:
        process.terminate()
        process.wait(10)


def map_ids(name: str) -> set[int]:
    """Return the ids of all maps of that name on this host."""
    listed = json.loads(subprocess.run(["bpftool", "map", "-j"], capture_output=True, check=True).stdout)
    return {entry["id"] for entry in listed if entry.get("name") == name}


def _await_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"ebpf_exporter ended with {process.returncode}: {log.read_text()}")
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"ebpf_exporter gave no answer in {DEADLINE:.0f} s")
