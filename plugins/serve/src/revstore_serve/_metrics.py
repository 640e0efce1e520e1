"""Metrics in Prometheus' text format, by the names that etcd's dashboards use."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from revstore.backend import Backend
from revstore_serve._cluster import Cluster
from revstore_serve._errors import refusal
from revstore_serve._leases import LeaseCalls
from revstore_serve._proto import METHODS
from revstore_serve._transport import Stream, StreamHandler, UnaryHandler
from revstore_serve._watches import Watches

__all__ = ["Counts", "Metrics"]

# A store may have to look at each key to count them. After a count there is none for so many times
# as long as it took.
_REST = 100

_PREFIXES = {
    each.service if each.service.startswith("grpc.") else each.service.rpartition(".")[2]: (
        each.service
    )
    for each in METHODS
}


class Counts:
    """How many calls began and ended, of all methods that are served."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.handled: Counter[tuple[str, str]] = Counter()

    def unary(self, name: str, handler: UnaryHandler) -> UnaryHandler:
        """Return a handler that counts."""
        labels = _labels(name, "unary")

        async def counting(request: Any) -> Any:
            self.started[labels] += 1
            code = "OK"
            try:
                return await handler(request)
            except BaseException as error:
                code = _code(error)
                raise
            finally:
                self.handled[labels, code] += 1

        return counting

    def stream(self, name: str, handler: StreamHandler) -> StreamHandler:
        """Return a handler that counts."""
        labels = _labels(name, "bidi_stream" if name.startswith(_BOTH) else "server_stream")

        async def counting(request: Any, stream: Stream) -> None:
            self.started[labels] += 1
            code = "OK"
            try:
                await handler(request, stream)
            except BaseException as error:
                code = _code(error)
                raise
            finally:
                self.handled[labels, code] += 1

        return counting


_BOTH = ("Watch/", "Lease/", "grpc.reflection.")


def _labels(name: str, kind: str) -> str:
    service, _, method = name.rpartition("/")
    return f'grpc_method="{method}",grpc_service="{_PREFIXES[service]}",grpc_type="{kind}"'


def _code(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "Canceled"
    found = refusal(error) if isinstance(error, Exception) else None
    return "Internal" if found is None else found.code.name.title().replace("_", "")


class Metrics:
    """The page of metrics."""

    def __init__(
        self,
        backend: Backend,
        cluster: Cluster,
        counts: Counts,
        watches: Watches,
        leases: LeaseCalls,
    ) -> None:
        self._backend = backend
        self._cluster = cluster
        self._counts = counts
        self._watches = watches
        self._leases = leases
        self._keys = 0
        self._lease_count: int | None = None
        self._due = 0.0

    def of_store(self) -> list[tuple[str, float]]:
        """Return the gauges that are read from the store. Runs in a thread.

        Raises:
            BackendError: the store does not answer.
        """
        self._recount()
        status = self._backend.status()
        size = self._backend.size()
        found: list[tuple[str, float]] = [
            ("etcd_debugging_mvcc_current_revision", status.revision),
            ("etcd_debugging_mvcc_compact_revision", status.compacted_revision),
            ("etcd_debugging_mvcc_keys_total", self._keys),
        ]
        if size is not None:
            found += [
                ("etcd_mvcc_db_total_size_in_bytes", size),
                ("etcd_mvcc_db_total_size_in_use_in_bytes", size),
            ]
        if self._lease_count is not None:
            found.append(("revstore_serve_leases", self._lease_count))
        return found

    def _recount(self) -> None:
        """Count keys and leases, unless the time for that has not come."""
        start = time.monotonic()
        if start < self._due:
            return
        self._keys = self._backend.count("").count
        self._lease_count = self._leases.count()
        end = time.monotonic()
        self._due = end + _REST * (end - start)

    def text(self, of_store: list[tuple[str, float]] | None) -> str:
        """Return the page; without the gauges of the store, it says that there is no leader."""
        streams, watches, slow = self._watches.counts()
        gauges: list[tuple[str, float]] = [
            ("etcd_server_has_leader", int(of_store is not None)),
            ("etcd_server_is_leader", int(of_store is not None)),
            (f'etcd_server_version{{server_version="{self._cluster.version}"}}', 1),
            ("etcd_debugging_mvcc_watch_stream_total", streams),
            ("etcd_debugging_mvcc_watcher_total", watches),
            ("etcd_debugging_mvcc_slow_watcher_total", slow),
            *(of_store or []),
        ]
        return "".join(f"{line}\n" for line in [*_gauges(gauges), *self._calls()])

    def _calls(self) -> Iterator[str]:
        yield "# TYPE grpc_server_started_total counter"
        for labels, number in sorted(self._counts.started.items()):
            yield f"grpc_server_started_total{{{labels}}} {number}"
        yield "# TYPE grpc_server_handled_total counter"
        for (labels, code), number in sorted(self._counts.handled.items()):
            yield f'grpc_server_handled_total{{grpc_code="{code}",{labels}}} {number}'


def _gauges(gauges: list[tuple[str, float]]) -> Iterator[str]:
    for name, value in gauges:
        yield f"# TYPE {name.partition('{')[0]} gauge"
        yield f"{name} {value}"
