"""Debian packages of other suites out of the machine's own mirror, by a private apt that installs nothing.

apt itself says which mirror the machine uses (`apt-get indextargets`), so a proxy, an internal mirror or credentials
configured for it keep working, and no host name stands here. Lists and downloads have their own directory; the
machine's package state is neither read nor changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Container images switch apt's own cache of its lists off in apt.conf.d, which is read after APT_CONFIG.
KEEP_CACHE = ("-o", "Dir::Cache::pkgcache=pkgcache.bin", "-o", "Dir::Cache::srcpkgcache=srcpkgcache.bin")
LISTS_FRESH_SECONDS = 12 * 3600.0  # a newer kernel than half a day ago may wait for the next run


class AptError(RuntimeError):
    """apt could not do what a kernel needs; the text says which step and why."""


@dataclass(frozen=True, slots=True)
class Apt:
    """A private apt under `directory`, for the architecture it was opened with."""

    directory: Path

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Standard output of an apt command. AptError with its last lines when it fails."""
        done = subprocess.run(
            [command[0], *KEEP_CACHE, *command[1:]],
            cwd=cwd,
            env={**os.environ, "APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        if done.returncode:
            last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise AptError(f"{' '.join(command[:2])}: {last or f'exit code {done.returncode}'}")
        return done.stdout

    def packages(self, pattern: str) -> list[str]:
        """Names of the packages that match the regular expression `pattern`, in no order."""
        lines = self.run("apt-cache", "search", "--names-only", pattern).splitlines()
        return [line.split(" ", 1)[0] for line in lines]

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Package -> the version that `download` would fetch."""
        if not packages:
            return {}
        text = self.run("apt-cache", "show", "--no-all-versions", *packages)
        return dict(
            zip(re.findall(r"^Package: (\S+)$", text, re.M), re.findall(r"^Version: (\S+)$", text, re.M), strict=True)
        )

    def download(self, packages: list[str], into: Path) -> list[Path]:
        """The .deb files of `packages`, checked by apt against the signed lists, in the directory `into`."""
        into.mkdir(parents=True, exist_ok=True)
        self.run("apt-get", "-q", "download", *packages, cwd=into)
        return [next(into.glob(f"{package}_*.deb")) for package in packages]


def mirrors() -> dict[str, str]:
    """Base URIs of the machine's Debian sources by label: "Debian" and, where configured, "Debian-Security"."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = dict(line.split("|", 1) for line in reversed(listing.stdout.splitlines()) if "|" in line)
    uris = {label: uri for label, uri in found.items() if label in ("Debian", "Debian-Security")}
    if "Debian" not in uris:
        raise AptError("apt-get indextargets: no Debian source with downloaded lists (run apt-get update first)")
    return uris


def private(directory: Path, suites: tuple[str, ...], uris: dict[str, str], architecture: str = "amd64") -> Apt:
    """An apt under `directory` that knows `suites` of these mirrors, its lists not older than LISTS_FRESH_SECONDS.

    AptError if any of the lists cannot be had.
    """
    security = uris.get("Debian-Security") or uris["Debian"].rstrip("/") + "-security"
    lines = [_source(security if s.endswith("-security") else uris["Debian"], s) for s in suites]
    apt = Apt(directory)
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()
    (directory / "apt.conf").write_text(_configuration(directory, architecture))
    sources, stamp = directory / "sources.list", directory / "updated"
    text = "\n".join(lines) + "\n"
    if not sources.exists() or sources.read_text() != text:
        stamp.unlink(missing_ok=True)
    sources.write_text(text)
    if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_FRESH_SECONDS:
        apt.run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
        stamp.touch()
    return apt


def _source(uri: str, suite: str) -> str:
    # Suites that are no longer kept up have an expired Release file; it is still signed.
    return f"deb [signed-by={KEYRING} check-valid-until=no] {uri} {suite} main"


def _configuration(directory: Path, architecture: str) -> str:
    """apt.conf: own state, sources and cache. Proxies and credentials of the machine stay in force."""
    settings = {
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Dir::State": directory,
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory / "cache",
        "Dir::Etc::sourcelist": directory / "sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())
