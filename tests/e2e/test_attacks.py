"""A scraper that means well, while a thousand clients do not: it is answered in time, and memory stays where it is.

All over loopback, from processes of their own. The short form is a few seconds each; `make soak` sets
BPF_EXPORTER_ATTACK_SECONDS and attacks for so long.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT
from tests.e2e import certificates
from tests.kernel.renames import write_config
from tests.waiting import until

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("BPF_EXPORTER_ATTACK_SECONDS", "2.5"))
CLIENTS = 1000
TIMEOUT = 10.0  # seconds that the scraper waits, Prometheus' own default
CONNECTIONS = 256 + 8  # that the server keeps, and what its threads have
GROWTH = 32 << 20  # bytes for all of their buffers, most of them of OpenSSL
SECOND = 16 << 20  # bytes that a second attack may add to the first: nothing stays
USER, PASSWORD = "scraper", "correct horse"


@dataclass
class Target:
    """An exporter under attack, and the scraper that means well."""

    exporter: daemon.Daemon
    scheme: str
    port: int
    context: ssl.SSLContext | None = None
    password: str = ""
    seconds: list[float] = field(default_factory=list)

    def scrape(self) -> str:
        """Over a new connection, as a scraper that comes for the first time. Whole and in time, or an exception."""
        request = urllib.request.Request(f"{self.scheme}://localhost:{self.port}/metrics")
        request.add_header("X-Prometheus-Scrape-Timeout-Seconds", str(TIMEOUT))
        if self.password:
            token = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=self.context) as answer:
            body: bytes = answer.read()
        self.seconds.append(time.monotonic() - began)
        assert self.seconds[-1] < TIMEOUT
        text = body.decode()
        assert "bpf_exporter_program_state" in text
        return text

    def pss(self) -> int:
        """Bytes of the server."""
        rollup = Path(f"/proc/{self.exporter.server_pid()}/smaps_rollup").read_text()
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.M)
        assert found
        return int(found[1]) << 10

    def sockets(self) -> int:
        fds = Path(f"/proc/{self.exporter.server_pid()}/fd")
        links = []
        for fd in fds.iterdir():
            with contextlib.suppress(OSError):
                links.append(os.readlink(fd))
        return sum(link.startswith("socket:") for link in links)

    def bear(self, kind: str, clients: int = CLIENTS, amount: float = SECONDS) -> tuple[dict[str, int], int]:
        """Scrape every tenth of a second while it is attacked: what the attackers did, and the most memory."""
        command = [sys.executable, "-m", "tests.e2e.attackers", kind, str(self.port), str(clients), str(amount)]
        most = 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as attackers:
            try:
                while attackers.poll() is None:
                    self.scrape()
                    most = max(most, self.pss())
                    assert self.sockets() < CONNECTIONS + 16
                    time.sleep(0.1)
            except BaseException:
                attackers.kill()
                raise
            assert attackers.stdout is not None
            did: dict[str, int] = json.loads(attackers.stdout.read())
        assert attackers.returncode == 0
        slowest = max(self.seconds)
        print(f"{self.scheme} {kind}: {did}, {len(self.seconds)} scrapes, slowest {slowest:.3f} s, PSS {most >> 10} kB")
        return did, most


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("plain")
    with daemon.running(write_config(directory), directory) as exporter:
        exporter.wait_ready()
        yield Target(exporter, "http", exporter.port)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("secure")
    pki = certificates.make(directory)
    web = pki.web_file(users={USER: PASSWORD})
    with daemon.running(write_config(directory), directory, "--web.config.file", str(web)) as exporter:
        target = Target(exporter, "https", exporter.port, ssl.create_default_context(cafile=pki.authority), PASSWORD)

        def runs() -> bool:
            with contextlib.suppress(OSError):
                return 'state="running"} 1' in target.scrape()
            return False

        until(runs, lambda: exporter.log, 120)
        yield target


def test_slow_clients_hold_up_nobody(plain: Target) -> None:
    plain.scrape()
    before = plain.pss()
    did, most = plain.bear("slow_request")
    assert did["connected"] > CONNECTIONS
    assert did["thrown out"] > 0
    assert most - before < GROWTH
    first = plain.pss()
    plain.bear("slow_request")
    assert plain.pss() - first < SECOND


def test_clients_that_do_not_take_their_answers_hold_up_nobody(plain: Target) -> None:
    before = plain.pss()
    _, most = plain.bear("slow_reader", 300)
    assert most - before < GROWTH


@pytest.mark.parametrize("kind", ["large_header", "large_line"])
def test_oversized_requests_are_cut_short(plain: Target, kind: str) -> None:
    before = plain.pss()
    did, most = plain.bear(kind, 50)
    assert did["thrown out"] > 0
    assert most - before < GROWTH


def test_ten_thousand_requests_from_fifty_clients_are_answered(plain: Target) -> None:
    before = plain.pss()
    did, most = plain.bear("flood", 50, 10_000)
    assert did == {"200": 10_000}
    assert most - before < GROWTH


@pytest.mark.parametrize("kind", ["slow_handshake", "silent"])
def test_handshakes_that_never_end_hold_up_nobody(secure: Target, kind: str) -> None:
    before = secure.pss()
    did, most = secure.bear(kind)
    assert did["connected"] > CONNECTIONS
    assert most - before < GROWTH
    first = secure.pss()
    secure.bear(kind)
    assert secure.pss() - first < SECOND


def test_guessed_passwords_take_no_thread_from_the_scraper_that_is_known(tmp_path: Path) -> None:
    web = tmp_path / "web.yaml"
    certificates.replace(web, f"basic_auth_users: {{{USER}: {certificates.hashed(PASSWORD, cost=10)}}}\n")
    with daemon.running(write_config(tmp_path), tmp_path, "--web.config.file", str(web)) as exporter:
        target = Target(exporter, "http", exporter.port, password=PASSWORD)
        target.scrape()
        did, _ = target.bear("guess", 50)
    assert did.keys() == {"401", "429"}
