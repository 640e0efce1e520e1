"""The loop over the pages of a list."""

from __future__ import annotations

from typing import Generic, TypeVar

from revstore.backend import Backend
from revstore.continue_token import encode_continue
from revstore.deadlines import Deadline
from revstore.errors import (
    Compacted,
    CorruptObject,
    CorruptObjects,
    Expired,
    FutureRevision,
    InternalError,
    TooLargeResourceVersion,
    Unsupported,
)
from revstore.plans import ListPlan
from revstore.selectors import SelectionPredicate
from revstore.storage import ObjectList
from revstore.typed._objects import ObjectReader
from revstore.values import Capability, KeyValue, ListResult

__all__ = ["Lister"]

T = TypeVar("T")

# A page that is read to find matches doubles up to this size. (LIST-12)
_MAX_PAGE = 10_000
_MAX_CORRUPT = 100


class Lister(Generic[T]):
    """Reads one list from the backend."""

    def __init__(
        self,
        backend: Backend,
        objects: ObjectReader[T],
        plan: ListPlan,
        predicate: SelectionPredicate[T],
        deadline: Deadline,
        *,
        quorum: bool,
        even_if_corrupt: bool = False,
    ) -> None:
        self._backend = backend
        self._objects = objects
        self._plan = plan
        self._predicate = predicate
        self._deadline = deadline
        # A replica that lags could refuse a minimum that the store reached long ago.
        self._linearizable = not plan.any_state and (quorum or plan.minimum > 0)
        self._even_if_corrupt = even_if_corrupt
        self._items: list[T] = []
        self._corrupt: list[CorruptObject] = []

    def one(self, physical: str) -> ObjectList[T]:
        """Read the list that is not recursive. (LIST-1 to LIST-3)"""
        plan = self._plan
        try:
            found = self._backend.get(
                physical,
                revision=plan.revision,
                linearizable=self._linearizable,
                timeout=self._deadline.left(),
            )
        except (Compacted, Unsupported, FutureRevision) as error:
            raise self._read_error(error) from error
        self._check_minimum(found.revision)
        if found.kv is not None:
            self._take((found.kv,), 0)
        return self._answer(plan.revision or found.revision)

    def below(self, prefix: str, limit: int) -> ObjectList[T]:
        """Read the recursive list."""
        if Capability.HISTORICAL_READS not in self._backend.capabilities:
            limit = 0  # a second page could not show the same state: read all at once
        plan = self._plan
        filtered = not self._predicate.empty
        start, revision, size = plan.start, plan.revision, limit
        while True:
            page = self._page(prefix, start, size, revision, remaining=bool(limit) and not filtered)
            self._check_minimum(page.revision)
            revision = page.revision
            read = self._take(page.kvs, limit)
            unread = page.more or read < len(page.kvs)
            if not unread or (limit and len(self._items) >= limit):
                break
            if self._hopeless:
                break
            start = page.kvs[-1].key + "\0"
            size = max(limit, min(size * 2, _MAX_PAGE))
        token = ""
        remaining = None
        if unread and (self._even_if_corrupt or not self._corrupt):
            token = encode_continue(page.kvs[read - 1].key + "\0", prefix, revision)
            if page.remaining is not None:  # unreadable objects may have left no room for the rest
                remaining = page.remaining + len(page.kvs) - read
        return self._answer(revision, token, remaining)

    def _page(
        self, prefix: str, start: str, size: int, revision: int, *, remaining: bool
    ) -> ListResult:
        try:
            page = self._backend.list(
                prefix,
                start=start,
                limit=size,
                revision=revision,
                remaining=remaining,
                linearizable=self._linearizable,
                timeout=self._deadline.left(),
            )
        except (Compacted, Unsupported, FutureRevision) as error:
            raise self._read_error(error, prefix) from error
        if (page.more and not page.kvs) or page.revision != (revision or page.revision):
            raise InternalError(
                f"the backend violated its contract: {'a' if page.kvs else 'an empty'} page "
                f"at {page.revision}, asked for {revision or 'the latest'}"  # LIST-7
            )
        return page

    def _take(self, kvs: tuple[KeyValue, ...], limit: int) -> int:
        """Decode and filter until there are ``limit`` items; return how many were looked at.
        (LIST-13)"""
        decode, items = self._objects.decode, self._items
        predicate = None if self._predicate.empty else self._predicate
        for count, kv in enumerate(kvs, 1):
            try:
                obj = decode(kv, evict=False)
            except CorruptObject as error:
                self._corrupt.append(error)
                if self._hopeless:
                    return count
                continue
            if predicate is None or predicate.selects(obj):
                items.append(obj)
                if len(items) == limit:
                    return count
        return len(kvs)

    @property
    def _hopeless(self) -> bool:
        """True if the list will raise an error that names no further objects. (LIST-24)"""
        return not self._even_if_corrupt and len(self._corrupt) >= _MAX_CORRUPT

    def _check_minimum(self, revision: int) -> None:
        if self._plan.minimum > revision:
            raise TooLargeResourceVersion(self._plan.minimum, revision)

    def _answer(
        self, revision: int, token: str = "", remaining: int | None = None
    ) -> ObjectList[T]:
        if self._corrupt and not self._even_if_corrupt:
            raise CorruptObjects(self._corrupt, truncated=self._hopeless)
        return ObjectList(tuple(self._items), str(revision), token, remaining, tuple(self._corrupt))

    def _read_error(
        self, error: Compacted | Unsupported | FutureRevision, prefix: str = ""
    ) -> Expired | TooLargeResourceVersion:
        if isinstance(error, FutureRevision):
            return TooLargeResourceVersion(error.wanted, error.current)
        current = error.resource_version
        if not self._plan.start:
            return Expired(
                "the provided resource version is too old to list: its state was compacted; "
                "list again without one",
                resource_version=current,
            )
        # From where the client's page began: matches found so far are not returned. (LIST-19)
        token = encode_continue(self._plan.start, prefix, -1) if self._plan.start > prefix else ""
        return Expired(
            "the provided continue parameter is too old: its revision was compacted; start a new "
            "list, or continue with the current state of the rest by continue_token",
            resource_version=current,
            continue_token=token,
        )
