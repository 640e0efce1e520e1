"""Every metric: its name, labels and meaning, and where a cache's value comes from."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import attrs

from revstore.cacher import CacherCounters

__all__ = [
    "CACHE_METRICS",
    "EVENTS",
    "MARKS",
    "METRICS",
    "OBJECTS",
    "OBJECTS_OLD",
    "REQUESTS",
    "REQUEST_ERRORS",
    "REQUEST_SECONDS",
    "SIZE",
    "STORE_SIZE",
    "CacheMetric",
    "Metric",
    "MetricKind",
    "Sample",
]


class MetricKind(enum.StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


_RESOURCE = ("group", "resource")
_REQUEST = ("operation", *_RESOURCE)


@attrs.frozen
class Metric:
    """``name`` is that of the series, with "_total" if it is a counter."""

    name: str
    kind: MetricKind
    meaning: str
    labels: tuple[str, ...] = _RESOURCE


#: The labels after group and resource, and the value; for a summary count and sum.
Sample = tuple[tuple[str, ...], float | tuple[int, float]]


@attrs.frozen
class CacheMetric:
    """A metric whose value is one of a cache's counters."""

    metric: Metric
    samples: Callable[[CacherCounters], Iterable[Sample]]


OBJECTS = Metric(
    "apiserver_resource_objects",
    MetricKind.GAUGE,
    "Number of stored objects; -1 if counting failed.",
)
OBJECTS_OLD = Metric(
    "apiserver_storage_objects",
    MetricKind.GAUGE,
    "The same under the name that Kubernetes deprecates; resource is written as deployments.apps.",
    ("resource",),
)
SIZE = Metric(
    "apiserver_resource_size_estimate_bytes",
    MetricKind.GAUGE,
    "Estimated bytes of the stored objects, by the average of up to 500; -1 if counting failed.",
)
STORE_SIZE = Metric(
    "apiserver_storage_size_bytes",
    MetricKind.GAUGE,
    "Size of the store in bytes, for backends that report it; -1 if the request failed.",
    ("storage_cluster_id",),
)
REQUESTS = Metric("etcd_requests_total", MetricKind.COUNTER, "Requests to the backend.", _REQUEST)
REQUEST_ERRORS = Metric(
    "etcd_request_errors_total", MetricKind.COUNTER, "Requests that raised an error.", _REQUEST
)
REQUEST_SECONDS = Metric(
    "etcd_request_duration_seconds",
    MetricKind.HISTOGRAM,
    "Duration of requests in seconds.",
    _REQUEST,
)
EVENTS = Metric(
    "apiserver_storage_events_received_total",
    MetricKind.COUNTER,
    "Events that watches of the backend delivered.",
)
MARKS = Metric(
    "etcd_bookmark_total",
    MetricKind.COUNTER,
    "Progress marks that watches of the backend delivered.",
)

# The original truncates it too, so that a float has all its digits.
_VERSION_LIMIT = 10**15


def _plain(
    name: str, kind: MetricKind, meaning: str, value: Callable[[CacherCounters], float]
) -> CacheMetric:
    return CacheMetric(Metric(name, kind, meaning), lambda counters: [((), value(counters))])


def _split(
    name: str,
    meaning: str,
    label: str,
    values: dict[str, Callable[[CacherCounters], float]],
) -> CacheMetric:
    """Return a counter with one more label."""
    return CacheMetric(
        Metric(name, MetricKind.COUNTER, meaning, (*_RESOURCE, label)),
        lambda counters: [((each,), value(counters)) for each, value in values.items()],
    )


