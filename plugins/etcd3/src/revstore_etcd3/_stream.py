"""One watch stream over all keys, revision by revision."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from itertools import groupby
from typing import Any, TypeAlias

from revstore.errors import Compacted, IncompatibleStore, Unreachable
from revstore.values import WatchEvent
from revstore_etcd3._client import Client
from revstore_etcd3._requests import event_of, watch_request
from revstore_etcd3._wire import Server

__all__ = ["Batch", "Stream"]

#: A revision and its events in key order; none where all keys were foreign.
Batch: TypeAlias = tuple[int, tuple[WatchEvent, ...]]


class Stream:
    """Every revision after ``after``. ``close`` may come from any thread; iteration then ends by
    an error of grpc, as it does when the connection breaks."""

    def __init__(self, client: Client, after: int, cluster_id: int) -> None:
        self._cluster_id = cluster_id
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests.put(watch_request(after + 1))
        self._client = client
        self.server: Server
        self._call, self.server = client.stream(iter(self._requests.get, None))

    def batches(self) -> Iterator[list[Batch]]:
        """What came in one response each, empty at first, when the watch is there. ``Compacted``;
        ``IncompatibleStore`` if another cluster answers."""
        for response in self._call:
            if response.header.cluster_id != self._cluster_id:
                raise IncompatibleStore(
                    f"etcd at {self.server.address}: another cluster answers than the one that "
                    "was opened"
                )
            if response.canceled:
                if response.compact_revision:
                    raise Compacted(response.compact_revision, response.header.revision)
                raise Unreachable(f"etcd at {self.server.address}: {response.cancel_reason}")
            yield [
                (revision, _events(events))
                for revision, events in groupby(
                    response.events, key=lambda event: event.kv.mod_revision
                )
            ]

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()


def _events(events: Iterator[Any]) -> tuple[WatchEvent, ...]:
    try:
        found = [each for each in map(event_of, events) if each is not None]
    except LookupError as error:
        raise Compacted(0) from error
    return tuple(sorted(found, key=lambda each: each.kv.key))
