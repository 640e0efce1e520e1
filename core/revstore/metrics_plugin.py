"""The plugin that puts a ``MeasuredBackend`` around a backend: ``wrappers = ["metrics"]``."""

from __future__ import annotations

from collections.abc import Generator

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.hooks import hookimpl

__all__ = ["revstore_open_backend"]


@hookimpl(wrapper=True)
def revstore_open_backend(config: StorageConfig) -> Generator[None, Backend, Backend]:
    """Measure what is opened."""
    backend = yield
    from revstore.metrics._requests import MeasuredBackend

    return MeasuredBackend(backend, prefix=config.prefix, resources=config.resources)
