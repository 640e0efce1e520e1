"""Tools to raise errors: with the key of the call, more than once, and out of blocks that catch
errors on behalf of a caller."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

from revstore.errors import (
    Expired,
    InternalError,
    InvalidArgument,
    NotReady,
    StorageError,
    TooLargeResourceVersion,
)

__all__ = ["ErrorsAbout", "described", "fresh_copy", "guarded", "ignoring", "let_out", "text_of"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
E = TypeVar("E", bound=StorageError)


class ErrorsAbout:
    """A ``with`` block that adds the key of the call to errors that have none.

    Those are errors about an argument, about a version that is compacted or not reached yet, and of
    a cache that is not ready. Other errors of a backend stay unchanged: it may raise one instance
    in several threads.
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
    """Return a copy of ``error`` to raise, with ``key`` if it names no key.

    One instance that is raised many times, perhaps in many threads, collects all their tracebacks.
    """
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    fresh.key = fresh.key or key
    return fresh


def guarded(function: Callable[_P, _R], what: str) -> Callable[_P, _R]:
    """Wrap a user's ``function``, so that its own errors become ``InternalError``.

    The errors of ``revstore.errors``, ``MemoryError`` and what a signal's handler raises come out
    unchanged. ``what`` names the function in the message.
    """

    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except (StorageError, MemoryError):
            raise
        except Exception as error:
            let_out(error)
            raise InternalError(f"{what} failed: {described(error)}") from error

    return call


def text_of(error: BaseException) -> str:
    """Return the text of an error in one line, else its class: its text may be made by code of
    others, which may raise."""
    try:
        return " ".join(str(error).split()) or type(error).__name__
    except Exception as failure:  # noqa: BLE001 - whatever it is
        let_out(failure)
        return type(error).__name__


def described(error: BaseException) -> str:
    """Return the class and the text of an error in one line."""
    name, text = type(error).__name__, text_of(error)
    return name if text == name else f"{name}: {text}"


def let_out(error: BaseException) -> None:
    """Raise the exception of a signal's handler again, if it is ``error`` or its context.

    A handler may raise ``TimeoutError`` or another ``Exception``, in the main thread at any line.
    Where code catches errors to translate, retry or ignore them, call this first: it lets a
    handler's exception out unchanged. A handler is recognised by its argument, the frame that it
    interrupts.

    Raises:
        BaseException: the handler's own exception, if there is one.
    """
    below: set[FrameType] = set()  # the frames that the error passed before it was caught
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        # What the caller, or one above it, is handling was caught there.
        if trace is None or (cause is not error and trace.tb_frame not in below):
            return
        while trace is not None:
            if _is_handler(trace.tb_frame):
                raise cause
            trace = trace.tb_next
            if trace is not None:
                below.add(trace.tb_frame)
        cause = cause.__context__


def _is_handler(frame: FrameType) -> bool:
    caller, code = frame.f_back, frame.f_code
    if caller is None or not (code.co_argcount > 1 or code.co_flags & inspect.CO_VARARGS):
        return False
    variables = frame.f_locals
    values = list(variables.values())
    if sys.version_info < (3, 13):
        # A copy that the frame keeps: with the error in it, both would wait for a collection.
        variables.clear()
    for value in values:
        if type(value) is tuple:
            values.extend(value)
    return any(value is caller for value in values)


class ignoring(contextlib.AbstractContextManager[None]):  # noqa: N801 - as contextlib.suppress
    """A ``with`` block that suppresses errors of these kinds, except those of signal handlers."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, self._kinds):
            return False
        let_out(error)
        return True
