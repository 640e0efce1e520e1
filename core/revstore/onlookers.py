"""Code of others that only looks on: callbacks, spans, and the handlers of loggers.

What it raises goes no further. It must not end a thread of ours, nor have a write that landed
reported as failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from revstore.raising import let_out

__all__ = ["Log", "shown_to", "shown_to_all"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


def shown_to(
    what: str, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
) -> _R | None:
    """Call ``function``, and return its result; None if it raises, which is logged as a failure
    of ``what``.

    In the main thread, Ctrl-C and what a signal's handler raises go on, and all else that is no
    ``Exception``; in other threads no caller could receive it.
    """
    try:
        return function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - let out where it has somewhere to go
        _let_out(error)
        _log.exception("%s failed", what)
        return None


def shown_to_all(what: str, functions: Iterable[Callable[[], object]]) -> None:
    """Call each function as ``shown_to`` does, for half the cost: there may be many."""
    for function in functions:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - as above
            _let_out(error)
            _log.exception("%s failed", what)


class Log(_Adapter):
    """A logger whose handlers, filters and formatters may raise any exception."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, and go on."""
        try:
            super().log(level, msg, *args, **{**kwargs, "stacklevel": 2})
        except BaseException as error:  # noqa: BLE001 - let out where it has somewhere to go
            _let_out(error)


def _let_out(error: BaseException) -> None:
    let_out(error)
    if isinstance(error, Exception) or threading.current_thread() is not threading.main_thread():
        return
    raise error


_log = Log("revstore")
