"""TLS, client certificates, passwords and sockets as people use them: with curl, and with Debian's Prometheus."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import CACHE, ROOT
from tests.e2e import certificates
from tests.e2e import prometheus as promserver
from tests.kernel.renames import rename, write_config
from tests.waiting import until

ENOUGH = 60.0  # seconds; for what comes within two on an idle machine
ALICE = "alice:correct horse"
RELOADED = "bpf_exporter_web_config_last_reload_successful"
MUTUAL = {
    "client_auth_type": "RequireAndVerifyClientCert",
    "client_ca_file": "authority.crt",
    "client_allowed_sans": ["prometheus.example"],
}


@dataclass
class Secure:
    """An exporter that wants a client certificate and a password."""

    exporter: daemon.Daemon
    pki: certificates.Pki

    def curl(self, *arguments: str, client: str = "prometheus", path: str = "/metrics") -> tuple[int, str]:
        """curl's exit code, and the status with what was said."""
        command = ["curl", "-sS", "-m", "30", "--cacert", str(self.pki.authority), "-w", "\n%{http_code}", *arguments]
        if client:
            files = [str(self.pki.directory / f"{client}.{end}") for end in ("crt", "key")]
            command += ["--cert", files[0], "--key", files[1]]
        url = f"https://localhost:{self.exporter.port}{path}"
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout

    def sample(self, name: str) -> float | None:
        code, text = self.curl("-u", ALICE)
        assert code == 0, text
        return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), None)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        until(holds, lambda: self.exporter.log, ENOUGH, every=0.1)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    directory = tmp_path_factory.mktemp("secure")
    pki = certificates.make(directory)
    pki.issue("prometheus", "DNS:prometheus.example")
    pki.issue("stranger", "DNS:stranger.example")
    web = pki.web_file(users={"alice": "correct horse"}, **MUTUAL)
    with daemon.running(write_config(directory), directory, "--web.config.file", str(web)) as exporter:
        made = Secure(exporter, pki)
        made.wait_until(lambda: made.curl("-u", ALICE, path="/-/ready")[1].endswith("200"))
        yield made


def test_curl_with_certificate_and_password_is_answered(secure: Secure) -> None:
    code, text = secure.curl("-u", ALICE)
    assert code == 0
    assert text.endswith("200")
    assert 'bpf_exporter_program_state{program="renames",state="running"} 1' in text
    assert secure.sample(RELOADED) == 1


def test_the_key_is_for_root_alone_and_the_server_is_not_root(secure: Secure) -> None:
    status = (secure.pki.directory / "server.key").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    uids = Path(f"/proc/{secure.exporter.server_pid()}/status").read_text().partition("\nUid:")[2].split()[:4]
    assert "0" not in uids


@pytest.mark.parametrize("client", ["", "stranger"])
def test_without_a_certificate_of_an_allowed_name_nobody_comes_in(secure: Secure, client: str) -> None:
    code, text = secure.curl("-u", ALICE, client=client)
    assert code != 0
    assert text.strip() == "000"


@pytest.mark.parametrize("user", [(), ("-u", "alice:wrong"), ("-u", "nobody:correct horse")])
def test_without_the_password_everything_is_401(secure: Secure, user: tuple[str, ...]) -> None:
    for path in ("/", "/metrics", "/-/healthy", "/nothing"):
        assert secure.curl(*user, path=path) == (0, "Unauthorized\n\n401")


def test_no_secret_is_in_the_log(secure: Secure) -> None:
    secure.curl("-u", "alice:a wrong password")
    for secret in ("correct horse", "a wrong password", "$2b$", "PRIVATE KEY"):
        assert secret not in secure.exporter.log


def test_prometheus_scrapes_with_tls_and_a_password(secure: Secure, tmp_path: Path) -> None:
    directory = secure.pki.directory
    job = {
        "job_name": "bpf-exporter",
        "scheme": "https",
        "basic_auth": {"username": "alice", "password": "correct horse"},
        "tls_config": {"ca_file": str(secure.pki.authority), "cert_file": str(directory / "prometheus.crt"),
                       "key_file": str(directory / "prometheus.key")},
        "static_configs": [{"targets": [f"localhost:{secure.exporter.port}"]}],
    }  # fmt: skip
    without = {**job, "job_name": "without", "basic_auth": {"username": "alice", "password": "wrong"}}
    rename(23)
    with promserver.running(tmp_path, [job, without], []) as prometheus:
        until(
            lambda: prometheus.numbers('up{job="bpf-exporter"}') == [1.0] and len(prometheus.query("up")) == 2,
            lambda: prometheus.query("up"),
            ENOUGH,
            every=0.2,
        )
        assert sum(prometheus.numbers("ebpf_renames_total")) >= 23
        assert prometheus.numbers('up{job="without"}') == [0.0]


