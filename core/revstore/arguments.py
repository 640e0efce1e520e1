"""What every backend checks before it touches its store; pure functions.

Each takes the arguments of the method it is named after, and raises ``InvalidKey`` or
``InvalidArgument``, which names the argument, what was given and what would do.
"""

from __future__ import annotations

from revstore.errors import InvalidArgument, InvalidKey

__all__ = [
    "check_compact",
    "check_delete",
    "check_get",
    "check_key",
    "check_list",
    "check_put",
    "check_watch",
]


def check_key(key: str) -> str:
    """Return ``key`` if a backend may store it, else raise ``InvalidKey``."""
    if not isinstance(key, str) or not key:
        raise InvalidKey(str(key), "a non-empty str")
    if "\0" in key:
        raise InvalidKey(key, "a key without NUL characters")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidKey(
                key.encode("utf-8", "backslashreplace").decode(), "a key that is valid UTF-8"
            ) from None
    return key


def check_get(key: str, revision: int) -> None:
    """Check the arguments of ``get``."""
    check_key(key)
    if revision < 0:
        raise InvalidArgument("revision", revision, "0 or more", key=key)


def check_list(prefix: str, revision: int, *, start: str = "", limit: int = 0) -> None:
    """Check the arguments of ``list`` or ``count``; ``start`` may have one NUL, at its end."""
    if prefix:
        check_key(prefix)
    if start:
        check_key(start.removesuffix("\0"))
    if revision < 0:
        raise InvalidArgument("revision", revision, "0 or more")
    if limit < 0:
        raise InvalidArgument("limit", limit, "0 or more")


def check_put(key: str, value: bytes, expected_revision: int, ttl: int | None) -> None:
    """Check the arguments of ``put``."""
    check_key(key)
    if not isinstance(value, bytes):
        raise InvalidArgument("value", value, "bytes", key=key)
    if expected_revision < 0:
        raise InvalidArgument("expected_revision", expected_revision, "0 or more", key=key)
    if ttl is not None and ttl < 0:
        raise InvalidArgument("ttl", ttl, "seconds, 0 or more, or None", key=key)


def check_delete(key: str, expected_revision: int) -> None:
    """Check the arguments of ``delete``."""
    check_key(key)
    if expected_revision <= 0:
        raise InvalidArgument("expected_revision", expected_revision, "above 0", key=key)


def check_compact(revision: int) -> None:
    """Check the arguments of ``compact``."""
    if revision <= 0:
        raise InvalidArgument("revision", revision, "above 0")


def check_watch(key: str, *, recursive: bool, after_revision: int) -> None:
    """Check the arguments of ``watch``."""
    if key or not recursive:
        check_key(key)
    if after_revision < 0:
        raise InvalidArgument("after_revision", after_revision, "0 or more", key=key)
