"""What a running program was made of, as digests: a supervisor that starts takes over what it would load the same.

That is the key of the bytecode cache (C text, defines, shared header, types of modules, kernel, how this version has
bcc compile) and the files that probes are in: after an upgrade of a library they would be somewhere else.
"""

from __future__ import annotations

import hashlib
import json

from exporter.kernel import libraries
from exporter.loading.attaching.attach_points import points
from exporter.loading.attaching.kind import Point
from exporter.spec import VariantSpec

FILE_KINDS = ("uprobe", "uretprobe", "usdt")  # their targets begin with FILE:


def of(variant: VariantSpec, artifact_key: str) -> str:
    """The digest of a variant that is made from this artifact, here and now."""
    files = [_file(point) for point in points(variant) if point.kind in FILE_KINDS]
    return hashlib.sha256(json.dumps([artifact_key, files]).encode()).hexdigest()


def _file(point: Point) -> list[str | int]:
    name = point.target.partition(":")[0]
    path = libraries.find(name)
    if path is None:
        return [name]
    status = path.stat()
    return [str(path.resolve()), status.st_dev, status.st_ino, status.st_mtime_ns]
