"""Metrics for Prometheus, named after the original's; the extra ``metrics`` (prometheus-client)."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeAlias, TypeVar

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherCounters
from revstore.deadlines import check_seconds
from revstore.errors import InvalidArgument
from revstore.factory import StorageFactory
from revstore.kinds import ResourceInfo
from revstore.metrics._requests import BUCKETS, MeasuredBackend, Request, RequestCounts, added
from revstore.metrics._scraped import Scraped, opened_by, resource_of
from revstore.metrics._sizes import Sizes, StoreSize
from revstore.metrics._table import (
    CACHE_METRICS,
    EVENTS,
    MARKS,
    METRICS,
    OBJECTS,
    OBJECTS_OLD,
    REQUEST_ERRORS,
    REQUEST_SECONDS,
    REQUESTS,
    SIZE,
    STORE_SIZE,
    Metric,
)
from revstore.storage import Storage

try:
    import prometheus_client
    from prometheus_client import metrics_core
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "revstore.metrics needs prometheus-client: run  pip install 'revstore[metrics]'",
        name=error.name,
    ) from error

__all__ = ["Collector", "MeasuredBackend", "Request", "RequestCounts", "Source", "register"]

T = TypeVar("T")

#: What a collector can read.
Source: TypeAlias = StorageFactory | Storage[Any] | MeasuredBackend

_BOUNDS = (*map(floatToGoString, BUCKETS), "+Inf")


class _Families:
    """The samples of one scrape, by metric."""

    def __init__(self) -> None:
        self._families: dict[Metric, metrics_core.Metric] = {}

    def of(self, metric: Metric) -> metrics_core.Metric:
        family = self._families.get(metric)
        if family is None:
            # The client adds the suffix of counters by itself.
            name = metric.name.removesuffix("_total")
            family = metrics_core.Metric(name, metric.meaning, metric.kind.value)
            self._families[metric] = family
        return family

    def add(
        self, metric: Metric, labels: Iterable[str], value: float, suffix: str = "", le: str = ""
    ) -> None:
        named = dict(zip(metric.labels, labels, strict=True))
        if le:
            named["le"] = le
        self.of(metric).add_sample(metric.name + suffix, named, value)

    def all(self) -> list[metrics_core.Metric]:
        return list(self._families.values())


class Collector:
    """The collector that a Prometheus registry reads at each scrape; ``registry.unregister`` ends
    it.

    A scrape reads all storages and caches that a factory has open at the time; those that are
    opened later are in the next scrape. Caches of one resource are reported as their sums, and one
    storage counts its objects. Closed ones are no longer reported.

    A scrape counts objects at most every ``count_metric_poll_period`` seconds of the factory's
    configuration, or ``count_period`` for storages added by themselves; 0: never. A scrape spends
    no more than about ``timeout`` seconds on this: what it does not reach keeps its last value.
    Every method may be called from many threads.
    """

    def __init__(
        self,
        *sources: StorageFactory | MeasuredBackend,
        timeout: float = 5.0,
        count_period: float = 60.0,
    ) -> None:
        check_seconds("timeout", timeout)
        check_seconds("count_period", count_period)
        self._timeout = timeout
        self._count_period = count_period
        self._lock = threading.Lock()  # guards _factories, _backends and _storages
        self._factories: list[StorageFactory] = []
        self._backends: list[MeasuredBackend] = []
        self._storages: dict[Storage[Any], Scraped] = {}
        # One scrape at a time, so that none counts what another is counting.
        self._scraping = threading.Lock()  # guards _scraped and _stores
        self._scraped: dict[Storage[Any], Scraped] = {}
        self._stores: dict[Backend, StoreSize] = {}
        for source in sources:
            self.add(source)

    def add(self, source: Source, *, resource: ResourceInfo | str = "") -> None:
        """Read ``source`` too, until ``remove``.

        A storage by itself, cached or not, needs the ``resource`` that it holds, such as "pods" or
        "deployments.apps"; once it is closed it is removed. A backend measures from the moment it
        is created.

        Raises:
            InvalidArgument: ``source`` is none of these, or is a storage without a resource.
        """
        with self._lock:
            if isinstance(source, StorageFactory):
                self._factories.append(source)
            elif isinstance(source, MeasuredBackend):
                self._backends.append(source)
            elif isinstance(source, Storage):
                sizes = Sizes(source, self._count_period)
                self._storages[source] = Scraped(resource_of(resource), source, sizes)
            else:
                raise InvalidArgument("source", source, "a factory, storage or measured backend")

    def remove(self, source: Source) -> None:
        """Undo ``add``; do nothing if ``source`` was not added."""
        with self._lock:
            self._factories = _without(source, self._factories)
            self._backends = _without(source, self._backends)
            if isinstance(source, Storage):
                self._storages.pop(source, None)

    def describe(self) -> list[metrics_core.Metric]:
        """Return every metric that may exist, without samples: registering asks for them."""
        families = _Families()
        return [families.of(metric) for metric in METRICS]

    def collect(self) -> list[metrics_core.Metric]:
        """Return the current metrics; leave out those without a value."""
        families = _Families()
        with self._scraping:
            scraped = self._refreshed()
            _tell_caches(families, scraped)
            deadline = time.monotonic() + self._timeout
            self._tell_sizes(families, scraped, deadline)
            self._tell_stores(families, deadline)
            backends = self._backends_of_scraped()
            self._remove_ended()
        with self._lock:
            backends += self._backends
        _tell_requests(families, list(dict.fromkeys(backends)))
        return families.all()

    def _backends_of_scraped(self) -> list[MeasuredBackend]:
        return [each.backend for each in self._scraped.values() if each.backend]

    def _remove_ended(self) -> None:
        for each in self._scraped.values():
            if each.sizes.ended:
                self.remove(each.storage)

    def _refreshed(self) -> list[Scraped]:
        """Return the storages that are open. Only one scrape runs at a time."""
        with self._lock:
            factories, found = list(self._factories), dict(self._storages)
        for factory in factories:
            for resource, storage in factory.open_storages():
                each = self._scraped.get(storage) or opened_by(factory, resource, storage)
                found.setdefault(storage, each)
        for each in found.values():
            each.notice_end()
        self._scraped = found
        return [each for each in found.values() if not each.sizes.ended]

    def _tell_stores(self, families: _Families, deadline: float) -> None:
        with self._lock:
            factories = list(self._factories)
        found: dict[Backend, StoreSize] = {}
        told: Counter[str] = Counter()
        for factory in factories:
            period = factory.config.db_metric_poll_interval
            for config, backend in factory.open_backends():
                size = found[backend] = self._stores.get(backend) or StoreSize(backend, period)
                size.ask(deadline)
                kind = config.resolved_type
                if size.bytes is not None:
                    families.add(STORE_SIZE, [f"{kind}-{told[kind]}"], size.bytes)
                told[kind] += 1
        self._stores = found

    def _tell_sizes(self, families: _Families, scraped: list[Scraped], deadline: float) -> None:
        told = set()
        for each in scraped:
            if each.labels in told:
                continue
            sizes = each.sizes
            sizes.recount(deadline)
            if sizes.objects is not None and sizes.size is not None:
                told.add(each.labels)
                families.add(OBJECTS, each.labels, sizes.objects)
                families.add(OBJECTS_OLD, [each.resource.qualified], sizes.objects)
                families.add(SIZE, each.labels, sizes.size)


def register(
    *sources: StorageFactory | MeasuredBackend,
    registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY,
) -> Collector:
    """Register a collector of ``sources`` with ``registry``, and return it.

    A registry can have only one: call ``add`` of the first one instead of registering a second.

    Raises:
        ValueError: the client refuses a second one.
    """
    collector = Collector(*sources)
    registry.register(collector)
    return collector


def _tell_caches(families: _Families, scraped: list[Scraped]) -> None:
    found: dict[tuple[str, str], CacherCounters] = {}
    for each in scraped:
        if isinstance(each.storage, Cacher):
            counters, other = each.storage.counters, found.get(each.labels)
            found[each.labels] = counters if other is None else counters.merged(other)
    for labels, counters in found.items():
        for cache_metric in CACHE_METRICS:
            metric = cache_metric.metric
            for more, value in cache_metric.samples(counters):
                if isinstance(value, tuple):
                    families.add(metric, (*labels, *more), value[0], "_count")
                    families.add(metric, (*labels, *more), value[1], "_sum")
                else:
                    families.add(metric, (*labels, *more), value)


def _tell_requests(families: _Families, backends: list[MeasuredBackend]) -> None:
    requests: dict[Request, RequestCounts] = {}
    events: Counter[tuple[str, str]] = Counter()
    marks: Counter[tuple[str, str]] = Counter()
    for backend in backends:
        for request, counts in backend.requests.items():
            other = requests.get(request)
            requests[request] = counts if other is None else added(counts, other)
        events.update(backend.events_received)
        marks.update(backend.progress_marks)
    for request, counts in requests.items():
        labels = request.operation, request.group, request.resource
        families.add(REQUESTS, labels, counts.count)
        families.add(REQUEST_ERRORS, labels, counts.errors)
        below = itertools.accumulate(counts.durations)
        for bound, number in zip(_BOUNDS, below, strict=True):
            families.add(REQUEST_SECONDS, labels, number, "_bucket", bound)
        families.add(REQUEST_SECONDS, labels, counts.count, "_count")
        families.add(REQUEST_SECONDS, labels, counts.seconds, "_sum")
    for metric, numbers in ((EVENTS, events), (MARKS, marks)):
        for resource, number in numbers.items():
            families.add(metric, resource, number)


def _without(source: Any, sources: list[T]) -> list[T]:
    return [each for each in sources if each is not source]
