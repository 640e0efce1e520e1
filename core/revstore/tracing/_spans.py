"""Spans of OpenTelemetry; the extra ``tracing`` (opentelemetry-api)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, TypeAlias

from revstore.tracing._call import Call

try:
    from opentelemetry import context
    from opentelemetry import trace as otel
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tracing needs opentelemetry-api: run  pip install 'revstore[tracing]'", name=error.name
    ) from error

__all__ = ["OpenTelemetrySpans"]

#: A span, and what restores the span that was current before it.
_Span: TypeAlias = tuple[otel.Span, Any]


class OpenTelemetrySpans:
    """A span for each call, with those of its requests below. (``revstore.tracing.Spans``)

    Names and attributes are those of the semantic conventions for databases. Keys and selectors are
    not included, since they may reveal what is stored.
    """

    def __init__(self, system: str, resource: str) -> None:
        # From whichever provider the program sets, now or later.
        self._tracer = otel.get_tracer("revstore", version("revstore"))
        self._resource = resource
        self._attributes = {"db.system.name": system, "db.collection.name": resource}

    def begin(self, operation: str, *, request: bool) -> _Span:
        span = self._tracer.start_span(
            f"{'backend ' if request else ''}{operation} {self._resource}",
            kind=otel.SpanKind.CLIENT if request else otel.SpanKind.INTERNAL,
            attributes={**self._attributes, "db.operation.name": operation},
        )
        return span, context.attach(otel.set_span_in_context(span))

    def end(self, span: _Span, error: str, call: Call | None) -> None:
        ended, token = span
        context.detach(token)
        try:
            if ended.is_recording():
                if error:
                    ended.set_attribute("error.type", error)
                    ended.set_status(otel.StatusCode.ERROR)
                if call is not None:
                    _describe(ended, call)
        finally:
            ended.end()


def _describe(span: otel.Span, call: Call) -> None:
    """Add the outcome of a call, and how its time was spent outside the backend."""
    if call.count is not None:
        span.set_attribute("db.response.returned_rows", call.count)
    if call.attempts:
        span.set_attribute("revstore.attempts", call.attempts)
    for name in ("encode", "decode", "transform", "waiting", "functions"):
        seconds = getattr(call, name)
        if seconds:
            span.set_attribute(f"revstore.{name}_seconds", seconds)
