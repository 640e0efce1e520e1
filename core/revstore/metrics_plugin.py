"""The plugin that puts a ``MeasuredBackend`` around a backend: ``wrappers = ["metrics"]``."""

from __future__ import annotations

from collections.abc import Generator

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import BackendBroken
from revstore.hooks import hookimpl

__all__ = ["revstore_open_backend"]


@hookimpl(wrapper=True)
def revstore_open_backend(config: StorageConfig) -> Generator[None, Backend, Backend]:
    """Measure the backend that is opened.

    Raises:
        BackendBroken: prometheus-client is not installed; nothing was opened.
    """
    try:
        from revstore.metrics import MeasuredBackend
    except ModuleNotFoundError as error:
        raise BackendBroken(
            "metrics", distribution="revstore", version="", reason=str(error), kind="wrapper"
        ) from error
    backend = yield
    return MeasuredBackend(backend, prefix=config.prefix, resources=config.resources)