#: The metrics of each resource that has a cache. (STAT-6, STAT-7)
CACHE_METRICS = (
    _plain(
        "apiserver_watch_cache_events_received_total",
        MetricKind.COUNTER,
        "Events that the cache received.",
        lambda c: c.events_received,
    ),
    _plain(
        "apiserver_watch_cache_initializations_total",
        MetricKind.COUNTER,
        "Number of times the cache was filled.",
        lambda c: c.initializations,
    ),
    _plain(
        "apiserver_watch_cache_initialization_errors_total",
        MetricKind.COUNTER,
        "Number of times the cache's feed failed.",
        lambda c: c.initialization_errors,
    ),
    _plain(
        "apiserver_watch_cache_initialization_duration_seconds",
        MetricKind.GAUGE,
        "Seconds that the last initialization took.",
        lambda c: c.initialization_seconds,
    ),
    _plain(
        "apiserver_watch_cache_resource_version",
        MetricKind.GAUGE,
        "Resource version of the cache, its last 15 digits; 0 until it is filled.",
        lambda c: c.resource_version % _VERSION_LIMIT,
    ),
    CacheMetric(
        Metric(
            "apiserver_watch_cache_read_wait_seconds",
            MetricKind.SUMMARY,
            "Seconds that reads waited for the cache to be fresh, of those that had to.",
        ),
        lambda c: [((), (c.read_waits, c.read_wait_seconds))],
    ),
    _split(
        "apiserver_watch_cache_consistent_read_total",
        "Reads that waited for the cache to be fresh; fallback is true for timeouts.",
        "fallback",
        {
            "false": lambda c: c.read_waits - c.read_waits_failed,
            "true": lambda c: c.read_waits_failed,
        },
    ),
    _plain(
        "watch_cache_capacity",
        MetricKind.GAUGE,
        "Capacity of the cache's event log.",
        lambda c: c.log_capacity,
    ),
    _split(
        "apiserver_storage_list_total",
        "Lists of the cache; storage is watchcache for those answered from memory, etcd for "
        "those passed on to the store, whichever it is.",
        "storage",
        {"watchcache": lambda c: c.served_by_cache, "etcd": lambda c: c.served_by_store},
    ),
    _plain(
        "apiserver_init_events_total",
        MetricKind.COUNTER,
        "Initial events sent to watches.",
        lambda c: c.init_events,
    ),
    _plain(
        "apiserver_terminated_watchers_total",
        MetricKind.COUNTER,
        "Watches terminated because they fell behind.",
        lambda c: c.terminated_watches,
    ),
    _split(
        "apiserver_storage_consistency_checks_total",
        "Comparisons of the cache with the store; status is success or failure.",
        "status",
        {
            "success": lambda c: c.consistency_checks - c.inconsistencies,
            "failure": lambda c: c.inconsistencies,
        },
    ),
    _plain(
        "revstore_watch_cache_objects",
        MetricKind.GAUGE,
        "Objects in the cache.",
        lambda c: c.objects,
    ),
    _plain(
        "revstore_watch_cache_unreadable_objects",
        MetricKind.GAUGE,
        "Stored objects that the cache cannot read.",
        lambda c: c.unreadable,
    ),
    _plain(
        "revstore_watch_cache_watches",
        MetricKind.GAUGE,
        "Open watches.",
        lambda c: c.watches,
    ),
    _plain(
        "revstore_watch_cache_watches_max",
        MetricKind.GAUGE,
        "Largest number of open watches so far.",
        lambda c: c.watches_max,
    ),
    _plain(
        "revstore_watch_cache_log_events",
        MetricKind.GAUGE,
        "Events in the cache's log.",
        lambda c: c.log_length,
    ),
    _plain(
        "revstore_watch_cache_log_events_max",
        MetricKind.GAUGE,
        "Largest number of events in the log so far.",
        lambda c: c.log_length_max,
    ),
)

#: All metrics.
METRICS = (
    OBJECTS,
    OBJECTS_OLD,
    SIZE,
    STORE_SIZE,
    *(each.metric for each in CACHE_METRICS),
    REQUESTS,
    REQUEST_ERRORS,
    REQUEST_SECONDS,
    EVENTS,
    MARKS,
)
