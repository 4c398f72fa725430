"""Events in an exact number: a thread that renames itself fires the tracepoint task:task_rename once."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PR_SET_NAME = 15  # include/uapi/linux/prctl.h

CONFIG = """\
programs:
  - name: renames
    code: |
      struct key_t {
          u32 pid;
      };
      BPF_HASH(renames, struct key_t, u64, 4096);

      int on_rename(struct bpf_raw_tracepoint_args *ctx)
      {
          struct key_t key = {.pid = bpf_get_current_pid_tgid() >> 32};
          u64 zero = 0;

          add(renames.lookup_or_try_init(&key, &zero), 1, LOST(renames));
          return 0;
      }
    attach: [{raw_tracepoint: task_rename, function: on_rename}]
    metrics:
      - {name: ebpf_renames_total, type: counter, help: Renames of threads by process., map: renames, max_series: 4000}
"""

_libc = ctypes.CDLL(None, use_errno=True)


def write_config(directory: Path, more: str = "") -> Path:
    """The configuration of the program that counts renames, and whatever entries of `programs:` come after it."""
    path = directory / "config.yaml"
    path.write_text(CONFIG + more)
    return path


def rename(times: int) -> None:
    """Fire the event `times` times in this process, which has its old name at the end."""
    name = Path(f"/proc/{os.getpid()}/comm").read_bytes().strip()
    for _ in range(times):
        _libc.prctl(PR_SET_NAME, name, 0, 0, 0)
