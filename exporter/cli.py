"""The command `bpf-exporter`: its arguments, and the codes it ends with."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter import __version__, config, log
from exporter.commands.exit_codes import EXIT_OK
from exporter.config import durations

DEFAULT_CONFIG = "/etc/bpf-exporter/config.yaml"
DEFAULT_CACHE = "/var/cache/bpf-exporter"
DEFAULT_DISABLE_FILE = "/etc/bpf-exporter/disable"
DEFAULT_SOCKET = "/run/bpf-exporter/supervisor.sock"
DEFAULT_STATE = "/var/lib/bpf-exporter"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 fine, 1 runtime, 2 usage, 3 configuration, 4 missing rights or bcc, 5 where
    `check --load` or `check --btf` found a program that does not run."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except BrokenPipeError:  # the reader of our output went away: not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bpf-exporter",
        description="Prometheus exporter for eBPF programs declared in YAML.",
        epilog="exit codes: 0 fine, 1 runtime, 2 usage, 3 configuration, 4 missing rights or bcc, 5 check --load/--btf",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bpf-exporter {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="load the programs and serve their metrics", allow_abbrev=False))
    _add_supervise(commands.add_parser("supervise", help="load the programs for a server that is started by itself",
                                       allow_abbrev=False))  # fmt: skip
    _add_serve(commands.add_parser("serve", help="serve the metrics of what `supervise` has loaded",
                                   allow_abbrev=False))  # fmt: skip
    _add_check(commands.add_parser("check", help="report every mistake in a configuration", allow_abbrev=False))
    _add_compile(commands.add_parser("compile", help="fill a cache for a kernel, of this host or of others",
                                     allow_abbrev=False))  # fmt: skip
    doctor = commands.add_parser(
        "doctor", help="say what this host allows, and what to do about it", allow_abbrev=False
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.set_defaults(command=_command("doctor"))
    programs = commands.add_parser("programs", help="list the bundled programs, or explain one", allow_abbrev=False)
    programs.add_argument("name", nargs="?", help="a bundled program")
    programs.set_defaults(command=_command("programs"))
    _add_quarantine(commands.add_parser("quarantine", help="list programs that this host died with, or clear them",
                                        allow_abbrev=False))  # fmt: skip
    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration", allow_abbrev=False)
    schema.set_defaults(command=_schema)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config.file", dest="config_file", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE",
                        help="the configuration (%(default)s)")  # fmt: skip
    parser.add_argument("--config.trust-owner", dest="trust_owner", action="append", type=_uid, default=[],
                        metavar="USER", help="accept files of this user besides root's; may be repeated")  # fmt: skip


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_loading(parser)
    _add_listen(parser)
    _add_web(parser)
    _add_user(parser, "whom the server runs as", _default_account())
    _add_log(parser)
    parser.set_defaults(command=_command("run"), socket=None)


def _add_supervise(parser: argparse.ArgumentParser) -> None:
    _add_loading(parser)
    _add_socket(parser, "where the server connects")
    _add_user(parser, "the server's user, who alone may connect", _default_account())
    _add_log(parser)
    parser.set_defaults(command=_command("run"), listen=[], systemd_socket=False, metrics_path="")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_socket(parser, "where the supervisor listens")
    _add_listen(parser)
    _add_web(parser)
    current = (os.getuid(), os.getgid()) if os.getuid() else _default_account()
    _add_user(parser, "whom the server becomes, where it is started as root", current)
    _add_log(parser)
    parser.set_defaults(command=_command("serve"))


def _add_loading(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    add = parser.add_argument
    add("--web.config.file", dest="web_file", type=Path, metavar="FILE",
        help="TLS, passwords, headers and a rate limit, in exporter-toolkit's format (docs/web.md)")  # fmt: skip
    add("--config.auto-reload-interval", dest="reload_interval", type=_seconds, default=0.0, metavar="DURATION",
        help="reload when files have changed, looked at so often, like 30s (0s: on SIGHUP only)")  # fmt: skip
    add("--config.disable-file", dest="disable_file", type=Path, default=Path(DEFAULT_DISABLE_FILE), metavar="FILE",
        help="while it exists nothing is attached; looked for when the configuration is (%(default)s)")  # fmt: skip
    add("--cache.dir", dest="cache_dir", type=Path, default=Path(os.environ.get("CACHE_DIRECTORY", DEFAULT_CACHE)),
        metavar="DIR", help="compiled programs, so that a second start needs no compiler (%(default)s)")  # fmt: skip
    _add_state_dir(parser)
    _add_overhead(parser)
    add("--no-compile", dest="compiles", action="store_false",
        help="take programs from the cache alone: bcc is not needed, nor used where it is")  # fmt: skip
    add("--record", type=Path, metavar="DIR",
        help="at the end and on SIGUSR1 write each program's document and raw maps to DIR/NAME.json")  # fmt: skip


def _add_listen(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--web.listen-address", dest="listen", action="append", metavar="ADDRESS",
                       help="HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH; may be repeated (:10435)")  # fmt: skip
    where.add_argument("--web.systemd-socket", dest="systemd_socket", action="store_true",
                       help="listen on the sockets that systemd passes, those of bpf-exporter.socket")  # fmt: skip


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--web.telemetry-path", dest="metrics_path", type=_http_path, default="/metrics",
                        metavar="PATH", help="where the metrics are (%(default)s)")  # fmt: skip


def _add_socket(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--supervisor.socket", dest="socket", type=Path, default=Path(DEFAULT_SOCKET), metavar="PATH",
                        help=f"{what} (%(default)s)")  # fmt: skip


def _add_user(parser: argparse.ArgumentParser, what: str, default: tuple[int, int]) -> None:
    parser.add_argument("--user", type=_account, default=default, metavar="USER",
                        help=f"{what} (bpf-exporter if there is such a user, else 65534)")  # fmt: skip


def _add_log(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--log.level", dest="log_level", choices=log.LEVELS, default="info", help="(%(default)s)")
    add("--log.format", dest="log_format", choices=["auto", "console", "logfmt", "json", "journal"],
        default="auto", help="auto: console on a terminal, journal under systemd, else logfmt")  # fmt: skip


def _add_overhead(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--overhead.stats", dest="statistics", choices=["off", "sample", "always"], default="sample",
        help="when the kernel takes run times of BPF programs (%(default)s); budgets make it sample")  # fmt: skip
    add("--overhead.interval", dest="overhead_interval", type=_some_seconds, default=30.0, metavar="DURATION",
        help="from one sample to the next (30s)")  # fmt: skip
    add("--overhead.window", dest="overhead_window", type=_some_seconds, default=1.0, metavar="DURATION",
        help="length of a sample (1s)")  # fmt: skip
    add("--overhead.pause", dest="overhead_pause", type=_some_seconds, default=300.0, metavar="DURATION",
        help="until a program that exceeded its budget is tried again; twice that the next time (5m)")  # fmt: skip


def _some_seconds(text: str) -> float:
    if not (seconds := _seconds(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all: write a number and its unit, like 30s or 5m")
    return seconds


def _add_state_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state.dir", dest="state_dir", type=Path, metavar="DIR",
                        default=Path(os.environ.get("STATE_DIRECTORY", DEFAULT_STATE)),
                        help="what has to outlive a crash of the host (%(default)s)")  # fmt: skip


def _add_quarantine(parser: argparse.ArgumentParser) -> None:
    _add_state_dir(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--clear", action="append", default=[], metavar="NAME",
                       help="let the program of this name be attached again; may be repeated")  # fmt: skip
    which.add_argument("--all", action="store_true", help="let all of them be attached again")
    parser.set_defaults(command=_command("quarantine"))


def _add_compile(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("file", nargs="?", type=Path, help="the configuration, instead of --config.file")
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR",
        help="the cache to fill, the --cache.dir of the hosts; what is there stays")  # fmt: skip
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument("--kernel", type=Path, metavar="VMLINUZ", help="that kernel (the running one)")
    kernel.add_argument("--btf", type=Path, metavar="FILE", help="the kernel with these types; needs --release")
    add("--release", help="of that kernel, as uname -r says it (what the vmlinuz says)")
    add("--arch", choices=["x86_64", "aarch64"], help="of that kernel (what the kernel's types say)")
    parser.set_defaults(command=_command("compile"))


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("file", nargs="?", type=Path, help="the configuration, instead of --config.file")
    add = parser.add_argument
    add("--web.config.file", dest="web_file", type=Path, metavar="FILE",
        help="also a web configuration, with its certificates")  # fmt: skip
    add("--strict", action="store_true", help="warnings are errors")
    add("--load", action="store_true", help="also load and attach on this kernel, and detach at once; 5 if one fails")
    add("--btf", type=Path, metavar="FILE",
        help="which variants the kernel of these types would use, and why not others; 5 if one has none")  # fmt: skip
    add("--release", help="of that kernel, as uname -r says it there (not known: what requires one is assumed)")
    add("--arch", choices=["x86_64", "aarch64"], help="of that kernel (what the types say)")
    add("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_command("check"))


# Arguments


def _uid(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"no user {text!r} here: name one, or give a number") from None


def _seconds(text: str) -> float:
    found = durations.seconds(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write a number and its unit, like 30s or 5m")
    return found


def _account(text: str) -> tuple[int, int]:
    """The uid and gid that a user name or number stands for."""
    uid = _uid(text)
    try:
        return uid, pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid, uid


def _default_account() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("bpf-exporter")
    except KeyError:
        return 65534, 65534
    return entry.pw_uid, entry.pw_gid


def _http_path(text: str) -> str:
    if not text.startswith("/") or text in ("/", "/-/healthy", "/-/ready") or "?" in text:
        raise argparse.ArgumentTypeError(f"{text!r} must be a path of its own, such as /metrics")
    return text


# Commands


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """The function `command` of a module of commands/, imported when the command runs: each needs other libraries."""

    def run(options: argparse.Namespace) -> int:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads of a library would keep the rights that a server drops
        code: int = importlib.import_module(f"exporter.commands.{name}").command(options)
        return code

    return run


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(config.json_schema(), indent=2))
    return EXIT_OK
