"""Hints for names that do not exist."""

from __future__ import annotations

import pytest

from exporter.kernel.near import did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("conter", 'did you mean "counter"?'),
        ("tcp_rt", 'did you mean "tcp_rtt" or "tcp_rst"?'),
        ("xyzzy", "write one of counter, tcp_rst, tcp_rtt"),
    ],
)
def test_the_hint_names_what_looks_like_it_or_all(name: str, hint: str) -> None:
    assert did_you_mean(name, ["tcp_rst", "tcp_rtt", "counter"], otherwise="write one of") == hint
    assert did_you_mean(name, []) == "there are none"
