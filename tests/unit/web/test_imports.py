"""Modules that a server without TLS and passwords does not import: each would cost memory for months on every host."""

from __future__ import annotations

import subprocess
import sys

from tests.daemon import ROOT

HEAVY = ["bcrypt", "difflib", "email", "html", "http", "prometheus_client", "ssl", "urllib.request", "uuid"]
SERVER = """
import socket
import sys
import threading

import exporter.server.process
from exporter.web import application, listening
from exporter.web.access import AccessControl
from exporter.web.http_server import HttpServer

class Nothing:
    programs = staticmethod(list)
    ready = staticmethod(lambda: True)

listener = listening.listen("127.0.0.1:0")
server = HttpServer([listener], application.Application(Nothing()))
access = AccessControl(server)
access.apply(None)
threading.Thread(target=server.serve, daemon=True).start()
with socket.create_connection(listener.getsockname()) as client:
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    assert client.recv(12) == b"HTTP/1.1 200"
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_without_tls_and_passwords_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SERVER, *HEAVY], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
