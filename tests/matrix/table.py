"""What was examined -> a Markdown table of programs by kernels: the variant that is used, or why there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tests.matrix.examine import HERE, Examined
from tests.matrix.guest.programs import REQUESTS
from tests.peer.checks import wrong
from tests.peer.counting import NO_COUNT

ONLY = "runs"  # the cell of a program that has no variants


def markdown(done: Sequence[Examined]) -> str:
    """One row a program, one column a kernel, and below it what the kernels said that refused one."""
    rows = dict.fromkeys(name for found in done for name in found.steps if name.startswith("load/"))
    lines = [_line("program", *(_title(found) for found in done)), _line(*["---"] * (len(done) + 1))]
    lines += [_line(_plain(row), *(cell(found, row) for found in done)) for row in rows]
    lines += [
        "",
        f"`{ONLY}`: it has no variants. Bold: its numbers were compared there with somebody else's, and agree.",
    ]
    lines += ["", *_nowhere_counted(done, list(rows)), ""]
    lines += [
        f"- {_plain(row)}, {_title(found)}: {text}" for row in rows for found in done if (text := why(found, row))
    ]
    return "\n".join(lines) + "\n"


def cell(found: Examined, row: str) -> str:
    """The variant, WRONG if it does not count what somebody else counts; "skipped" or "failed" with the reason's word;
    BROKEN where the check itself failed, "-" where none was asked for."""
    step = found.steps.get(row)
    if step is None or step.error:
        return "BROKEN" if step or found.failure else "-"
    value = step.value
    if value["state"] != "running":
        return f"{value['state']}: {value['reason']}"
    name = str(value["variant"] or ONLY)
    if value["counted"] is None:
        return f"**{name}**" if _counted(found, row.rpartition("/")[2], name) else name
    return f"{name}: WRONG" if wrong(value["counted"]) else f"**{name}**"


def _nowhere_counted(done: Sequence[Examined], rows: Sequence[str]) -> list[str]:
    """Of each directory: how many programs were counted on one kernel at least, and which were not, with the reason."""
    lines = []
    for kind in ("programs", "peer"):
        own = [row for row in rows if _plain(row).startswith(f"{kind}/")]
        never = [_plain(row) for row in own if not any(cell(found, row).startswith("**") for found in done)]
        reasons = [f"{name} ({NO_COUNT.get(name, 'see below')})" for name in never]
        but = f", not {', '.join(reasons)}" if reasons else ""
        lines.append(f"- {kind}: {len(own) - len(never)} of {len(own)} were counted on one kernel at least{but}.")
    return lines


def why(found: Examined, row: str) -> str:
    """The text of a program that does not run, or that runs but could not compile or load a variant tried before."""
    step = found.steps.get(row)
    if step is None or step.error:
        return step.error.strip().splitlines()[-1] if step else found.failure.partition("\n")[0]
    value = step.value
    if value["state"] != "running":
        return _short(value["text"])
    return _short("; ".join(f"{variant}: {text}" for variant, _, text in value["attempts"]))


def _counted(found: Examined, program: str, variant: str) -> bool:
    step = found.steps.get(f"program/{program}/{variant}")
    return step is not None and not step.error and step.value["state"] == "running" and exact(step.value)


def exact(value: dict[str, Any]) -> bool:
    """The plain equalities of test_programs.py, which has the rest."""
    families = [part for part in value.values() if isinstance(part, dict)]
    return (
        value.get("sent") == value.get("out_resets")
        and all(part["made"] == part["counted"] for part in families if "made" in part)
        and all(sum(part["response"].values()) == REQUESTS for part in families if "response" in part)
    )


def _title(found: Examined) -> str:
    release = found.kernel.release if found.kernel else ""
    return "this machine" if found.series == HERE else release or found.series


def _plain(row: str) -> str:
    return row.removeprefix("load/")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _short(text: str, most: int = 300) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= most else f"{text[:most]}…"
