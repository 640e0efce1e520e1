"""One state of a store, from which ranges are read: at a revision, or in a transaction."""

from __future__ import annotations

from typing import Protocol

import attrs
import msgspec

from revstore.backend import Backend, Transaction
from revstore.values import KeyValue
from revstore_serve._keys import Span

__all__ = ["AtRevision", "InTransaction", "View"]

# How many keys are read at once where a range ends before its prefix does.
_PAGE = 1000


class View(Protocol):
    """Reads of one state."""

    def get(self, key: str) -> KeyValue | None:
        """Read one key."""

    def page(self, span: Span, limit: int, *, keys_only: bool) -> tuple[list[KeyValue], int]:
        """Return the first keys of a span and how many there are. It returns ``limit`` keys or
        more, if there are so many; 0 means all."""

    def count(self, span: Span) -> int:
        """Return how many keys a span has."""


@attrs.define
class AtRevision:
    """The state of a backend at ``revision``. 0 means its state at the first read, whose revision
    is kept."""

    backend: Backend
    revision: int
    linearizable: bool = True
    #: The store's revision when the view was read; 0 while it is unknown.
    current: int = 0
    #: Without it, a page's count says no more than whether there are keys beyond the page.
    counting: bool = True

    def get(self, key: str) -> KeyValue | None:
        result = self.backend.get(key, revision=self.revision, linearizable=self.linearizable)
        self.current = result.revision
        self.revision = self.revision or result.revision
        return result.kv

    def page(self, span: Span, limit: int, *, keys_only: bool) -> tuple[list[KeyValue], int]:
        if span.end is None:
            return self._list(span.prefix, span.start, limit, keys_only=keys_only)
        found: list[KeyValue] = []
        start, left = span.start, True
        while left and (not limit or len(found) < limit):
            wanted = limit - len(found) if limit else _PAGE
            part, total = self._list(span.prefix, start, wanted, keys_only=keys_only)
            inside = [kv for kv in part if kv.key < span.end]
            found += inside
            left = len(inside) == len(part) < total
            if left:
                start = part[-1].key + "\0"
        if not self.counting:
            return found, len(found) + left
        return found, self.count(span) if left else len(found)

    def count(self, span: Span) -> int:
        if span.start == span.prefix:
            result = self.backend.count(span.prefix, revision=self.revision)
            self._pin(result.revision)
            total = result.count
        else:
            _, total = self._list(span.prefix, span.start, 1, keys_only=True)
        if span.end is not None and total:
            _, beyond = self._list(span.prefix, span.end, 1, keys_only=True)
            total -= beyond
        return total

    def _list(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> tuple[list[KeyValue], int]:
        result = self.backend.list(
            prefix,
            start=start,
            limit=limit,
            revision=self.revision,
            keys_only=keys_only,
            remaining=limit > 0 and self.counting,
            linearizable=self.linearizable,
        )
        self._pin(result.revision)
        kvs = list(result.kvs)
        if not self.counting:
            return kvs, len(kvs) + (len(kvs) == limit)
        return kvs, len(kvs) + (result.remaining or 0)

    def _pin(self, revision: int) -> None:
        if not self.revision:
            self.revision = self.current = revision


@attrs.frozen
class InTransaction:
    """The state that a transaction's body sees. Its own writes have the revision ``own``, which is
    above all others."""

    body: Transaction
    own: int

    def get(self, key: str) -> KeyValue | None:
        kv = self.body.get(key)
        return None if kv is None else self._numbered(kv)

    def page(self, span: Span, limit: int, *, keys_only: bool) -> tuple[list[KeyValue], int]:
        found = self.body.list(span.prefix, start=span.start, keys_only=keys_only)
        inside = [self._numbered(kv) for kv in found if span.end is None or kv.key < span.end]
        return inside, len(inside)

    def count(self, span: Span) -> int:
        return self.page(span, 0, keys_only=True)[1]

    def _numbered(self, kv: KeyValue) -> KeyValue:
        if kv.revision:
            return kv
        return msgspec.structs.replace(
            kv, revision=self.own, create_revision=kv.create_revision or self.own
        )
