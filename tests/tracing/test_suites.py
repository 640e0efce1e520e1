"""Traced, storages do what they did before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.memory import MemoryBackend
from revstore.testing import BackendTests, CacherTests, StorageTests, WatchTests
from revstore.tracing import TracedCacher, trace_of, traced_storage
from revstore.tracing._parts import TracedBackend
from revstore.transform import IdentityTransformer
from revstore.versioner import APIObjectVersioner

pytestmark = pytest.mark.slow


def new_trace() -> Any:
    return trace_of(StorageConfig(slow_operation_threshold=3600), "pods", APIObjectVersioner())


class Traced:
    """Every storage is traced."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend

    def make_storage(self, backend, resource_type, **options):
        transformer = options.pop("transformer", None) or IdentityTransformer()
        return traced_storage(
            new_trace(),
            backend,
            resource_type,
            behind_cache=False,
            transformer=transformer,
            **options,
        )


class TestStorage(Traced, StorageTests):
    """In memory."""


class TestWatch(Traced, WatchTests):
    """In memory."""


class TestCacher(CacherTests):
    """In memory."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend

    def make_cacher(self, config):
        return TracedCacher(new_trace(), config)


class TestBackend(BackendTests):
    """In memory."""

    large_value = 4096

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with TracedBackend(MemoryBackend(), new_trace()) as backend:
            yield backend
