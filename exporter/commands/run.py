"""`run` and `supervise`: check what is missing, then start listening sockets, children and the supervisor."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from exporter import __version__, config, log
from exporter.commands.exit_codes import EXIT_CONFIG, EXIT_RIGHTS, EXIT_RUNTIME
from exporter.commands.printing import print_findings
from exporter.ipc.protocol import ConfigRead, WebConfigRead
from exporter.kernel import boot, malloc, rights
from exporter.loading import artifact, build, cache_key, load_program, target
from exporter.loading.build import Host
from exporter.loading.compiling import compiler, scratch
from exporter.loading.refusal import RefusedError
from exporter.program import Descriptors, Program
from exporter.spec import Config, Limits, ProgramSpec
from exporter.supervisor import adoption, overhead, server_unit, web_config
from exporter.supervisor.config_reader import read_config, read_in_child, read_web_config
from exporter.supervisor.crash_record import CrashRecord
from exporter.supervisor.loaders import LoadFunction
from exporter.supervisor.managed_program import ManagedProgram
from exporter.supervisor.quarantine import CrashGuard
from exporter.supervisor.reload import ConfigSource, allowed, is_disabled
from exporter.supervisor.server_forked import ServeFunction, ServerChild
from exporter.supervisor.supervisor import RecordFunction, ServerFunction, Supervisor, SupervisorOptions
from exporter.web import listening

LOADER_NICE = 5  # compiling must not slow down what the host is for


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `run` and `supervise`."""

    listen: tuple[str, ...]
    metrics_path: str
    socket: Path | None  # that a server in a unit of its own connects to; None for a forked server
    cache_dir: Path
    account: tuple[int, int]  # uid and gid of the server
    record: Path | None
    compiles: bool  # False: a program that is not in the cache fails
    source: ConfigSource  # of the configuration, read again on reload
    state_dir: Path  # of the crash record
    overhead: overhead.OverheadOptions  # when run times are measured
    web: web_config.WebConfigSource | None  # from the file of --web.config.file
    systemd_socket: bool  # listen on the sockets that the service manager passes


def run(config: Config, options: RunOptions) -> int:
    """Serve until SIGTERM. Return the exit code: 0, 1 if the server cannot serve, 4 for missing rights or bcc."""
    logger = log.get()
    malloc.return_freed_memory()
    if options.socket is None and (missing := rights.missing_to_become(*options.account)):
        what = f"a server of user {options.account[0]} needs {', '.join(missing)}"
        logger.error(f"{what}: {rights.ADVICE}")
        return EXIT_RIGHTS
    try:
        cache = _cache(options)
        host = Host(target.this_host(), cache, map_memory=config.limits.map_memory, compiles=options.compiles)
        programs = allowed(config.programs, is_disabled(options.source))
        if options.compiles and (refusal := _missing_bcc(programs, host)):
            logger.error(refusal)
            return EXIT_RIGHTS
        server = _connection(options.socket, options.account) if options.socket else _child(options)
    except listening.AddressError as error:
        logger.error(str(error))
        return EXIT_RUNTIME
    except OSError as error:
        cause = error.strerror or str(error)
        logger.error(f"cache {options.cache_dir}: {cause} (--cache.dir: a directory that only this user can write to)")
        return EXIT_RUNTIME
    logger.info("bpf-exporter starts", version=__version__, kernel=os.uname().release, programs=len(config.programs))
    supervisor = Supervisor(
        SupervisorOptions(
            config=config,
            load=_load_function(host),
            server=server,
            source=options.source,
            web=options.web,
            overhead=options.overhead,
            guard=_guard(host, options.state_dir),
            record=_recorder(options.record) if options.record else None,
            compare=adoption.comparison(host) if options.socket else None,
        )
    )
    gc.collect()
    malloc.trim()
    gc.freeze()  # objects of the start are never freed: a child's collector would touch, and so copy, these pages
    return supervisor.run()


def _cache(options: RunOptions) -> artifact.Cache:
    """Return the cache of the command line; where that cannot be used one that ends with this process. OSError where
    other users can write to it, or where nothing may be compiled."""
    try:
        return artifact.Cache(options.cache_dir)
    except OSError as error:
        if isinstance(error, artifact.ForeignCacheError) or not options.compiles:
            raise
        hint = "every start compiles all programs (--cache.dir: a directory that this user can write to)"
        cause = error.strerror or str(error)
        log.get().warning(f"compiled programs are not kept: {hint}", cache=str(options.cache_dir), error=cause)
    made = tempfile.mkdtemp(prefix="bpf-exporter-", dir=scratch.directory())
    atexit.register(shutil.rmtree, made, ignore_errors=True)  # children end without running it
    return artifact.Cache(Path(made))


