"""The bodies of transactions on a ``MemoryBackend``, which run under its lock."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from revstore.backend_tools import Overlay
from revstore.errors import LeaseNotFound, ReadOnly
from revstore.memory._state import State
from revstore.values import KeyValue

__all__ = ["Body"]


class Body(Overlay):
    """The view of one body."""

    def __init__(self, state: State) -> None:
        super().__init__(state.revision)
        self._state = state

    def stored(self, key: str) -> KeyValue | None:
        return self._state.current.get(key)

    def stored_range(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> Sequence[KeyValue]:
        kvs, _left = self._state.page(prefix, start, limit)
        return [msgspec.structs.replace(kv, value=b"") for kv in kvs] if keys_only else kvs

    def check_writable(self) -> None:
        if self._state.fenced:
            raise ReadOnly(self._state.fenced)

    def check_lease(self, lease: int) -> None:
        if lease not in self._state.leases:
            raise LeaseNotFound(lease)
