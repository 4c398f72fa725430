"""Decoders of C strings: string, regexp (Python's re)."""

from __future__ import annotations

import re

from exporter.decoders.declaration import DecodeFunction, Decoder, Input, fits_no_number
from exporter.decoders.names import Names
from exporter.spec import DecodeStep


def text(raw: bytes) -> str:
    """Return the text before the first NUL (all of it without one); bytes that are not UTF-8 become U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _string(_step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    return text


def _patterns(step: DecodeStep) -> list[str]:
    return [step.argument] if isinstance(step.argument, str) else list(step.argument)


def _regexp_argument(step: DecodeStep) -> str | None:
    patterns = step.argument
    if not isinstance(patterns, str) and not (
        isinstance(patterns, list) and patterns and all(isinstance(pattern, str) for pattern in patterns)
    ):
        return "decoder regexp: the argument is a list of patterns, as in {regexp: ['^(kswapd)', '^(systemd.*)$']}"
    for pattern in _patterns(step):
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as error:
            return f"decoder regexp: pattern {pattern!r}: {error} (Python's re)"
        except RecursionError:
            return f"decoder regexp: a pattern of {len(pattern)} characters is nested too deep (Python's re)"
    return None


def _regexp(step: DecodeStep, _given: Input, _names: Names) -> DecodeFunction:
    """Return the first group of the first pattern that is found in the text, all of the match without a group."""
    searches = [re.compile(pattern).search for pattern in _patterns(step)]

    def run(subject: str) -> str | None:
        for search in searches:
            match = search(subject)
            if match:
                group = match[1] if match.re.groups else None
                return match[0] if group is None else group
        return None

    return run


DECODERS = (
    Decoder("string", takes=("bytes",), gives="text", bind=_string, fits=fits_no_number, unknown=None),
    Decoder("regexp", takes=("text",), gives="text", bind=_regexp, argument=_regexp_argument, unknown="drop"),
)
