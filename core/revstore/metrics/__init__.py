"""Metrics for Prometheus, named after the original's; the extra ``metrics`` (prometheus-client).

::

    from prometheus_client import start_http_server
    from revstore import StorageFactory, metrics

    factory = StorageFactory("sqlite:///cluster.db")
    metrics.register(factory)
    start_http_server(9100)

Nothing is measured before a scrape: a scrape reads the counters that caches keep anyway, and counts
objects if the last count is old enough. Requests to the backend are measured only if the
configuration has ``wrappers = ["metrics"]``.
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
