"""One call of a storage, or one request of a backend outside of any call, from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, Protocol

import attrs

from revstore.call_times import CURRENT, CallTimes
from revstore.onlookers import shown_to
from revstore.raising import let_out
from revstore.storage import ObjectList

__all__ = ["Call", "LoneRequest", "Spans", "Trace"]


class Spans(Protocol):
    """Creates a span for each call and each request. What it raises is logged.

    It gets only the class of an error, "" if there was none: the text may quote a value.
    """

    def begin(self, operation: str, *, request: bool) -> Any:
        """Begin the span of a call, or of a request to the backend, and return it."""

    def end(self, span: Any, error: str, call: Call | None) -> None:
        """End a span, that of ``call`` or, with None, of a request."""


@attrs.frozen(eq=False)
class Trace:
    """The observer of the calls of one storage.

    ``log_slow`` gets those that took ``threshold`` seconds or more, with their seconds and the
    class of their error. ``version_of`` reads the resource version of an object.
    """

    resource: str
    version_of: Callable[[Any], int] = attrs.field(kw_only=True)
    threshold: float = attrs.field(kw_only=True)
    log_slow: Callable[[Call, float, str], None] = attrs.field(kw_only=True)
    spans: Spans | None = attrs.field(kw_only=True, default=None)


class Call(CallTimes):
    """A context manager around one call.

    ``key``, or the prefix, is as the caller gave it, so it may not be a string; "" if there is
    none. ``asked`` are the call's other arguments. ``result`` is what it is about to return.
    """

    result: Any = None
    #: It is a request of the backend that belongs to no call.
    is_request = False
    _start: float
    _token: Token[CallTimes | None]
    _span: Any

    def __init__(self, trace: Trace, operation: str, key: Any, asked: Mapping[str, Any]) -> None:
        self.trace = trace
        self.operation = operation
        self.key = key
        self.asked = asked

    def __enter__(self) -> None:
        spans = self.trace.spans
        if spans is not None:
            self._span = shown_to("a span", spans.begin, self.operation, request=self.is_request)
        self._token = CURRENT.set(self)
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.perf_counter() - self._start
        CURRENT.reset(self._token)
        trace = self.trace
        error = "" if kind is None else kind.__name__
        if trace.spans is not None and self._span is not None:
            shown_to("a span", trace.spans.end, self._span, error, self)
        if seconds >= trace.threshold:
            shown_to("the log of slow calls", trace.log_slow, self, seconds, error)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the caller's ``function`` with its calls counted and timed."""

        def called(*args: Any) -> Any:
            self.attempts += 1
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.functions += time.perf_counter() - start

        return called

    @property
    def count(self) -> int | None:
        """The number of objects that a list returned or a count counted; else None."""
        result = self.result
        if isinstance(result, ObjectList):
            return len(result.items)
        return result if self.operation == "count" else None

    @property
    def resource_version(self) -> str:
        """The resource version of the returned list or object, "" if there is none."""
        result = self.result
        if isinstance(result, ObjectList):
            return result.resource_version
        if self.operation not in _RETURN_AN_OBJECT or result is None:
            return ""
        try:
            return str(self.trace.version_of(result) or "")
        except Exception as error:  # noqa: BLE001 - the type's own code
            let_out(error)
            return ""


class LoneRequest(Call):
    """A context manager around a request of the backend outside of any call."""

    is_request = True


_RETURN_AN_OBJECT = frozenset({"create", "delete", "get", "guaranteed_update"})
