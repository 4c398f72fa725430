"""A supervisor in a process of its own, with loaders and a server of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from exporter import log
from exporter.ipc import protocol
from exporter.ipc.protocol import ProgramState, ToServer
from exporter.program import Descriptors, Program, State
from exporter.spec import Config, Limits, ProgramSpec
from exporter.supervisor.reload import ConfigSource
from exporter.supervisor.server_forked import ServerChild
from exporter.supervisor.supervisor import Supervisor, SupervisorOptions
from tests import waiting

Load = Callable[[ProgramSpec, Limits], tuple[Program, Descriptors]]

LIMITS = Limits()


def spec(name: str, lifetime: float = 0.0) -> ProgramSpec:
    return ProgramSpec(name=name, variants=[], metrics=[], source=Path("x.c"), text="", lifetime=lifetime)


class Run:
    """A supervisor in a process of its own, as it always is; its log and what its server received, in files."""

    def __init__(
        self,
        directory: Path,
        load: Load,
        specs: list[ProgramSpec],
        serve: Callable[[socket.socket], None] | None = None,
        source: ConfigSource | None = None,
    ) -> None:
        self._directory = directory
        self._serve = serve or self._write_down
        self.pid = os.fork()
        if self.pid == 0:
            with (directory / "log").open("w") as stream:
                log.configure("debug", "logfmt", stream)
                server = ServerChild.of(self._serving)
                options = SupervisorOptions(config=Config(programs=specs), load=load, server=server, source=source)
                code = Supervisor(options).run()
                stream.flush()
            os._exit(code)

    def _serving(self, sock: socket.socket) -> NoReturn:
        self._serve(sock)
        os._exit(0)

    def _write_down(self, sock: socket.socket) -> None:
        """A server that writes each message down, with what its descriptors are."""
        protocol.send_ready(sock)
        with (self._directory / "received").open("a") as received:
            while (message := protocol.receive(sock, ToServer)) is not None:
                if isinstance(message[0], ProgramState):
                    program = message[0].program.model_dump()
                    program["fds"] = [os.readlink(f"/proc/self/fd/{fd}") for fd in message[1]]
                    print(json.dumps(program), file=received, flush=True)

    @property
    def log(self) -> str:
        path = self._directory / "log"
        return path.read_text() if path.exists() else ""

    def states(self) -> dict[str, dict[str, Any]]:
        """The last program of each name that the server received."""
        path = self._directory / "received"
        programs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {program["name"]: program for program in programs}

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        waiting.until(condition, lambda: self.log, seconds)

    def end(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        code = waiting.reap(self.pid)
        self.pid = 0
        return code

    def kill(self) -> None:
        """Kill and reap the supervisor, if it still runs."""
        if self.pid:
            waiting.kill(self.pid)
        self.pid = 0


def loads(program: ProgramSpec, _: Limits = LIMITS) -> tuple[Program, Descriptors]:
    """A program with one map, one program and one link, which are memory files with telling names."""
    fds = Descriptors(
        maps={"m": os.memfd_create("writable")},
        readonly={"m": os.memfd_create("readonly")},
        programs={"f": os.memfd_create("program")},
        links=[os.memfd_create(f"link of {program.name}")],
    )
    return Program(program.name, State.RUNNING), fds
