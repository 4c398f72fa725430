"""A compressed page: what everybody's gzip makes of it, and how small it is."""

from __future__ import annotations

import gzip
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.web.page import Page


def lines(start: int) -> memoryview:
    numbers = ((n, random.Random(n).getrandbits(30)) for n in range(start, start + 4000))
    return memoryview(b"".join(b'm{n="%d"} %d\n' % each for each in numbers))


LINES = [lines(start) for start in range(0, 40_000, 4000)]
PIECES = st.lists(st.one_of(st.binary(max_size=50), st.sampled_from(LINES)), max_size=8)


@settings(deadline=None, max_examples=50)
@given(PIECES)
def test_any_page_is_itself_again(pieces: list[bytes | memoryview]) -> None:
    assert gzip.decompress(b"".join(Page(pieces).gzipped())) == b"".join(pieces)


def test_a_page_is_compressed_once() -> None:
    page = Page(LINES)
    assert page.gzipped() is page.gzipped()


def test_a_page_is_as_small_as_zlib_makes_it() -> None:
    assert len(b"".join(Page(LINES).gzipped())) < 1.05 * len(gzip.compress(b"".join(LINES), 6))
