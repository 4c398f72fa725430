"""The artifact, which is the compiled form of one variant and all that loading needs; and a directory of artifacts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Container
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from exporter import log
from exporter.kernel.ownership import other_writers
from exporter.loading.cache_key import FORMAT, CacheKey
from exporter.program import Map

_UNUSED_SECONDS = 90 * 86400
_NEW_SECONDS = 3600  # no write takes so long

_log = log.get()


@dataclass(frozen=True, slots=True)
class Function:
    """Bytecode of one C function. `maps`: (instruction index, map name) of every BPF_LD_IMM64 that loads a map, whose
    imm is 0 here and the fd after loading."""

    name: str
    instructions: bytes
    maps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """The compiled form of one variant.

    key         in the cache
    cache_key   what the key is made of: the text, and the kernel
    btf         raw BTF of the module that the compiler made, with the maps' key and value types; b"" if none
    btf_types   map name -> (key type id, value type id) in it; maps without types are not in it
    maps        definitions and layouts, with those of the hidden maps
    """

    key: str
    program: str
    variant: str
    cache_key: CacheKey
    bcc_version: str
    license: str
    maps: tuple[Map, ...]
    functions: tuple[Function, ...]
    btf: bytes
    btf_types: dict[str, tuple[int, int]]
    compile_seconds: float

    @property
    def arch(self) -> str:
        """Return the architecture as `uname -m` says it; bytecode of another one must not be loaded."""
        return self.cache_key.arch

    def function(self, name: str) -> Function | None:
        """Return the function of that name, None if there is none."""
        return next((f for f in self.functions if f.name == name), None)


def dumps(artifact: Artifact) -> str:
    """Return the artifact as JSON with a digest of its content, and bytes as base64."""
    document = asdict(artifact)
    document["btf"] = base64.b64encode(artifact.btf).decode()
    for function in document["functions"]:
        function["instructions"] = base64.b64encode(function["instructions"]).decode()
    return json.dumps({"format": FORMAT, "sha256": _digest(document), "artifact": document}, separators=(",", ":"))


def loads(text: str | bytes) -> Artifact:
    """Return the artifact of what `dumps` returned. ValueError for another format, and for damage of any kind."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, expected {FORMAT}")
        body = document["artifact"]
        if document["sha256"] != _digest(body):
            raise ValueError("its content is not what its digest says")
        return Artifact(**{field.name: _READ.get(field.name, _same)(body[field.name]) for field in fields(Artifact)})
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an artifact: {error!r}") from error


class ForeignCacheError(PermissionError):
    """Another user can write to the directory."""


class Cache:
    """A directory of artifacts, one JSON file for each key; several loaders and a restarted daemon can share it.

    Artifacts run in the kernel, so no other user may write to the directory or an entry: ForeignCacheError for the
    directory, a miss for an entry.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:  # a file, or a link to nothing
            raise NotADirectoryError("it is no directory") from error
        if why := other_writers(directory.stat(), (0, os.geteuid())):
            raise ForeignCacheError(f"it {why}")

    @property
    def headers(self) -> Path:
        """Return the directory of header trees."""
        return self.directory / "headers"

    def get(self, key: str, bcc_version: str | None = None) -> Artifact | None:
        """Return the artifact; None if there is none, if it is damaged (which is logged), or if a bcc of another
        version than `bcc_version` made it. On a host without bcc `bcc_version` is None, and any version fits."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("artifact not read; it is compiled again", file=str(path), error=error.strerror)
            return None
        with open(descriptor, "rb") as file:
            if why := other_writers(os.fstat(descriptor), (0, os.geteuid())):
                _log.warning("artifact not used; it is compiled again", file=str(path), error=f"it {why}")
                return None
            raw = file.read()
        try:
            artifact = loads(raw)
            if artifact.key != key:
                raise ValueError(f"it is the entry of {artifact.key}")
        except ValueError as error:
            _log.warning("artifact damaged; it is compiled again", file=str(path), error=str(error))
            return None
        if bcc_version not in (None, artifact.bcc_version):
            return None
        with contextlib.suppress(OSError):  # a read-only cache does not note when an entry was used
            os.utime(path)
        return artifact

    def cache_keys(self, program: str, variants: Container[str]) -> list[CacheKey]:
        """Return the cache keys of a program's variants, for every kernel; damaged entries are left out. Reads all
        files."""
        found = []
        for path in sorted(self.directory.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                artifact = loads(path.read_bytes())
                if artifact.program == program and artifact.variant in variants:
                    found.append(artifact.cache_key)
        return found

    def put(self, artifact: Artifact) -> None:
        """Write the entry in one step; of two writers the second one wins, with the same content. OSError.

        There is no fsync: an entry torn by a power cut does not match its digest and is a miss.
        """
        self._remove_unused()
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.directory)
        try:
            with open(descriptor, "w") as file:
                file.write(dumps(artifact))
            os.rename(temporary, self._path(artifact.key))
        except BaseException:
            os.unlink(temporary)
            raise

    def _remove_unused(self) -> None:
        """Remove entries that no start has used for long, and temporary files of killed loaders."""
        for path in self.directory.glob("*.*"):
            limit = _NEW_SECONDS if path.name.startswith(".new-") else _UNUSED_SECONDS
            with contextlib.suppress(FileNotFoundError):  # another loader was faster
                if time.time() - path.stat().st_mtime > limit:
                    path.unlink()

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", key):
            raise ValueError(f"{key!r} is no key of an artifact")
        return self.directory / f"{key}.json"


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _same(value: Any) -> Any:
    return value


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _function(document: dict[str, Any]) -> Function:
    maps = tuple((int(index), str(name)) for index, name in document["maps"])
    return Function(document["name"], _bytes(document["instructions"]), maps)


_READ: dict[str, Any] = {
    "cache_key": lambda document: CacheKey(**document),
    "maps": lambda maps: tuple(map(Map.model_validate, maps)),
    "functions": lambda functions: tuple(_function(f) for f in functions),
    "btf": _bytes,
    "btf_types": lambda types: {name: (key_id, value_id) for name, (key_id, value_id) in types.items()},
}
