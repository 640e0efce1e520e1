"""A backend with something around each request to another, as metrics and traces need it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from revstore.backend import Backend, BackendWatch, Leases, Transaction
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    ListResult,
    PutResult,
    TransactionResult,
)

__all__ = ["ObservedBackend"]

T = TypeVar("T")


class ObservedBackend(Backend):
    """``backend`` itself, except that each request runs in the context that ``observed`` returns.

    Closing it closes ``backend``. The operations have the names of the methods, except that ``put``
    is "create" or "update", and ``list`` without values is "list_keys". ``size`` and leases are not
    observed.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @abc.abstractmethod
    def observed(self, operation: str, key: str) -> AbstractContextManager[object]:
        """Return the context in which one request runs; ``key`` may be a prefix, and is "" if the
        operation has none."""

    def observed_watch(self, watch: BackendWatch, key: str) -> BackendWatch:
        """Return the watch to give to the caller in place of ``watch``; by default ``watch``
        itself."""
        return watch

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._backend.capabilities

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        with self.observed("status", ""):
            return self._backend.status(timeout=timeout)

    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        with self.observed("get", key):
            return self._backend.get(
                key, revision=revision, linearizable=linearizable, timeout=timeout
            )

    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        with self.observed("list_keys" if keys_only else "list", prefix):
            return self._backend.list(
                prefix,
                start=start,
                limit=limit,
                revision=revision,
                keys_only=keys_only,
                remaining=remaining,
                linearizable=linearizable,
                timeout=timeout,
            )

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        with self.observed("count", prefix):
            return self._backend.count(prefix, revision=revision, timeout=timeout)

    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        with self.observed("update" if expected_revision else "create", key):
            return self._backend.put(
                key, value, expected_revision=expected_revision, ttl=ttl, timeout=timeout
            )

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        with self.observed("delete", key):
            return self._backend.delete(key, expected_revision=expected_revision, timeout=timeout)

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        watch = self._backend.watch(
            key, recursive=recursive, after_revision=after_revision, progress=progress
        )
        return self.observed_watch(watch, key)

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        with self.observed("compact", ""):
            self._backend.compact(revision, timeout=timeout)

    def size(self, *, timeout: float | None = None) -> int | None:
        return self._backend.size(timeout=timeout)

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        with self.observed("transactions", ""):
            return self._backend.transactions(bodies, timeout=timeout)

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        return self._backend.leases(grace=grace, timeout=timeout)

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        with self.observed("remaining_ttl", key):
            return self._backend.remaining_ttl(key, timeout=timeout)

    def raise_revision(self, revision: int, *, timeout: float | None = None) -> None:
        with self.observed("raise_revision", ""):
            self._backend.raise_revision(revision, timeout=timeout)

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        with self.observed("fence", ""):
            self._backend.fence(reason, timeout=timeout)

    def unfence(self, *, timeout: float | None = None) -> None:
        with self.observed("unfence", ""):
            self._backend.unfence(timeout=timeout)

    def close(self) -> None:
        self._backend.close()
