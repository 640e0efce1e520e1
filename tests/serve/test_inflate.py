"""Compressed messages take bounded steps, whatever they hold."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore_serve._errors import Code, Refused
from revstore_serve._inflate import LARGEST_MESSAGE, PIECE, Inflater

COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}
SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, LARGEST_MESSAGE]
texts = st.builds(
    lambda text, size, rest: (text * (size // len(text) + 1))[:size] + rest,
    st.binary(min_size=1, max_size=5000),
    st.sampled_from(SIZES[:-1]),
    st.binary(max_size=100),
)


def inflated(message: bytes, encoding: str) -> tuple[bytes, int]:
    """What a message holds, and how many steps it took."""
    inflater, steps = Inflater(message, encoding), 1
    while not inflater.step():
        steps += 1
    return inflater.result(), steps


@pytest.mark.parametrize("encoding", COMPRESS)
@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_messages_come_out_as_they_were(encoding, text):
    found, steps = inflated(COMPRESS[encoding](text), encoding)
    assert found == text
    assert steps <= 2 + len(text) // PIECE * 2


@pytest.mark.parametrize("encoding", COMPRESS)
def test_the_largest(encoding):
    message = COMPRESS[encoding](bytes(LARGEST_MESSAGE))
    assert inflated(message, encoding)[0] == bytes(LARGEST_MESSAGE)
    with pytest.raises(Refused) as caught:
        inflated(COMPRESS[encoding](bytes(LARGEST_MESSAGE + 1)), encoding)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_bomb_is_refused_before_all_of_it_is_there(encoding):
    inflater = Inflater(COMPRESS[encoding](bytes(64 << 20)), encoding)
    steps = iter(inflater.step, True)
    with pytest.raises(Refused) as caught:
        list(itertools.islice(steps, LARGEST_MESSAGE // PIECE + 1))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert len(inflater.result()) <= LARGEST_MESSAGE + PIECE


def test_much_that_holds_nothing():
    """Blocks of nothing take steps as well."""
    empty = b"\0\0\0\xff\xff" * (10 * PIECE // 5)
    message = zlib.compress(b"")[:2] + empty + b"\3\0" + zlib.adler32(b"").to_bytes(4)
    found, steps = inflated(message, "deflate")
    assert found == b""
    assert steps >= 10


@pytest.mark.parametrize("encoding", COMPRESS)
@settings(max_examples=40, deadline=None)
@given(text=texts, cut=st.integers(1, 20), more=st.booleans())
def test_what_is_cut_off_or_too_long_is_refused(encoding, text, cut, more):
    whole = COMPRESS[encoding](text)
    with pytest.raises(Refused) as caught:
        inflated(whole + bytes(cut) if more else whole[:-cut], encoding)
    assert caught.value.code is Code.INTERNAL
