"""One watch stream over all keys, revision by revision."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeAlias

from revstore.errors import AccessDenied, Compacted, Unreachable
from revstore.values import WatchEvent
from revstore_etcd3._client import Client
from revstore_etcd3._requests import event_of, watch_request
from revstore_etcd3._wire import Server

__all__ = ["Batch", "Stream", "whole_store"]

#: A revision and its events in key order; none if all keys were foreign.
Batch: TypeAlias = tuple[int, tuple[WatchEvent, ...]]


def whole_store(user: str) -> str:
    """Return what a role that is limited to some keys lacks."""
    return (
        f"the roles of user {user!r} do not cover all keys, which a watch follows, as only then it "
        "knows that nothing is missing: `etcdctl role grant-permission ROLE --from-key read ''`"
    )


class Stream:
    """Every revision after ``after``. Any thread may call ``close``; iteration then ends with an
    error of grpc, as when the connection breaks.

    ``last`` are etcd's events at ``after``, from an earlier stream: then this one begins with them,
    and a difference means another store. Empty: they are unknown and to be read. None: do not ask
    for them, since they may have been compacted.
    """

    def __init__(self, client: Client, after: int, last: list[Any] | None) -> None:
        self._after = after
        #: The events of the last revision that came, or the given ones.
        self.last = last
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests.put(watch_request(after + (last is None)))
        self._client = client
        self.server: Server
        self._open, self.server = client.stream(iter(self._requests.get, None))

    @property
    def paused(self) -> bool:
        """True if the stream was ended for a fork, and for no other reason."""
        return self._open.paused

    def batches(self) -> Iterator[list[Batch]]:
        """Yield the batches of one response each; the first is empty, once the watch exists.

        Raises:
            Compacted: the revisions after ``after`` are compacted.
            IncompatibleStore: another store answers.
        """
        identity = self._client.identity
        for response in self._open.call:
            if response.header.cluster_id != identity.cluster_id:
                raise identity.replaced("a different cluster answered than the one that was opened")
            if response.canceled:
                if response.compact_revision:
                    raise Compacted(response.compact_revision, response.header.revision)
                if "permission denied" in response.cancel_reason.lower():
                    raise AccessDenied(
                        f"etcd at {self.server.title}: {whole_store(self._client.user)}"
                    )
                raise Unreachable(f"etcd at {self.server.title}: {response.cancel_reason}")
            yield list(self._split(response.events))

    def _split(self, events: Iterable[Any]) -> Iterator[Batch]:
        for revision, group in groupby(events, key=lambda event: event.kv.mod_revision):
            found = list(group)
            if revision == self._after:
                if self.last and _essence(self.last) != _essence(found):
                    raise self._client.identity.replaced(
                        f"revision {revision} has changed: the store was restored from an older "
                        "backup or replaced"
                    )
                self.last = found
            else:
                batch = revision, _events(found)
                self.last = found
                yield batch

    def close(self) -> None:
        """End the stream; do nothing in a child after a fork, where it belongs to the parent."""
        if not self._client.guard.inherited:
            self._requests.put(None)
            self._open.call.cancel()


def _essence(events: list[Any]) -> list[bytes]:
    """Return the part that is the same whenever it is read; the value before may be compacted."""
    return sorted(bytes([event.type]) + event.kv.SerializeToString() for event in events)


def _events(events: Iterable[Any]) -> tuple[WatchEvent, ...]:
    try:
        found = [each for event in events if (each := event_of(event)) is not None]
    except LookupError as error:
        raise Compacted(0) from error
    return tuple(sorted(found, key=lambda each: each.kv.key))
