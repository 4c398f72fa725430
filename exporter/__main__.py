"""`bpf-exporter` and `python -m exporter`: what must be right before modules load, then the command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command; its exit code, as `cli.main` has them."""
    _open_closed_streams()
    # Loading modules takes half a second and more: Ctrl-C then ends it as it ends any program, without Python's trace.
    quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if quiet:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from exporter import cli

    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return cli.main()
    except KeyboardInterrupt:  # while it reads the arguments
        return 130


def _open_closed_streams() -> None:
    """Started as `bpf-exporter ... <&- >&-`, sockets and maps would get the numbers of the standard streams, and what
    is meant for those would be done to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
        if getattr(sys, name) is None:
            stream = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115 (it stays open)
            setattr(sys, name, stream)


if __name__ == "__main__":
    sys.exit(main())
