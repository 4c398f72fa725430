"""`quarantine`: list or clear programs in the crash record, which are not attached because the host crashed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from exporter.commands.exit_codes import EXIT_OK, EXIT_RUNTIME, EXIT_USAGE
from exporter.kernel.boot import boot_id
from exporter.supervisor.crash_record import Content, CrashRecord, DamagedError, Suspect, seen_from, written

_NOTHING = "no program is quarantined"


def listing(record: CrashRecord) -> list[str]:
    """Return a line for each quarantined program. OSError, DamagedError."""
    suspects = _seen(record.read()).quarantined.values()
    width = max((len(suspect.program) for suspect in suspects), default=0)
    return [f"{s.program:{width}}  attached since {written(s.since)}, when this host crashed" for s in suspects] or [
        _NOTHING
    ]


def clear(record: CrashRecord, names: Sequence[str] | None) -> list[str]:
    """Remove the programs of these names, or all, from the record; return a line for each. LookupError for a name that
    is not in it, and then nothing changes; OSError."""
    there = _seen(record.read()).quarantined
    known = sorted({suspect.program for suspect in there.values()})
    for name in names or ():
        if name not in known:
            raise LookupError(f"{name} is not quarantined ({', '.join(known) or 'no program'} is)")
    chosen = known if names is None else sorted(set(names))
    if chosen:
        record.change(lambda content: _without(_seen(content), chosen))
    hint = "attached again within some seconds where the exporter runs, else at its next start"
    return [f"{name}: cleared, {hint}" for name in chosen] or [_NOTHING]


def _seen(content: Content) -> Content:
    boot = boot_id()
    return seen_from(content, boot) if boot else content


def _without(content: Content, names: Sequence[str]) -> Content:
    left: dict[str, Suspect] = {key: s for key, s in content.quarantined.items() if s.program not in names}
    return replace(content, quarantined=left)


def command(options: argparse.Namespace) -> int:
    """Run `bpf-exporter quarantine`: list what is quarantined, or clear it. Return the exit code."""
    record = CrashRecord(options.state_dir)
    try:
        if options.clear or options.all:
            print(*clear(record, None if options.all else options.clear), sep="\n")
        else:
            print(*listing(record), sep="\n")
    except LookupError as error:
        print(f"bpf-exporter quarantine: {error.args[0]}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, DamagedError) as error:
        cause = getattr(error, "strerror", None) or error
        print(
            f"bpf-exporter quarantine: {record.path}: {cause} (--state.dir: the same as that of `run`)", file=sys.stderr
        )
        return EXIT_RUNTIME
    return EXIT_OK
