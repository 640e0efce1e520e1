"""The suite as ``revstore conformance`` runs it: pytest is pointed at this file, and the plugin
that points it provides ``conformance_opener``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.testing.backend import BackendTests
from revstore.testing.backend._base import OpenBackend
from revstore.values import Capability

__all__ = ["TestConformance"]


class TestConformance(BackendTests):
    """On a store that others may use: no compaction, random keys, deleted afterwards. Less care is
    taken of a store that nobody else can reach."""

    large_value = 1 << 18

    @pytest.fixture(autouse=True)
    def _others(self, conformance_ephemeral: bool) -> None:
        self.ephemeral = conformance_ephemeral
        if not conformance_ephemeral:  # they are deleted one by one
            self.many_keys = 1_050

    @pytest.fixture
    def backend(self, conformance_opener: Callable[[], Backend]) -> Iterator[Backend]:
        with conformance_opener() as backend:
            yield backend

    @pytest.fixture
    def open_backend(
        self, backend: Backend, conformance_opener: Callable[[], Backend]
    ) -> OpenBackend | None:
        shared = {Capability.DURABLE, Capability.CROSS_PROCESS_WATCH}
        return conformance_opener if shared & backend.capabilities else None

    @pytest.fixture
    def wiped(
        self, open_backend: OpenBackend | None, conformance_opener: Callable[[], Backend]
    ) -> OpenBackend | None:
        # A store in memory is a new one at each opening.
        return conformance_opener if open_backend is None and self.ephemeral else None

    @pytest.fixture
    def declared(
        self, conformance_declared: frozenset[Capability] | None
    ) -> frozenset[Capability] | None:
        return conformance_declared
