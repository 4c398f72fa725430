"""A kernel's modules -> a small initramfs (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst).

It holds a static busybox, the modules and an init script that puts a root file system, read-only over 9p, under a tmpfs
overlay: the guest sees every file at its place and may write, and nothing it writes reaches the machine except in the
work directory. That root is the machine's own; a guest of another architecture gets one of its own and the checkout.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORK = "/mnt"  # where the guest sees the work directory; Debian always has this directory
JOB = "job.sh"  # in the work directory: what to run; its output goes to job.log, its exit code to job.exit
MSIZE = 524288  # bytes in one 9p request; virtio allows 128 pages


@dataclass(frozen=True, slots=True)
class Files:
    """What the guest sees: a directory as its root, and others of this machine at their own places, read-only."""

    root: Path = Path("/")
    others: tuple[Path, ...] = ()


INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in @MODULES@; do $b insmod /modules/$module || $b echo "matrix: insmod $module failed"; done
p=trans=virtio,version=9p2000.L,msize={MSIZE}
$b mount -t 9p -o $p,ro,cache=loose root /lower || $b echo "matrix: no root over 9p"
$b mount -t tmpfs upper /upper && $b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new
for share in @OTHERS@; do
    $b mkdir -p /new${{share#*:}}
    $b mount -t 9p -o $p,ro,cache=loose ${{share%%:*}} /new${{share#*:}} || $b echo "matrix: no $share over 9p"
done
$b mount -t 9p -o $p,cache=none work /new{WORK} || $b echo "matrix: no work directory over 9p"
for at in proc sys dev; do $b mount -o move /$at /new/$at; done
$b mkdir -p /new/dev/pts /new/dev/shm
$b mount -t tmpfs run /new/run
$b mount -t tmpfs tmp /new/dev/shm
$b mount -t tracefs tracing /new/sys/kernel/tracing
$b mount -t debugfs debug /new/sys/kernel/debug
$b mount -t bpf bpf /new/sys/fs/bpf
$b mount -t cgroup2 cgroup /new/sys/fs/cgroup
$b ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
$b echo "matrix: job starts at $($b cut -d' ' -f1 /proc/uptime 2>/dev/null || $b cut -d' ' -f1 /new/proc/uptime)"
$b chroot /new /bin/sh {WORK}/{JOB} </dev/null >/new{WORK}/job.log 2>&1
$b echo $? >/new{WORK}/job.exit
$b echo "matrix: job ended at $($b cut -d' ' -f1 /new/proc/uptime)"
$b sync
$b poweroff -f
"""


def build(modules: Sequence[Path], seen: Files, into: Path) -> Path:
    """Write the initramfs that inserts `modules` in this order to the file `into`. FileNotFoundError: no busybox."""
    busybox = seen.root / "bin/busybox"
    if not busybox.exists():
        raise FileNotFoundError(f"{busybox}: not there (Debian package busybox-static)")
    names = " ".join(m.name for m in modules)
    others = " ".join(f"{tag}:{path}" for tag, path in shares(seen))
    files: list[tuple[str, int, bytes]] = [
        (directory, stat.S_IFDIR | 0o755, b"")
        for directory in ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "new")
    ]
    files.append(("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    files += [(f"modules/{m.name}", stat.S_IFREG | 0o644, m.read_bytes()) for m in modules]
    files.append(("init", stat.S_IFREG | 0o755, INIT.replace("@MODULES@", names).replace("@OTHERS@", others).encode()))
    into.write_bytes(gzip.compress(cpio(files), compresslevel=1))
    return into


def shares(seen: Files) -> list[tuple[str, Path]]:
    """(tag, directory) of what is mounted at its own place."""
    return [(f"other{number}", path) for number, path in enumerate(seen.others)]


def cpio(files: Sequence[tuple[str, int, bytes]]) -> bytes:
    """A newc archive of (path, st_mode, content), owned by root; parents come before their children."""
    archive = bytearray()
    for number, (path, mode, content) in enumerate((*files, ("TRAILER!!!", 0, b"")), start=1):
        name = path.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, size, device and rdevice major and minor, length of the name, checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
