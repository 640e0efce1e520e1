"""The base of the parts of ``BackendTests``: attributes to set, fixtures to override."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.testing._support import Keyspace, clear, random_prefix
from revstore.values import Capability

__all__ = ["BackendSuite", "OpenBackend", "Stall", "every_call"]

#: Opens one more handle on the store that the ``backend`` fixture has open.
OpenBackend = Callable[[], Backend]

#: Keeps the store of the ``backend`` fixture from answering while the block lasts.
Stall = Callable[[], contextlib.AbstractContextManager[object]]


class BackendSuite:
    """Base of the parts. See ``BackendTests`` for how to use them."""

    #: The store belongs to the test alone, so that its history may be compacted.
    ephemeral: bool = True
    #: Each test gets a new store that answers revision 1 while it is empty.
    starts_at_one: bool = False
    #: How many bytes the largest value of the tests has.
    large_value: int = 1 << 20
    #: How many bytes the longest key of the tests has.
    large_key: int = 1024
    #: How many keys the longest list of the tests has.
    many_keys: int = 10_050

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """Open a backend. Override this; the test may close the backend."""
        raise NotImplementedError("override the fixture `backend` to yield an open Backend")

    @pytest.fixture
    def open_backend(self, backend: Backend) -> OpenBackend | None:
        """Return a function that opens one more handle on the store of ``backend``.

        Override it if a store can be opened more than once. The function must work even after
        ``backend`` was closed; the test closes the handle.
        """
        return None

    @pytest.fixture
    def stall(self, backend: Backend) -> Stall | None:
        """Return a function that makes the store answer late.

        Override it if this is possible: within ``with stall():`` the store does not answer writes,
        or anything, of ``backend``; afterwards it does again.
        """
        return None

    @pytest.fixture
    def space(self, backend: Backend, open_backend: OpenBackend | None) -> Iterator[Keyspace]:
        """Yield a keyspace under a random prefix, so that the suite disturbs nothing in a store
        that is in use."""
        space = Keyspace(backend, f"{random_prefix()}/")
        yield space
        if not self.ephemeral:
            clear(backend, space.prefix, open_backend)

    @pytest.fixture
    def alone(self) -> None:
        """Skip tests that would touch the history of a store that others use."""
        if not self.ephemeral:
            pytest.skip("compaction is tested on stores that belong to the test")

    def claims(self, backend: Backend, capability: Capability) -> bool:
        """Return whether the open backend has ``capability``."""
        return capability in backend.capabilities

    def storable(self, backend: Backend, names: Sequence[str]) -> list[str]:
        """Return the ``names`` that the store can hold together: without NESTED_KEYS, only those
        neither above nor below an earlier one."""
        if self.claims(backend, Capability.NESTED_KEYS):
            return [*names]
        kept: list[str] = []
        for name in names:
            nested = (f"{a}/".startswith(f"{b}/") for k in kept for a, b in ((name, k), (k, name)))
            if not any(nested):
                kept.append(name)
        return kept

    def need(self, backend: Backend, capability: Capability) -> None:
        """Skip a test about ``capability`` if the backend does not claim it; another test
        checks that."""
        if capability not in backend.capabilities:
            pytest.skip(f"does not claim {capability}")

    def need_second(self, open_backend: OpenBackend | None) -> OpenBackend:
        """Return the function that opens a second handle, or fail: a backend that claims the
        capability needs one."""
        if open_backend is None:
            pytest.fail("a claimed capability needs the fixture `open_backend` to be tested")
        return open_backend


def every_call(backend: Backend) -> list[Callable[[], Any]]:
    """Return calls of every method of an open backend, to be made later."""
    calls: list[Callable[[], Any]] = [
        backend.status,
        lambda: backend.get("/k"),
        lambda: backend.list("/k"),
        lambda: backend.count("/k"),
        lambda: backend.put("/k", b"", expected_revision=1 << 60),
        lambda: backend.delete("/k", expected_revision=1 << 60),
        lambda: backend.watch("/k", recursive=True, after_revision=0),
    ]
    if backend.size() is not None:
        calls.append(backend.size)
    if Capability.COMPACTION in backend.capabilities:
        calls.append(lambda: backend.compact(1 << 60))
    return calls
