"""The identity of the store, and its highest known revision, so that a replacement is noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from revstore.errors import IncompatibleStore
from revstore_etcd3._answers import check_header

__all__ = ["StoreIdentity"]


class StoreIdentity:
    """The facts about one store in the headers of answers. Once another store has answered, every
    ``check`` raises: the revisions that callers hold would have another meaning there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards cluster_id, revision and _replaced
        #: 0 until a server has answered.
        self.cluster_id = 0
        #: The highest revision in an answer. Read it before a request is sent.
        self.revision = 0
        self._replaced = ""
        #: Called once, when the store is found to be another one.
        self.when_replaced: Callable[[IncompatibleStore], object] = lambda _: None

    def check(self) -> None:
        """Check that the store has not been replaced.

        Raises:
            IncompatibleStore: it has.
        """
        if self._replaced:
            raise IncompatibleStore(self._replaced)

    def seen(self, header: Any, before: int) -> None:
        """Process an answer to a linearizable request; ``before`` is the revision known when it was
        sent.

        Raises:
            IncompatibleStore: another store answers, or the revision went back.
            CorruptStore: the answer does not come from etcd.
        """
        check_header(header)
        with self._lock:
            self.cluster_id = self.cluster_id or header.cluster_id
            if header.cluster_id == self.cluster_id and header.revision >= before:
                self.revision = max(self.revision, header.revision)
                return
        if header.cluster_id != self.cluster_id:
            raise self.replaced("the answer came from another cluster than the one opened")
        raise self.replaced(
            f"the store has gone back from revision {before} to {header.revision}: it was "
            "restored from an older backup or replaced"
        )

    def same(self, header: Any) -> None:
        """Check that an answer to a request that may lag comes from this store."""
        check_header(header)
        if self.cluster_id and header.cluster_id != self.cluster_id:
            raise self.replaced("the answer came from another cluster than the one opened")

    def reached(self, revision: int) -> None:
        """Note that a watch has delivered this revision."""
        with self._lock:
            self.revision = max(self.revision, revision)

    def replaced(self, why: str) -> IncompatibleStore:
        """Treat the store as replaced from now on; return the error to raise."""
        with self._lock:
            first = not self._replaced
            self._replaced = self._replaced or why
        error = IncompatibleStore(self._replaced)
        if first:
            self.when_replaced(error)
        return error
