"""The document that a loader hands over comes back equal, and says when it is of another format."""

from __future__ import annotations

import json

import pytest

from exporter.program import Attachment, Attempt, Program, Reason, State, dumps, from_json, to_json

PROGRAM = Program(
    "one",
    State.RUNNING,
    variant="a",
    attachments=(
        Attachment("perf_event", "cpu-clock", "f", True, sites=2, links=(0, 1), cpus=(0, 3)),
        Attachment("kprobe", "tcp_*", "g", True, sites=17, links=(2,)),
        Attachment("uprobe", "c:x", "h", False, Reason.MISSING, "no function", sites=0),
    ),
    attempts=(Attempt("b", Reason.REQUIRES, "kernel"),),
)


def test_a_program_comes_back_equal() -> None:
    assert from_json(json.loads(dumps(PROGRAM))) == PROGRAM


def test_an_attachment_of_before_links_were_told_is_read() -> None:
    document = json.loads(dumps(PROGRAM))
    for attachment in document["program"]["attachments"]:
        del attachment["links"], attachment["cpus"], attachment["sites"]
    assert from_json(document).attachments[1] == Attachment("kprobe", "tcp_*", "g", True)


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 99, expected"):
        from_json({**to_json(PROGRAM), "format": 99})
