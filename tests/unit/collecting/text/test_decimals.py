"""The text of floats against prometheus_client's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from exporter.collecting.text.decimals import float_text, go_text

EDGES = [0.0, -0.0, 1.0, 999999.0, 1e6, 1234567.0, 1e15, 123456789.5, 1e16, 1e17, 1e-5, 5e-324, 1.7976931348623157e308]


@settings(max_examples=1000, deadline=None)
@given(st.floats() | st.integers(-(10**17), 10**17).map(float) | st.sampled_from(EDGES))
def test_go_text_is_what_prometheus_client_writes(number: float) -> None:
    assert go_text(number).decode() == floatToGoString(number)  # type: ignore[no-untyped-call]


@settings(max_examples=1000, deadline=None)
@given(st.floats(allow_nan=False))
def test_float_text_reads_back_as_the_same_float(number: float) -> None:
    assert float(float_text(number)) == number


@pytest.mark.parametrize(
    ("number", "text"), [(math.nan, b"NaN"), (math.inf, b"+Inf"), (-math.inf, b"-Inf"), (0.1, b"0.1"), (1e16, b"1e+16")]
)
def test_float_text_spells_what_is_not_finite_as_go_does(number: float, text: bytes) -> None:
    assert float_text(number) == text
