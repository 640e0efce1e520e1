"""How errors are raised: about the key of the call, and more than once."""

from __future__ import annotations

import copy
from typing import TypeVar

from revstore.errors import (
    Expired,
    InvalidArgument,
    NotReady,
    StorageError,
    TooLargeResourceVersion,
)

__all__ = ["ErrorsAbout", "fresh_copy"]

E = TypeVar("E", bound=StorageError)


class ErrorsAbout:
    """Gives errors that are raised in its ``with`` block the key of the call, if they have none:
    those about an argument, a compacted version included, or as a cache is not filled.

    Not the errors of a backend: it may raise one instance in several threads.
    """

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        kinds = (Expired, InvalidArgument, NotReady, TooLargeResourceVersion)
        if isinstance(error, kinds) and not error.key:
            error.key = self._key


def fresh_copy(error: E, key: str = "") -> E:
    """Return a copy of ``error`` to raise, about ``key`` if it names none. One instance raised many
    times, in many threads maybe, would gather the tracebacks of all."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    fresh.key = fresh.key or key
    return fresh