def _missing_bcc(programs: Sequence[ProgramSpec], host: Host) -> str:
    """Return why a program cannot be compiled where one must be and there is no bcc; "" if nothing is missing."""
    if compiler.bcc_version() is not None:
        return ""
    for program in programs:
        if program.enabled and not any(build.is_cached(program, variant, host) for variant in program.variants):
            try:
                why = build.why_not_cached(program, program.variants, host)
            except RefusedError as error:
                why = error.text
            python = "" if sys.prefix == sys.base_prefix else " and make the venv with --system-site-packages"
            return (
                f"{program.name}: compile: bcc is not installed and no variant is in {host.cache.directory}: {why}"
                f" (apt-get install python3-bpfcc{python}; the PyPI package of that name is another project)"
            )
    return ""


def _load_function(host: Host) -> LoadFunction:
    """Return what a loader child runs. The kernel's BTF is hashed once, for `host`, and not by every loader."""

    def load(program: ProgramSpec, limits: Limits) -> tuple[Program, Descriptors]:
        with contextlib.suppress(PermissionError):  # the unit sets a niceness, and forbids another
            os.nice(LOADER_NICE)
        return load_program.load_program(program, replace(host, map_memory=limits.map_memory))

    return load


def _guard(host: Host, state_dir: Path) -> CrashGuard:
    return CrashGuard(CrashRecord(state_dir), boot.boot_id(), lambda program: cache_key.of_text(program, host.header))


def _child(options: RunOptions) -> ServerFunction:
    """Return a function that forks a server, after its sockets listen."""
    listeners = listening.sockets(options.listen, from_service_manager=options.systemd_socket)
    secure = options.web is not None and bool(options.web.first.settings and options.web.first.settings.tls)
    for sock in listeners:
        log.get().info("listening", url=listening.url(sock, options.metrics_path, secure=secure))
        if not options.systemd_socket:
            atexit.register(listening.remove, sock)
    return ServerChild.of(_server(listeners, options), [sock.fileno() for sock in listeners])


def _connection(path: Path, account: tuple[int, int]) -> ServerFunction:
    """Return a function that waits for a server, a unit of its own, to connect to this socket."""
    uid, gid = account
    try:
        listener = server_unit.listen(path, gid)
    except OSError as error:
        raise listening.AddressError(f"supervisor socket {path}: {error.strerror or error}") from error
    return server_unit.ServerConnection.of(listener, uid)


def _server(listeners: Sequence[socket.socket], options: RunOptions) -> ServeFunction:
    """Return the function that the server child runs. The child imports its modules (numpy is most of them), so that
    the supervisor never holds them: 2.4 MB less for both roles together, and 0.1 s more for a restarted server."""
    parent = os.getpid()

    def serve(sock: socket.socket) -> NoReturn:
        try:
            from exporter.server import process

            chosen = process.ServerOptions(options.account, options.metrics_path, parent)
            process.serve(sock, listeners, chosen)
        except BaseException as error:  # noqa: BLE001 - logged before the supervisor starts another one
            log.get().error("server failed", error=f"{type(error).__name__}: {error}")
        os._exit(EXIT_RUNTIME)

    return serve


def _recorder(directory: Path) -> RecordFunction:
    """Return a function that writes recordings in a child: documents and raw maps, one file for each program."""

    def record(programs: Iterable[ManagedProgram]) -> None:
        from exporter.collecting import recording

        directory.mkdir(parents=True, exist_ok=True)
        for managed in programs:
            if managed.fds.maps:
                path = directory / f"{managed.spec.name}.json"
                recording.write(path, managed.program, managed.spec, managed.fds.maps)

    return record


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter run`, or `supervise`, which starts no server. Return the exit code."""
    log.configure(options.log_level, options.log_format)
    if refusal := rights.refusal_to_load():
        log.get().error(refusal)
        return EXIT_RIGHTS
    files = options.config_file, tuple(options.trust_owner)
    found = read_in_child(read_config, ConfigRead, *files)
    print_findings(map(": ".join, found.mistakes), map(": ".join, found.warnings))
    if found.config is None:
        return EXIT_CONFIG
    try:
        web = _web_source(options.web_file, options.trust_owner)
    except config.ConfigErrors:
        return EXIT_CONFIG
    return run(
        found.config,
        RunOptions(
            listen=tuple(options.listen or [":10435"]),
            metrics_path=options.metrics_path,
            socket=options.socket,
            cache_dir=options.cache_dir,
            account=options.user,
            record=options.record,
            compiles=options.compiles,
            source=ConfigSource(lambda: read_config(*files), found, options.disable_file, options.reload_interval),
            state_dir=options.state_dir,
            web=web,
            systemd_socket=options.systemd_socket,
            overhead=overhead.OverheadOptions(
                options.statistics, options.overhead_interval, options.overhead_window, options.overhead_pause
            ),
        ),
    )


def _web_source(path: Path | None, trust_owner: Sequence[int]) -> web_config.WebConfigSource | None:
    """Return the source of the web configuration, None for no file. ConfigErrors, all of which are printed already."""
    if path is None:
        return None
    found = read_in_child(read_web_config, WebConfigRead, path, trust_owner)
    print_findings(map(": ".join, found.mistakes), map(": ".join, found.warnings))
    if found.settings is None:
        raise config.ConfigErrors(())
    return web_config.WebConfigSource(lambda: read_web_config(path, trust_owner), found)
