"""Where the time of calls goes: a log of slow calls, if the configuration asks for it.

``slow_operation_threshold`` is a number of seconds. A call of a storage, cached or not, that takes
as long is a warning on the logger ``revstore.slow``: the call and its key, what came of it, and its
time in the backend, the codec, the transformer, waiting for the cache, and in the caller's own
functions. So is a request that a cache's feed makes. It shows keys and selectors, never the
contents of an object, nor the text of an error, which may quote them.

Storages that are opened without it are of other classes, and pay nothing.
"""

from __future__ import annotations

from typing import Any

from revstore.config import StorageConfig
from revstore.tracing._call import Call, Spans, Trace
from revstore.tracing._slow import log_slow
from revstore.tracing._storages import TracedCacher, traced_storage
from revstore.versioner import Versioner

__all__ = ["Call", "Spans", "Trace", "TracedCacher", "trace_of", "traced_storage"]


def trace_of(config: StorageConfig, resource: str, versioner: Versioner[Any]) -> Trace | None:
    """Return what observes the calls for ``resource`` by ``config``, None if nothing does."""
    threshold = config.slow_operation_threshold
    if not threshold:
        return None
    return Trace(
        resource,
        version_of=versioner.object_resource_version,
        threshold=threshold,
        log_slow=log_slow,
    )
