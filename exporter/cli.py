"""The command line of `bpf-exporter`: arguments, their help, and the module of commands/ that runs.

A new command is a subparser in `_parser` and a module in commands/.
"""

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
    """Run the command and return its exit code (commands/exit_codes.py)."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except BrokenPipeError:  # the reader of the output closed it: no failure of the command
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bpf-exporter",
        description="Prometheus exporter for eBPF programs declared in YAML.",
        epilog="exit codes: 0 success, 1 runtime error, 2 wrong usage, 3 error in the configuration, 4 missing rights "
        "or bcc, 5 check --load or --btf found a program that does not run",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bpf-exporter {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, allow_abbrev=False)

    _add_run(add("run", "load BPF programs and serve their metrics"))
    _add_supervise(add("supervise", "load BPF programs; `serve` serves their metrics"))
    _add_serve(add("serve", "serve the metrics of the programs that `supervise` loaded"))
    _add_check(add("check", "report every error in a configuration, compile it or try it"))
    _add_compile(add("compile", "compile programs for this kernel or another into a cache"))
    doctor = add("doctor", "check whether this host can run BPF programs, and what to change")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(command=_command("doctor"))
    programs = add("programs", "list the bundled programs, or describe one")
    programs.add_argument("name", nargs="?", help="describe this bundled program")
    programs.set_defaults(command=_command("programs"))
    _add_quarantine(add("quarantine", "list or clear programs that are not attached because the host crashed"))
    add("schema", "print the JSON Schema of the configuration").set_defaults(command=_schema)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config.file", dest="config_file", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE",
                        help="configuration file (default: %(default)s)")  # fmt: skip
    parser.add_argument("--config.trust-owner", dest="trust_owner", action="append", type=_uid, default=[],
                        metavar="USER",
                        help="accept configuration files that this user owns, beside root's; may be "
                        "repeated")  # fmt: skip


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_loading(parser)
    _add_listen(parser)
    _add_web(parser)
    _add_user(parser, "user that the server runs as", _default_account())
    _add_log(parser)
    parser.set_defaults(command=_command("run"), socket=None)


def _add_supervise(parser: argparse.ArgumentParser) -> None:
    _add_loading(parser)
    _add_socket(parser, "socket to listen on for the server")
    _add_user(parser, "user of the server, the only one that may connect", _default_account())
    _add_log(parser)
    parser.set_defaults(command=_command("run"), listen=[], systemd_socket=False, metrics_path="")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_socket(parser, "socket of the supervisor to connect to")
    _add_listen(parser)
    _add_web(parser)
    current = (os.getuid(), os.getgid()) if os.getuid() else _default_account()
    _add_user(parser, "user that the server changes to when root starts it", current)
    _add_log(parser)
    parser.set_defaults(command=_command("serve"))


def _add_loading(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    add = parser.add_argument
    add("--web.config.file", dest="web_file", type=Path, metavar="FILE",
        help="web configuration: TLS, passwords, headers and a rate limit, in the format of exporter-toolkit "
        "(docs/web.md)")  # fmt: skip
    add("--config.auto-reload-interval", dest="reload_interval", type=_seconds, default=0.0, metavar="DURATION",
        help="check the configuration files for changes this often, such as 30s, and reload them "
        "(default: 0s, reload on SIGHUP only)")  # fmt: skip
    add("--config.disable-file", dest="disable_file", type=Path, default=Path(DEFAULT_DISABLE_FILE), metavar="FILE",
        help="while this file exists no program is attached; checked whenever the configuration is read "
        "(default: %(default)s)")  # fmt: skip
    add("--cache.dir", dest="cache_dir", type=Path, default=Path(os.environ.get("CACHE_DIRECTORY", DEFAULT_CACHE)),
        metavar="DIR",
        help="directory of compiled programs, with which later starts need no compiler (default: "
        "%(default)s)")  # fmt: skip
    _add_state_dir(parser)
    _add_overhead(parser)
    add("--no-compile", dest="compiles", action="store_false",
        help="use compiled programs of the cache only: bcc is not needed, and not used")  # fmt: skip
    add("--record", type=Path, metavar="DIR",
        help="write each program's state and raw maps to DIR/NAME.json on SIGUSR1 and at the end, for bug reports "
        "and tests")  # fmt: skip


def _add_listen(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--web.listen-address", dest="listen", action="append", metavar="ADDRESS",
                       help="address to listen on: HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH; may be repeated "
                       "(default: :10435)")  # fmt: skip
    where.add_argument("--web.systemd-socket", dest="systemd_socket", action="store_true",
                       help="listen on the sockets that systemd passes (bpf-exporter.socket)")  # fmt: skip


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--web.telemetry-path", dest="metrics_path", type=_http_path, default="/metrics",
                        metavar="PATH", help="path of the metrics (default: %(default)s)")  # fmt: skip


def _add_socket(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--supervisor.socket", dest="socket", type=Path, default=Path(DEFAULT_SOCKET), metavar="PATH",
                        help=f"{what} (default: %(default)s)")  # fmt: skip


def _add_user(parser: argparse.ArgumentParser, what: str, default: tuple[int, int]) -> None:
    parser.add_argument("--user", type=_account, default=default, metavar="USER",
                        help=f"{what} (default: bpf-exporter if that user exists, else 65534)")  # fmt: skip


def _add_log(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--log.level", dest="log_level", choices=log.LEVELS, default="info",
        help="lowest level that is logged (default: %(default)s)")  # fmt: skip
    add("--log.format", dest="log_format", choices=["auto", "console", "logfmt", "json", "journal"],
        default="auto",
        help="format of the log (default: auto, which is console on a terminal, journal under systemd, else "
        "logfmt)")  # fmt: skip


def _add_overhead(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--overhead.stats", dest="statistics", choices=["off", "sample", "always"], default="sample",
        help="when the kernel measures run times of BPF programs: never, for a window in every interval, or always "
        "(default: %(default)s); a program with a budget is always sampled")  # fmt: skip
    add("--overhead.interval", dest="overhead_interval", type=_some_seconds, default=30.0, metavar="DURATION",
        help="time from one sample to the next (default: 30s)")  # fmt: skip
    add("--overhead.window", dest="overhead_window", type=_some_seconds, default=1.0, metavar="DURATION",
        help="length of a sample (default: 1s)")  # fmt: skip
    add("--overhead.pause", dest="overhead_pause", type=_some_seconds, default=300.0, metavar="DURATION",
        help="time until a program that exceeded its budget is attached again; doubled each time (default: "
        "5m)")  # fmt: skip


def _some_seconds(text: str) -> float:
    if not (seconds := _seconds(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all: write a number and its unit, like 30s or 5m")
    return seconds


def _add_state_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state.dir", dest="state_dir", type=Path, metavar="DIR",
                        default=Path(os.environ.get("STATE_DIRECTORY", DEFAULT_STATE)),
                        help="directory for the record of programs that the host may crash with (default: "
                        "%(default)s)")  # fmt: skip


def _add_quarantine(parser: argparse.ArgumentParser) -> None:
    _add_state_dir(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--clear", action="append", default=[], metavar="NAME",
                       help="allow this program to be attached again; may be repeated")  # fmt: skip
    which.add_argument("--all", action="store_true", help="allow all programs to be attached again")
    parser.set_defaults(command=_command("quarantine"))


def _add_compile(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("file", nargs="?", type=Path, help="configuration file, instead of --config.file")
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR",
        help="cache directory to fill, for --cache.dir of the hosts; present entries are kept")  # fmt: skip
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument("--kernel", type=Path, metavar="VMLINUZ",
                        help="compile for the kernel in this file (default: the running kernel)")  # fmt: skip
    kernel.add_argument("--btf", type=Path, metavar="FILE",
                        help="compile for the kernel of this /sys/kernel/btf/vmlinux; needs --release")  # fmt: skip
    add("--release", help="release of that kernel, as uname -r prints it there (default: what its vmlinuz says)")
    add("--arch", choices=["x86_64", "aarch64"], help="architecture of that kernel (default: what its types say)")
    parser.set_defaults(command=_command("compile"))


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("file", nargs="?", type=Path, help="configuration file, instead of --config.file")
    add = parser.add_argument
    add("--web.config.file", dest="web_file", type=Path, metavar="FILE",
        help="check this web configuration too, with its certificates")  # fmt: skip
    add("--strict", action="store_true", help="treat warnings as errors")
    add("--load", action="store_true",
        help="load and attach every program on this kernel, then detach it; exit code 5 if one fails")  # fmt: skip
    add("--btf", type=Path, metavar="FILE",
        help="report which variants another kernel would use, by a copy of its /sys/kernel/btf/vmlinux; exit code 5 "
        "if a program has none")  # fmt: skip
    add("--release", help="release of that kernel, as uname -r prints it there (default: not known, and what requires "
        "a release is assumed)")  # fmt: skip
    add("--arch", choices=["x86_64", "aarch64"], help="architecture of that kernel (default: what its types say)")
    add("--json", action="store_true", help="print JSON")
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
    """Return the uid and gid of a user name or number."""
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
    """Return the function `command` of a module of commands/, which is imported when it is called: each command needs
    other libraries."""

    def run(options: argparse.Namespace) -> int:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads of the library would keep the rights that the server drops
        code: int = importlib.import_module(f"exporter.commands.{name}").command(options)
        return code

    return run


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(config.json_schema(), indent=2))
    return EXIT_OK
