"""Continue tokens: where a paged list goes on, and at which revision.

The format is Kubernetes' own, so that each can read the other's tokens: unpadded base64url
of ``{"v":"meta.k8s.io/v1","rv":<revision>,"start":"<key relative to the prefix>"}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
import re

import attrs

from revstore.errors import InvalidContinueToken

__all__ = ["ContinueToken", "decode_continue", "encode_continue"]


_VERSION = "meta.k8s.io/v1"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_MAX_LENGTH = 64 * 1024


@attrs.frozen
class ContinueToken:
    """The position at which a list continues: ``start`` is the whole key; ``revision`` is that of
    the first page, or -1 for the current one."""

    start: str
    revision: int


def encode_continue(start: str, prefix: str, revision: int) -> str:
    """Return the token of a list that goes on at the key ``start``. (LIST-14)

    Raises:
        ValueError: ``start`` is not below ``prefix``.
    """
    if not start.startswith(prefix) or start == prefix:
        raise ValueError(f"{start!r} is not below {prefix!r}")
    token = {"v": _VERSION, "rv": revision, "start": start[len(prefix) :]}
    text = json.dumps(token, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_continue(token: str, prefix: str) -> ContinueToken:
    """Return where a list of ``prefix`` goes on, as ``token`` says. (LIST-15)

    Raises:
        InvalidContinueToken: ``encode_continue`` makes no such token, or its key is not below
            ``prefix``.
    """
    revision, start = _unpack(token)
    if not start:
        raise _invalid(token)
    # Cleaning the path must not change it: otherwise "../x" would leave the prefix. The NUL that
    # ends a start key, and one leading or trailing slash, are allowed.
    relative = start.removeprefix("/")
    cleaned = posixpath.normpath("/" + relative).replace("//", "/", 1)
    if cleaned != (
        "/" + relative if relative.strip("/") == relative else "/" + relative.rstrip("/")
    ):
        raise _invalid(token)
    return ContinueToken(prefix + relative, revision)


def _unpack(token: str) -> tuple[int, str]:
    if len(token) > _MAX_LENGTH or not _BASE64URL.fullmatch(token):
        raise _invalid(token)
    try:
        fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid(token) from None
    if not isinstance(fields, dict) or fields.get("v") != _VERSION:
        raise _invalid(token)
    revision, start = fields.get("rv"), fields.get("start")
    # bool is an int in Python, not in JSON. We write only -1, and read any negative number as it,
    # as others do.
    if type(revision) is not int or revision == 0 or not -(2**63) <= revision < 2**63:
        raise _invalid(token)
    if not isinstance(start, str) or any(0xD800 <= ord(char) <= 0xDFFF for char in start):
        raise _invalid(token)
    return revision, start


def _invalid(token: str) -> InvalidContinueToken:
    return InvalidContinueToken(
        "continue",
        token if len(token) <= 80 else token[:77] + "...",
        "a token from a previous page of the same list",
        message="invalid continue token: expected one from a previous page of the same list",
    )