def test_a_new_certificate_is_served_and_a_broken_one_is_not(secure: Secure) -> None:
    def serial() -> str:
        asked = subprocess.run(["openssl", "s_client", "-connect", f"localhost:{secure.exporter.port}",
                                "-cert", str(secure.pki.directory / "prometheus.crt"),
                                "-key", str(secure.pki.directory / "prometheus.key")],
                               input="", capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
        shown = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=asked.stdout, capture_output=True,
                               text=True, check=False, timeout=60)  # fmt: skip
        return shown.stdout

    before = serial()
    assert before.startswith("serial=")
    certificate, _ = secure.pki.issue("server", "DNS:localhost,IP:127.0.0.1")
    secure.wait_until(lambda: serial() not in (before, ""))
    secure.wait_until(lambda: secure.sample(RELOADED) == 1)
    good, now = certificate.read_text(), serial()
    certificates.replace(certificate, "nonsense")
    secure.wait_until(lambda: secure.sample(RELOADED) == 0)
    assert serial() == now
    wrong = [line for line in secure.exporter.log.splitlines() if "the earlier one stays in use" in line]
    told = [line for line in wrong if "not in PEM" in line]
    assert len(told) == 1
    assert "web.yaml:" in told[0]
    certificates.replace(certificate, good)
    secure.wait_until(lambda: secure.sample(RELOADED) == 1)


def test_a_changed_password_holds_without_a_restart(secure: Secure) -> None:
    users = {"alice": "correct horse", "bob": "battery staple"}
    secure.pki.web_file(users=users, **MUTUAL)
    secure.wait_until(lambda: secure.curl("-u", "bob:battery staple")[1].endswith("200"))
    secure.pki.web_file(users={"alice": "correct horse"}, **MUTUAL)
    secure.wait_until(lambda: secure.curl("-u", "bob:battery staple")[1].endswith("401"))
    assert secure.curl("-u", ALICE)[1].endswith("200")


def test_a_server_that_died_comes_back_with_tls(secure: Secure) -> None:
    before = secure.exporter.server_pid()
    os.kill(before, 9)
    secure.wait_until(lambda: secure.curl("-u", ALICE)[1].endswith("200"))
    assert secure.exporter.server_pid() != before


def test_a_wrong_file_ends_the_start_with_3_and_its_place(tmp_path: Path) -> None:
    web = tmp_path / "web.yaml"
    web.write_text("basic_auth_user: {}\n")
    web.chmod(0o600)
    line = [sys.executable, "-m", "exporter", "run", "--config.file", str(write_config(tmp_path)),
            "--cache.dir", str(tmp_path), "--web.config.file", str(web)]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 3
    assert f'{web}:1:1: unknown key "basic_auth_user"; did you mean "basic_auth_users"?' in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_on_a_unix_socket_and_on_one_of_systemd(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    config = str(write_config(tmp_path))

    def get(*arguments: str) -> str:
        command = ["curl", "-sS", "--retry", "60", "--retry-connrefused", "--retry-delay", "1", "-m", "120", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout

    with daemon.running(Path(config), tmp_path, "--web.listen-address", f"unix:{path}?mode=0600") as exporter:
        exporter.wait_ready()
        assert get("--unix-socket", str(path), "http://x/-/healthy") == "bpf-exporter is healthy.\n"
        assert exporter.stop() == 0
        assert not path.exists()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run = (
            f'LISTEN_PID=$$ LISTEN_FDS=1 exec {sys.executable} -m exporter run --config.file "$1"'
            f' --web.systemd-socket --cache.dir "$2" --state.dir "$3" 3<&{listener.fileno()}'
        )
        arguments = ["bash", "-c", run, "bash", config, str(CACHE / "artifacts"), str(tmp_path / "state")]
        passed = [listener.fileno()]
        with subprocess.Popen(arguments, cwd=ROOT, pass_fds=passed, stderr=subprocess.DEVNULL) as process:
            try:
                port = listener.getsockname()[1]
                assert get(f"http://127.0.0.1:{port}/-/healthy") == "bpf-exporter is healthy.\n"
            finally:
                process.terminate()
                process.wait(60)
