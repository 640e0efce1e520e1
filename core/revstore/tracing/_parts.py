"""The parts of a storage that add their time to the call that they serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from revstore.backend import Backend
from revstore.backend_tools import ObservedBackend
from revstore.call_times import CURRENT, CallTimes
from revstore.onlookers import shown_to
from revstore.tracing._call import LoneRequest, Spans, Trace
from revstore.transform import Transformer

__all__ = ["TracedBackend", "TracedCodec", "TracedTransformer"]


class _Request:
    """A context manager around a request that is part of a call."""

    __slots__ = ("_operation", "_span", "_spans", "_start", "_times")

    _span: Any
    _start: float

    def __init__(self, spans: Spans | None, times: CallTimes, operation: str) -> None:
        self._spans = spans
        self._times = times
        self._operation = operation

    def __enter__(self) -> None:
        if self._spans is not None:
            self._span = shown_to("a span", self._spans.begin, self._operation, request=True)
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._times.backend += time.perf_counter() - self._start
        self._times.requests += 1
        if self._spans is not None and self._span is not None:
            error = "" if kind is None else kind.__name__
            shown_to("a span", self._spans.end, self._span, error, None)


class TracedBackend(ObservedBackend):
    """A backend whose requests are part of the call that sends them. A request outside of any call,
    such as one of a cache's feed, counts as a call."""

    def __init__(self, backend: Backend, trace: Trace) -> None:
        super().__init__(backend)
        self._trace = trace

    def observed(self, operation: str, key: str) -> AbstractContextManager[object]:
        times = CURRENT.get()
        if times is None:
            return LoneRequest(self._trace, operation, key, {})
        return _Request(self._trace.spans, times, operation)


class TracedCodec:
    """A codec whose time counts in the call that it serves. It has the same methods as
    ``codec``."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.encode = _noting(codec.encode, "encode")
        self.decode = _noting(codec.decode, "decode")
        if hasattr(codec, "decode_noting"):
            self.decode_noting = _noting(codec.decode_noting, "decode")
        if hasattr(codec, "merge"):
            self.merge = _noting(codec.merge, "encode")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)


class TracedTransformer:
    """A transformer whose time counts in the call that it serves."""

    def __init__(self, transformer: Transformer) -> None:
        self.traced = transformer
        self.transform_from_storage = _noting(transformer.transform_from_storage, "transform")
        self.transform_to_storage = _noting(transformer.transform_to_storage, "transform")


def _noting(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return ``function`` with its time added to ``CallTimes.name``."""
    now = time.perf_counter

    def noting(*args: Any) -> Any:
        times = CURRENT.get()
        if times is None:
            return function(*args)
        start = now()
        try:
            return function(*args)
        finally:
            setattr(times, name, getattr(times, name) + now() - start)

    return noting
