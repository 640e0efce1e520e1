"""Continue tokens."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.continue_token import ContinueToken, decode_continue, encode_continue
from revstore.errors import InvalidContinueToken


def raw(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(**fields: object) -> str:
    return raw({"v": "meta.k8s.io/v1", "rv": 5, "start": "a/x\0", **fields})


def test_the_format_is_kubernetes_own():
    """LIST-14: unpadded base64url of {v, rv, start}, the start relative to the prefix."""
    made = encode_continue("/registry/pods/a/x\0", "/registry/pods/", 7)
    assert "=" not in made
    assert json.loads(base64.urlsafe_b64decode(made + "=" * (-len(made) % 4))) == {
        "v": "meta.k8s.io/v1",
        "rv": 7,
        "start": "a/x\0",
    }


def test_keys_outside_the_prefix_have_no_token():
    """LIST-14: neither another prefix nor the prefix itself."""
    for start in ("/registry/nodes/x", "/registry/pods/", ""):
        with pytest.raises(ValueError, match="not below"):
            encode_continue(start, "/registry/pods/", 7)


def test_a_leading_slash_is_optional():
    """LIST-15, LIST-17: some caches write one."""
    assert decode_continue(token(start="/a/x\0"), "/pods/") == ContinueToken("/pods/a/x\0", 5)
    assert decode_continue(token(start="/"), "/pods/") == ContinueToken("/pods/", 5)


@pytest.mark.parametrize(
    "text",
    [
        "!", "a b", "ä", token() + "=", token() + "\n", "AAAA", raw([]), raw("x"), raw({}),
        token(v="v2"), token(v=None), token(rv=0), token(rv="5"), token(rv=True), token(rv=1.5),
        token(rv=2**63), token(start=""), token(start=5), token(start="../x"),
        token(start="a/../x"), token(start="a//x"), token(start="./a"), token(start="a/."),
        token(start=".."),
        raw({"v": "meta.k8s.io/v1", "rv": 5}), "x" * 70_000,
    ],
)  # fmt: skip
def test_bad_tokens(text):
    """LIST-15: not base64 or JSON, another version, rv 0, an empty start, or one that would leave
    the prefix."""
    with pytest.raises(InvalidContinueToken, match="invalid continue token"):
        decode_continue(text, "/pods/")


SEGMENTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda segment: segment not in (".", ".."))


@given(
    st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join),
    st.sampled_from(["", "\0"]),
    st.one_of(st.just(-1), st.integers(1, 2**63 - 1)),
)
def test_tokens_come_back(path, end, revision):
    """LIST-16: what was encoded for a prefix is decoded for it."""
    start = "/registry/pods/" + path + end
    made = encode_continue(start, "/registry/pods/", revision)
    assert decode_continue(made, "/registry/pods/") == ContinueToken(start, revision)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=40).map(lambda b: raw(b.hex()))))
def test_any_text_is_a_token_or_refused(text):
    """One typed error, and never a start outside the prefix."""
    try:
        found = decode_continue(text, "/pods/")
    except InvalidContinueToken:
        return
    assert found.start.startswith("/pods/")
