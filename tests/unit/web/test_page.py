"""A page compressed piece by piece: what everybody's gzip makes of it, and what is not compressed again."""

from __future__ import annotations

import gzip
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.web.page import LARGE, Compressed, Page


def lines(start: int) -> memoryview:
    numbers = ((n, random.Random(n).getrandbits(30)) for n in range(start, start + 4000))
    return memoryview(b"".join(b'm{n="%d"} %d\n' % each for each in numbers))


LINES = [lines(start) for start in range(0, 40_000, 4000)]
LARGE_BYTES = [bytes([byte]) * LARGE for byte in range(3)]
PIECES = st.lists(st.one_of(st.binary(max_size=50), st.sampled_from(LARGE_BYTES), st.sampled_from(LINES)), max_size=8)


@settings(deadline=None, max_examples=50)
@given(st.lists(PIECES, max_size=4))
def test_any_page_after_any_other_is_itself_again(pages: list[list[bytes | memoryview]]) -> None:
    compressed = Compressed()
    for pieces in pages:
        text = b"".join(Page(pieces, compressed).gzipped())
        assert gzip.decompress(text) == b"".join(pieces)
        assert text == b"".join(Page(pieces).gzipped())  # whatever was remembered


def test_a_piece_that_comes_again_is_not_compressed_again() -> None:
    compressed = Compressed()
    first = compressed.page([b"head 1\n", *LINES[:3]])
    second = compressed.page([b"head 2\n", *LINES[:2], LINES[4]])
    assert [mine is before for mine, before in zip(second[2:5], first[2:5], strict=True)] == [True, True, False]


def test_a_piece_that_is_gone_is_not_taken_for_another_in_its_place() -> None:
    compressed = Compressed()
    for number in range(50):
        text = bytes([number]) * LARGE
        assert gzip.decompress(b"".join(compressed.page([memoryview(text)]))) == text


def test_a_page_is_as_small_as_in_one() -> None:
    assert len(b"".join(Compressed().page(LINES))) < 1.05 * len(gzip.compress(b"".join(LINES), 6))
