"""Keys of etcd as keys of a backend: nothing is lost, and the order stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.keys import check_key
from revstore_serve._keys import KeyRange, Span, least_text, spans, to_bytes, to_text

PIECES = st.sampled_from(
    [b"a", b"b", b"/", b"\0", b"\1", b"\xff", b"\xfe", b"\x7f", b"\x80", b"\xc3", b"\xbf"]
) | st.sampled_from("ÿ\U0010ffff\U0010fffd\ud7ff").map(str.encode)
KEYS = st.lists(PIECES, min_size=1, max_size=5).map(b"".join) | st.binary(min_size=1, max_size=6)


def held(span: Span, key: str) -> bool:
    return (
        key.startswith(span.prefix) and key >= span.start and (span.end is None or key < span.end)
    )


@given(KEYS)
def test_each_key_comes_back(key):
    text = to_text(key)
    check_key(text)

    assert to_bytes(text) == key


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and text[0] != "\U0010fffd"))
def test_text_is_stored_as_it_is(text):
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return

    assert to_text(encoded) == text


@given(KEYS, KEYS, KEYS)
def test_a_range_finds_exactly_its_keys(key, first, end):
    """For any bounds, a key of the range is in exactly one span, and another in none."""
    for keys in (KeyRange.of(first, end), KeyRange.of(first, b"\0"), KeyRange.of(first, b"")):
        plain, escaped = spans(keys)
        found = sum(held(span, to_text(key)) for span in [*plain, escaped])
        assert found == (key in keys), (keys, plain, escaped)


@given(KEYS, st.lists(KEYS, max_size=3).map(b"".join))
def test_a_range_of_a_prefix_is_known(prefix, more):
    """The end that clients compute for a prefix names that prefix again."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return
    end = stem[:-1] + bytes([stem[-1] + 1])

    assert KeyRange.of(prefix, end).prefix == prefix
    assert (prefix + more in KeyRange.of(prefix, end)) is True


@given(KEYS, KEYS)
def test_bounds_keep_the_order(bound, key):
    """A valid key is below the text of a bound exactly if it is below the bound."""
    text = to_text(key)
    if to_text(key).encode() != key:
        return
    least = least_text(bound)

    assert (least is None or text < least) == (key < bound)


@pytest.mark.parametrize(
    ("key", "end", "plain"),
    [
        (b"/a/", b"/a0", [Span("/a/", "/a/")]),
        ("ÿ".encode(), b"\xc3\xc0", [Span("ÿ", "ÿ")]),
        (b"a", b"c", [Span("", "a", "c")]),
        (b"/a/x", b"/a/z", [Span("/a/", "/a/x", "/a/z")]),
        (b"b", b"a", []),
    ],
)
def test_spans(key, end, plain):
    assert spans(KeyRange.of(key, end))[0] == plain
