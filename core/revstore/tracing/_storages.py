"""Storages whose calls are observed. Those that are not traced have the plain classes, and cost
nothing more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from revstore.backend import Backend
from revstore.cacher import Cacher
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.tracing._call import Call, Trace
from revstore.tracing._parts import TracedBackend, TracedCodec, TracedTransformer
from revstore.transform import IdentityTransformer, Transformer
from revstore.typed import TypedStorage

__all__ = ["TracedCacher", "traced_storage"]

T = TypeVar("T")

_CALLS = (
    "create",
    "get",
    "list",
    "delete",
    "guaranteed_update",
    "watch",
    "changes",
    "count",
    "stats",
    "current_revision",
    "compact_revision",
    "ready",
)


def _traced(kind: type[Storage[Any]]) -> Any:
    """Return ``kind`` with a first argument ``trace``, which sees all calls."""

    def init(self: Any, trace: Trace, *args: Any, **more: Any) -> None:
        self._trace = trace
        kind.__init__(self, *args, **more)

    methods = {name: _observed(getattr(kind, name)) for name in _CALLS}
    more = {"__init__": init, "__doc__": f"A ``{kind.__name__}`` whose calls are observed."}
    return type(f"Traced{kind.__name__}", (kind,), {**methods, **more, "__module__": __name__})


def _observed(method: Callable[..., Any]) -> Callable[..., Any]:
    if method.__name__ == "guaranteed_update":

        @functools.wraps(method)
        def updating(self: Any, key: Any, update: Any, **asked: Any) -> Any:
            call = Call(self._trace, "guaranteed_update", key, asked)
            with call:
                call.result = result = method(self, key, call.timed(update), **asked)
            return result

        return updating
    operation = method.__name__

    @functools.wraps(method)
    def observed(self: Any, *args: Any, **asked: Any) -> Any:
        key = args[0] if args else asked.get("key", "")
        call = Call(self._trace, operation, key, asked)
        if asked.get("validate") is not None:
            asked["validate"] = call.timed(asked["validate"])
        with call:
            call.result = result = method(self, *args, **asked)
        return result

    return observed


#: ``Cacher`` with a first argument ``trace``.
TracedCacher: Any = _traced(Cacher)
_TracedStorage: Any = _traced(TypedStorage)


def traced_storage(
    trace: Trace,
    backend: Backend,
    resource_type: ResourceType[T],
    *,
    behind_cache: bool,
    transformer: Transformer,
    **options: Any,
) -> Storage[T]:
    """Return a ``TypedStorage`` whose parts note their time.

    Its calls are observed, unless it is ``behind_cache``: then the calls of the cache are.
    """
    codec: Any = TracedCodec(resource_type.codec)
    parts = TracedBackend(backend, trace), attrs.evolve(resource_type, codec=codec)
    if not isinstance(transformer, IdentityTransformer):
        transformer = TracedTransformer(transformer)
    options["transformer"] = transformer
    storage: Storage[T]
    if behind_cache:
        storage = TypedStorage(*parts, **options)
    else:
        storage = _TracedStorage(trace, *parts, **options)
    return storage
