"""How calls spend their time: a log of slow calls, and OpenTelemetry spans, if the
configuration asks for them.

``slow_operation_threshold`` is a number of seconds. A call of a storage, cached or not, that takes
as long is a warning on the logger ``revstore.slow``: the call and its key, its outcome, and its
time in the backend, the codec, the transformer, waiting for the cache, and in the caller's own
functions. The same holds for a request of a cache's feed. The warning shows keys and selectors,
never the contents of an object, nor the text of an error, which may quote them.

``tracing = true`` creates a span for each call, and one below it for each request to the backend;
it needs the extra ``tracing`` (opentelemetry-api). Spans show neither keys nor selectors.

Storages that are opened without either have other classes, and cost nothing more.
"""

from __future__ import annotations

import math
from typing import Any

from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.tracing._call import Call, Spans, Trace
from revstore.tracing._slow import log_slow
from revstore.tracing._storages import TracedCacher, traced_storage
from revstore.versioner import Versioner

__all__ = ["Call", "Spans", "Trace", "TracedCacher", "trace_of", "traced_storage"]


def trace_of(config: StorageConfig, resource: str, versioner: Versioner[Any]) -> Trace | None:
    """Return the observer of the calls for ``resource`` by ``config``, None if there is none.

    Raises:
        ConfigError: ``tracing`` is set, and opentelemetry-api is not installed.
    """
    threshold = config.slow_operation_threshold
    if not threshold and not config.tracing:
        return None
    return Trace(
        resource,
        version_of=versioner.object_resource_version,
        threshold=threshold or math.inf,
        log_slow=log_slow,
        spans=_spans_of(config, resource) if config.tracing else None,
    )


def _spans_of(config: StorageConfig, resource: str) -> Spans:
    try:
        from revstore.tracing._spans import OpenTelemetrySpans
    except ModuleNotFoundError as error:
        expected = "false, or opentelemetry-api"
        raise ConfigError("tracing", True, expected, message=str(error)) from error
    return OpenTelemetrySpans(config.resolved_type, resource)
