"""The same storages, registries and watches for asyncio."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from revstore import factory
from revstore.aio._calls import Calls, Opening, check_threads, opened_in_thread
from revstore.aio._watch import AsyncClosing, AsyncWatch
from revstore.closing import Closing
from revstore.factory import Where
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage, Watch

__all__ = [
    "AsyncRegistry",
    "AsyncStorage",
    "AsyncWatch",
    "Opening",
    "open_registry",
    "open_storage",
]

T = TypeVar("T")
R = TypeVar("R")
_P = ParamSpec("_P")
F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Closing)

# Enough that writers share the backend's commits.
_THREADS = 16


class _Facade(AsyncClosing, Generic[S]):
    def __init__(self, target: S, threads: int) -> None:
        self._target = target
        self._calls = Calls(target, threads)

    def _bound(
        self, name: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Callable[[], Any]:
        return functools.partial(getattr(self._target, name), *args, **options)

    async def close(self) -> None:
        """Close what this wraps, and end its threads.

        Watches end, and calls that still run raise ``Closed``. If this is cancelled, it goes on in
        the background. Idempotent.
        """
        await self._calls.close()


def _awaited(
    method: Callable[Concatenate[S, _P], R],
) -> Callable[Concatenate[_Facade[S], _P], Coroutine[Any, Any, R]]:
    """Turn the method into a coroutine function."""
    name = method.__name__

    async def call(self: _Facade[S], /, *args: _P.args, **options: _P.kwargs) -> R:
        done: R = await self._calls.run(self._bound(name, args, options))
        return done

    return _described(call, method)


def _opening(
    method: Callable[Concatenate[S, _P], Watch[T]],
) -> Callable[Concatenate[_Facade[S], _P], Opening[AsyncWatch[T]]]:
    """Turn the method, which opens a watch, into one whose result is to be awaited."""
    name = method.__name__

    def call(self: _Facade[S], /, *args: _P.args, **options: _P.kwargs) -> Opening[AsyncWatch[T]]:
        return Opening(self._calls.watch(self._bound(name, args, options)))

    return _described(call, method)


def _described(call: F, method: Callable[..., Any]) -> F:
    """Give ``call`` the name, signature and description of ``method``."""
    functools.update_wrapper(call, method)
    vars(call).pop("__isabstractmethod__", None)
    return call


class AsyncStorage(_Facade[Storage[T]], Generic[T]):
    """``storage`` for the tasks of event loops; see ``revstore.storage.Storage`` for what the
    methods do. Closing it closes the storage.

    At most ``threads`` calls run at once; others wait for their turn. Functions that are passed to
    ``guaranteed_update`` and ``delete`` are plain functions and are called in a thread. Await
    ``watch``, or use it in ``async with``. The feed of a cache, ``changes``, is not available here.
    """

    def __init__(self, storage: Storage[T], *, threads: int = _THREADS) -> None:
        super().__init__(storage, threads)

    @property
    def storage(self) -> Storage[T]:
        """The storage itself, to be used in threads, for what is not here, as in ``await
        asyncio.to_thread(nodes.storage.check_consistency)``."""
        return self._target

    create = _awaited(Storage[T].create)
    get = _awaited(Storage[T].get)
    list = _awaited(Storage[T].list)
    delete = _awaited(Storage[T].delete)
    guaranteed_update = _awaited(Storage[T].guaranteed_update)
    watch = _opening(Storage[T].watch)
    count = _awaited(Storage[T].count)
    stats = _awaited(Storage[T].stats)
    current_revision = _awaited(Storage[T].current_revision)
    compact_revision = _awaited(Storage[T].compact_revision)
    request_progress = _awaited(Storage[T].request_progress)
    ready = _awaited(Storage[T].ready)


class AsyncRegistry(_Facade[Registry[T]], Generic[T]):
    """``registry`` for the tasks of event loops; see ``revstore.registry.Registry`` for what the
    methods do, and ``AsyncStorage`` for the rest."""

    def __init__(self, registry: Registry[T], *, threads: int = _THREADS) -> None:
        super().__init__(registry, threads)

    @property
    def registry(self) -> Registry[T]:
        """The registry itself, to be used in threads."""
        return self._target

    create = _awaited(Registry[T].create)
    get = _awaited(Registry[T].get)
    list = _awaited(Registry[T].list)
    update = _awaited(Registry[T].update)
    apply = _awaited(Registry[T].apply)
    guaranteed_update = _awaited(Registry[T].guaranteed_update)
    delete = _awaited(Registry[T].delete)
    watch = _opening(Registry[T].watch)


def open_storage(
    where: Where, object_type: type[T] | ResourceType[T], *, threads: int = _THREADS, **options: Any
) -> Opening[AsyncStorage[T]]:
    """Open a storage like ``revstore.factory.open_storage``, with the same ``options``.

    Await it, or use it in ``async with``. If it is cancelled, whatever it opens is closed.
    """
    call = functools.partial(factory.open_storage, where, object_type, **options)

    async def opened() -> AsyncStorage[T]:
        check_threads(threads)  # nothing was opened yet
        return AsyncStorage(await opened_in_thread(call), threads=threads)

    return Opening(opened())


def open_registry(
    where: Where, object_type: type[T], *, threads: int = _THREADS, **options: Any
) -> Opening[AsyncRegistry[T]]:
    """Open a registry like ``revstore.factory.open_registry``, with the same ``options``; see
    ``open_storage``."""
    call = functools.partial(factory.open_registry, where, object_type, **options)

    async def opened() -> AsyncRegistry[T]:
        check_threads(threads)
        return AsyncRegistry(await opened_in_thread(call), threads=threads)

    return Opening(opened())
