"""Metrics for Prometheus, named after the original's; the extra ``metrics`` (prometheus-client).

::

    from prometheus_client import start_http_server
    from revstore import StorageFactory, metrics

    factory = StorageFactory("sqlite:///cluster.db")
    metrics.register(factory)
    start_http_server(9100)

Nothing is measured until somebody scrapes: then the counters that caches have anyway are read, and
objects are counted if it is time to. Requests to the backend are measured only if the configuration
says ``wrappers = ["metrics"]``.
"""

from __future__ import annotations

from revstore.metrics._collector import (
    Collector,
    MeasuredBackend,
    Request,
    RequestCounts,
    Source,
    register,
)

__all__ = [
    "Collector",
    "MeasuredBackend",
    "Request",
    "RequestCounts",
    "Source",
    "register",
]
