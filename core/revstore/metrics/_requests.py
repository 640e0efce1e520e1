"""A backend that measures each request to another, as the original does with etcd. (STAT-4)"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Mapping

import attrs

from revstore import kinds
from revstore.backend import Backend, BackendWatch
from revstore.backend_tools import ObservedBackend
from revstore.kinds import Overrides
from revstore.values import WatchBatch

__all__ = ["BUCKETS", "MeasuredBackend", "Request", "RequestCounts", "added"]

#: Upper bounds in seconds, each inclusive, of the classes by which durations are counted; longer
#: ones are in one more class. They are the original's.
BUCKETS = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5),
    *(2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)

#: The original's names of operations that have other names in the contract.
_ORIGINAL_NAMES = {
    "status": "getCurrentResourceVersion",
    "list_keys": "listOnlyKeys",
    "count": "listWithCount",
}


@attrs.frozen(slots=True)
class Request:
    """The labels that distinguish requests. ``group`` and ``resource`` are "" if there is no key,
    or the key belongs to no resource."""

    operation: str
    group: str
    resource: str


@attrs.frozen(slots=True)
class RequestCounts:
    """``errors`` of the ``count`` requests raised; a write that lost to another is not an error.
    ``seconds`` is the time of all together. ``durations`` says how many took how long: one number
    for each of ``BUCKETS`` and one for what is above."""

    count: int
    errors: int
    seconds: float
    durations: tuple[int, ...]


@attrs.define(eq=False)
class _Series:
    durations: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1))
    errors: int = 0
    seconds: float = 0.0


class _Tally:
    """Counts that many threads raise and read.

    They are not prometheus_client's: a histogram and a counter of errors together take twice as
    long for each request, each has its own lock, and neither can be read to be summed over several
    backends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _requests, events and marks
        self._requests: dict[tuple[str, tuple[str, str]], _Series] = {}
        self.events: dict[tuple[str, str], int] = {}
        self.marks: dict[tuple[str, str], int] = {}

    def request(
        self, operation: str, resource: tuple[str, str], seconds: float, *, failed: bool
    ) -> None:
        bucket, request = bisect.bisect_left(BUCKETS, seconds), (operation, resource)
        with self._lock:
            series = self._requests.get(request)
            if series is None:
                series = self._requests[request] = _Series()
            series.durations[bucket] += 1
            series.seconds += seconds
            series.errors += failed

    def batch(self, resource: tuple[str, str], events: int) -> None:
        with self._lock:
            counts = self.events if events else self.marks
            counts[resource] = counts.get(resource, 0) + (events or 1)

    def requests(self) -> dict[Request, RequestCounts]:
        with self._lock:
            return {
                Request(operation, *resource): RequestCounts(
                    sum(each.durations), each.errors, each.seconds, tuple(each.durations)
                )
                for (operation, resource), each in self._requests.items()
            }

    def copy(self, counts: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(counts)


class _Resources:
    """To which resource a key belongs, by its first segments below the store's prefix."""

    def __init__(self, prefix: str, overrides: Overrides) -> None:
        self._root = prefix.rstrip("/") + "/"
        self._overrides = overrides
        # A race costs a second look-up, so no lock.
        self._known: dict[str, tuple[str, str]] = {}

    def of(self, key: object) -> tuple[str, str]:
        """Return group and resource, both "" for a key of no resource."""
        if not isinstance(key, str) or not key.startswith(self._root):
            return "", ""
        first, slash, rest = key[len(self._root) :].partition("/")
        if "." in first:  # a group has a dot, a resource has none
            second, slash, _ = rest.partition("/")
            first = f"{first}/{second}"
        if not slash:
            return "", ""
        found = self._known.get(first)
        if found is None:
            info = kinds.for_prefix(f"/{first}", self._overrides)
            found = self._known[first] = (info.group, info.resource)
        return found


@attrs.define(eq=False, slots=False)
class _MeasuredWatch(BackendWatch):
    """A watch that counts the events and bookmarks that its owner polls."""

    _watch: BackendWatch
    _tally: _Tally
    _resource: tuple[str, str]
    # What the watch returned, until it is counted and returned, and the position before it: a poll
    # that is interrupted in between loses nothing.
    _found: list[WatchBatch | None] = attrs.field(factory=list)
    _before: int = 0

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        if not self._found:
            self._before = self._watch.position
            self._found.append(self._watch.poll(timeout))
        batch = self._found[0]
        if batch is not None:
            self._tally.batch(self._resource, len(batch.events))
        return self._found.pop()

    @property
    def position(self) -> int:
        return self._before if self._found else self._watch.position

    def request_progress(self) -> None:
        self._watch.request_progress()

    def close(self) -> None:
        self._watch.close()


@attrs.define(eq=False)
class _Request:
    """Counts and times one request, as a context manager; faster than one that contextlib makes."""

    _tally: _Tally
    _operation: str
    _resource: tuple[str, str]
    _start: float = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.perf_counter() - self._start
        self._tally.request(self._operation, self._resource, seconds, failed=kind is not None)


class MeasuredBackend(ObservedBackend):
    """``backend`` itself, except that its requests are counted and timed, and the events of its
    watches counted. Closing it closes ``backend``.

    Numbers are kept by operation and resource. The key below ``prefix`` (``StorageConfig.prefix``)
    determines the resource; ``resources`` are those that the table of kinds lacks. Numbers only
    rise, and may be read at any time, even after ``close``.
    """

    def __init__(
        self, backend: Backend, *, prefix: str = "", resources: Overrides | None = None
    ) -> None:
        super().__init__(backend)
        self._tally = _Tally()
        self._resources = _Resources(prefix, resources or {})

    @property
    def requests(self) -> Mapping[Request, RequestCounts]:
        """The requests so far. The operations have the original's names: create, delete, get,
        getCurrentResourceVersion (``status``), list, listOnlyKeys, listWithCount (``count``),
        update; and compact."""
        return self._tally.requests()

    @property
    def events_received(self) -> Mapping[tuple[str, str], int]:
        """Events that watches have delivered, by group and resource of the key watched."""
        return self._tally.copy(self._tally.events)

    @property
    def progress_marks(self) -> Mapping[tuple[str, str], int]:
        """Progress marks that watches have delivered, by group and resource of the key watched."""
        return self._tally.copy(self._tally.marks)

    def observed(self, operation: str, key: str) -> _Request:
        named = _ORIGINAL_NAMES.get(operation, operation)
        return _Request(self._tally, named, self._resources.of(key))

    def observed_watch(self, watch: BackendWatch, key: str) -> BackendWatch:
        return _MeasuredWatch(watch, self._tally, self._resources.of(key))


def added(one: RequestCounts, other: RequestCounts) -> RequestCounts:
    """Return the sum of both."""
    return RequestCounts(
        one.count + other.count,
        one.errors + other.errors,
        one.seconds + other.seconds,
        tuple(map(sum, zip(one.durations, other.durations, strict=True))),
    )
