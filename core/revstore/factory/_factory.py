"""From a configuration to open backends, storages and registries."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs

from revstore import kinds
from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.closing import Closing
from revstore.codec import Codec, TypedCodec, Upgrade
from revstore.compactor import Compactor
from revstore.config import StorageConfig
from revstore.copier import Copier, DeepCopier, SharingCopier, default_copier
from revstore.errors import Closed, ConfigError, InvalidArgument, UnsupportedType
from revstore.factory._resource_prefixes import resource_prefixes
from revstore.factory._upgrades import load_upgrades
from revstore.forks import OpenGuard
from revstore.health import HealthCheck
from revstore.kinds import ResourceInfo
from revstore.plugins import load_codec, open_backend, open_transformer, refusing_to_create
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.tracing import TracedCacher, trace_of, traced_storage
from revstore.transform import Transformer
from revstore.typed import TypedStorage

__all__ = [
    "StorageFactory",
    "Where",
    "new_raw_storage",
    "open_registry",
    "open_storage",
    "storage_with_cacher",
]

T = TypeVar("T")

#: A URL, the path of a TOML file, a configuration, or None for the environment's.
Where: TypeAlias = str | os.PathLike[str] | StorageConfig | None


@attrs.frozen
class _Opened:
    backend: Backend
    compactor: Compactor


class StorageFactory(Closing):
    """Opens backends, storages and registries of one configuration, per-resource overrides
    included.

    Resources whose configuration names the same store share one backend, and one compactor with the
    smallest ``compaction_interval`` among them.

    ``where`` is a URL, the path of a ``.toml`` file, a ``StorageConfig``, or None for the
    environment; see ``revstore.config``. Without ``create``, a store that does not exist is refused
    where it would be created, unless its own option says so. Nothing is opened before it is needed.
    Every method may be
    called from many threads. One that opens a store raises what ``revstore.plugins.open_backend``
    does, and ``Closed`` after ``close``.
    """

    def __init__(self, where: Where = None, *, create: bool = True) -> None:
        self.config = StorageConfig.load(where)
        self._create = create
        _check_overrides(self.config)
        # Held while a store is opened, so that no other thread opens it a second time.
        self._lock = threading.Lock()  # guards _opened, _storages, _registries, _closed
        self._opened: dict[StorageConfig, _Opened] = {}
        self._storages: list[tuple[ResourceInfo, Storage[Any]]] = []
        self._registries: dict[tuple[Any, ...], Registry[Any]] = {}
        self._closed = False
        self._guard = OpenGuard(self, what="storage factory", in_child=StorageFactory._in_child)

    def backend(self, resource: str = "") -> Backend:
        """Return the backend that holds ``resource``, such as "events" or "deployments.apps"; "":
        the main one.

        The factory owns it: do not close it.
        """
        config = self.config.for_resource(resource) if resource else self.config
        with self._lock:
            return self._open(config)

    def resource_type(
        self,
        object_type: type[T],
        resource: ResourceInfo | str = "",
        *,
        version: str = "",
        upgrades: Mapping[str, Upgrade] | None = None,
    ) -> ResourceType[T]:
        """Return how ``storage`` treats a type: codec and copier by the configuration, the rest by
        default.

        ``version`` and ``upgrades`` are those of ``ResourceType``, by default those that
        ``[resources]`` in the configuration declares.

        To have other functions, for example for ``labels``, change it with ``attrs.evolve``.
        """
        info = self.info(object_type, resource)
        config = self.config.for_resource(info.qualified)
        codec = load_codec(config.codec)(object_type)
        api_version = f"{info.group}/v1" if info.group else "v1"
        if isinstance(codec, TypedCodec) and kinds.leads_back(
            info, api_version, self.config.resources
        ):
            # So that the command line's output of a typed object can be applied. A class of another
            # name may have the same plural, and so the same keys.
            own = (info.group, info.resource) == ("", kinds.plural_of(object_type.__name__))
            codec = codec.with_type_meta(api_version, info.kind, exact=own)
        if not version and not upgrades:
            declared = self.config.resources.get(info.qualified)
            if declared is not None:
                version = declared.version
                upgrades = load_upgrades(declared.upgrades, info.qualified)
        if version and info.group and "/" not in version:
            version = f"{info.group}/{version}"
        return ResourceType(
            object_type,
            info.prefix,
            version=version,
            upgrades=upgrades or {},
            codec=codec,
            copier=_copier(config.copier, object_type, codec),
        )

    def storage(
        self,
        object_type: type[T] | ResourceType[T],
        *,
        resource: ResourceInfo | str = "",
        transformer: Transformer | None = None,
        cached: bool = False,
        capacity: int | None = None,
        indexed_fields: tuple[str, ...] = (),
        version: str = "",
        upgrades: Mapping[str, Upgrade] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Storage[T]:
        """Open the storage of one resource. It lives until the factory is closed.

        ``resource`` chooses the configuration's overrides and the keys: "pods" is "/pods",
        "widgets.example.com" is "/example.com/widgets". By default it is the plural of the type's
        name, as Kubernetes forms it; ``dict`` needs one. A ``ResourceType`` in place of the type
        overrides that, and the configuration's codec and copier; ``transformer`` overrides the
        configuration's. ``version`` and ``upgrades`` are those of ``resource_type``.

        With ``cached`` the storage is behind its own watch cache, a ``revstore.cacher.Cacher``,
        which reads all objects of the resource once and then follows their changes: lists, watches
        and reads at a resource version come from memory. ``capacity`` and ``indexed_fields`` are
        those of ``CacherConfig``; capacity 0 means no cache. (OLD-27)
        """
        if isinstance(object_type, ResourceType):
            resource_type: ResourceType[T] = object_type
            if version or upgrades:
                raise InvalidArgument("version", version, "none: the ResourceType has its own")
        else:
            resource_type = self.resource_type(
                object_type, resource, version=version, upgrades=upgrades
            )
        info = self.info(resource_type.object_type, resource)
        config = self.config.for_resource(info.qualified)
        with self._lock:
            backend = self._open(config)
        behind_cache = cached and capacity != 0
        make_storage: Callable[..., Storage[T]] = TypedStorage
        make_cacher: Callable[..., Storage[T]] = Cacher
        trace = trace_of(config, info.qualified, resource_type.versioner)
        if trace is not None:
            make_storage = functools.partial(traced_storage, trace, behind_cache=behind_cache)
            make_cacher = functools.partial(TracedCacher, trace)
        storage = make_storage(
            backend,
            resource_type,
            prefix=config.prefix,
            transformer=open_transformer(config, info.qualified)
            if transformer is None
            else transformer,
            cache_size=config.deserialization_cache_size,
            quorum=config.quorum,
            ready_timeout=config.readycheck_timeout or 2.0,
            on_close=on_close,
        )
        try:
            if behind_cache:
                storage = make_cacher(
                    CacherConfig(
                        storage=storage,
                        resource_type=resource_type,
                        capacity=capacity,
                        event_history_window=config.event_history_window,
                        indexed_fields=indexed_fields,
                    )
                )
            with self._lock:
                self._check_open()
                self._storages.append((info, storage))
            return storage
        except BaseException:
            storage.close()
            raise

    def open_storages(self) -> tuple[tuple[ResourceInfo, Storage[Any]], ...]:
        """Return the storages that the factory has opened and has not closed, in the order of
        opening."""
        with self._lock:
            return tuple(self._storages)

    def open_backends(self) -> tuple[tuple[StorageConfig, Backend], ...]:
        """Return the backends that are open, in the order of opening, each with the part of the
        configuration that opened it.

        The factory owns them: do not close them.
        """
        with self._lock:
            return tuple((config, each.backend) for config, each in self._opened.items())

    def registry(
        self,
        resource: ResourceInfo | str = "",
        object_type: type[Any] = dict,
        *,
        namespaced: bool | None = None,
        cached: bool = False,
        indexed_fields: tuple[str, ...] = (),
        version: str = "",
        upgrades: Mapping[str, Upgrade] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Registry[Any]:
        """Return the registry of one resource, of plain dicts unless an ``object_type`` is given.

        The same arguments give the same registry, until it or the factory is closed. One with
        ``on_close``, which is called after the registry was closed, is never shared. ``namespaced``
        overrides what is known about the resource; an unknown one counts as namespaced. ``cached``
        and ``indexed_fields`` are those of ``storage``; a shared registry keeps those that it was
        opened with. ``version`` and ``upgrades`` are those of ``resource_type``.
        """
        info = self.info(object_type, resource)
        if namespaced is not None:
            info = attrs.evolve(info, namespaced=namespaced)
        key = info, object_type, cached, version, tuple((upgrades or {}).items())
        with self._lock:
            self._check_open()
            shared = self._registries.get(key)
        if shared is not None and on_close is None and not shared.closing:
            return shared
        # Unset until both exist: the factory may be closed meanwhile.
        storage: Storage[Any] | None = None
        registry: Registry[Any] | None = None

        def forget() -> None:
            with self._lock:
                if registry is not None and self._registries.get(key) is registry:
                    del self._registries[key]
                self._storages = _without(storage, self._storages)

        resource_type = self.resource_type(object_type, info, version=version, upgrades=upgrades)
        try:
            storage = self.storage(
                resource_type,
                resource=info,
                cached=cached,
                indexed_fields=indexed_fields,
                on_close=forget if on_close is None else on_close,
            )
            registry = Registry(
                storage,
                resource_prefix=info.prefix,
                namespaced=info.namespaced,
                kind=self._kind_of(info),
                encode=resource_type.codec.encode,
            )
            if on_close is None:
                with self._lock:
                    first = self._registries.get(key)
                    if first is None or first.closing:
                        first = self._registries[key] = registry
                if first is not registry:  # another thread's, opened at the same time
                    storage.close()
                    return first
            return registry
        except BaseException:
            if storage is not None:
                storage.close()
            raise

    def _kind_of(self, info: ResourceInfo) -> str:
        """Return the kind of a known resource, "" for one that is known only by its keys."""
        known = kinds.for_prefix(info.prefix, self.config.resources).kind
        return known if known == info.kind != info.resource else ""

    def stored_resources(self) -> tuple[str, ...]:
        """Return the resource prefixes that hold keys, such as "/pods" or "/example.com/widgets",
        sorted.

        It reads one key of each resource, not all keys.
        """
        found = set()
        for config in self._configs():
            with self._lock:
                backend = self._open(config)
            for prefix in resource_prefixes(backend, config.prefix.rstrip("/")):
                # If several resources share a store, it may also have keys of an override's
                # resource from before the override: nobody reaches those by its name.
                name = kinds.for_prefix(prefix, self.config.resources).qualified
                own = self.config.for_resource(name)
                if own.backend_part() == config.backend_part() and own.prefix == config.prefix:
                    found.add(prefix)
        return tuple(sorted(found))

    def health_check(self, resource: str = "") -> HealthCheck:
        """Return a check that the store answers a read of "<prefix>/health"; a missing key is
        healthy. (HLT-1, HLT-2)"""
        config = self.config.for_resource(resource) if resource else self.config
        timeout = config.healthcheck_timeout or 2.0
        key = f"{config.prefix.rstrip('/')}/health"

        def probe() -> None:
            self.backend(resource).get(key, timeout=timeout)

        return HealthCheck(probe, timeout=timeout)

    def ready_check(self, resource: str = "") -> HealthCheck:
        """Return a check that the store serves linearizable reads. (HLT-2)"""
        config = self.config.for_resource(resource) if resource else self.config
        timeout = config.readycheck_timeout or 2.0

        def probe() -> None:
            self.backend(resource).status(timeout=timeout)

        return HealthCheck(probe, timeout=timeout)

    def close(self) -> None:
        """Close storages first, then compactors, then backends. Idempotent; do nothing in a child
        after a fork."""
        if self._guard.inherited:
            return
        with self._lock:
            self._closed = True
            storages, opened = list(self._storages), list(self._opened.values())
        with contextlib.ExitStack() as stack:  # so that an error leaves no other one open
            for each in reversed(opened):
                stack.callback(each.backend.close)
                stack.callback(each.compactor.close)
            for _, storage in reversed(storages):
                stack.callback(storage.close)
        with self._lock:  # now, so that a close that was interrupted can be repeated
            self._storages, self._opened = [], {}

    def info(self, object_type: type[Any], resource: ResourceInfo | str = "") -> ResourceInfo:
        """Return the resource that ``storage`` and ``registry`` choose for these arguments.

        Raises:
            InvalidArgument: there is none, it could be mistaken for another one, or several have
                this name; see ``revstore.kinds``.
        """
        try:
            hash(object_type)
        except TypeError:
            raise UnsupportedType("object_type", object_type, "a class, or dict") from None
        name = getattr(object_type, "__name__", type(object_type).__name__)
        if isinstance(resource, ResourceInfo):
            info = resource
        elif resource:
            known = kinds.lookup(resource, self.config.resources)
            plural, _, group = resource.lower().partition(".")
            if known and object_type is not dict and plural in known.short_names:
                # A class does not get another kind because of its plural: Limit is not LimitRange.
                own = kinds.plural_of(name)
                known = None if own == resource.lower() else known
            if object_type is not dict and kinds.plural_of(name) != plural:
                name = kinds.kind_of(plural) or name  # the kind in its manifest
            info = known or ResourceInfo(plural, name, group)
        elif object_type is dict:
            raise InvalidArgument("resource", "", 'a resource, such as "pods", for dicts')
        else:
            info = kinds.for_class(name, self.config.resources)
        kinds.check(info)
        return info

    def _configs(self) -> Iterator[StorageConfig]:
        yield self.config
        for name in self.config.overrides:
            yield self.config.for_resource(name)

    def _open(self, config: StorageConfig) -> Backend:
        self._check_open()
        shared = config.backend_part()
        opened = self._opened.get(shared)
        if opened is None:
            compactor: Compactor | None = None
            backend = open_backend(config if self._create else refusing_to_create(config))
            try:
                compactor = Compactor(backend, interval=self._compaction_interval(shared))
                opened = self._opened[shared] = _Opened(backend, compactor)
            except BaseException:
                if compactor is not None:
                    compactor.close()
                backend.close()
                raise
        return opened.backend

    def _compaction_interval(self, shared: StorageConfig) -> float:
        """Return the smallest interval that is configured; 0 if all say off. (CMP-5)"""
        intervals = [
            config.compaction_interval
            for config in self._configs()
            if config.backend_part() == shared
        ]
        return min(filter(None, intervals), default=0.0)

    def _check_open(self) -> None:
        self._guard.check()
        if self._closed:
            raise Closed("the storage factory was closed")

    def _in_child(self) -> None:
        self._lock = threading.Lock()


def new_raw_storage(
    where: Where, object_type: type[T] | ResourceType[T], **options: Any
) -> Storage[T]:
    """Open the undecorated storage of one resource (NewRawStorage).

    ``options`` are those of ``StorageFactory.storage`` except ``on_close``. Closing it closes its
    backend.
    """
    return open_storage(where, object_type, **{**options, "cached": False})


def open_storage(
    where: Where, object_type: type[T] | ResourceType[T], *, cached: bool = False, **options: Any
) -> Storage[T]:
    """Open a storage of one resource, by keys: ``open_storage("sqlite:///x.db", Node)``.

    With ``cached`` it is behind a watch cache. ``options`` are those of ``StorageFactory.storage``
    except ``on_close``. Closing it closes its backend. If opening fails, nothing is left open.
    """
    factory = StorageFactory(where)
    try:
        return factory.storage(object_type, cached=cached, on_close=factory.close, **options)
    except BaseException:
        factory.close()
        raise


def storage_with_cacher(
    where: Where,
    object_type: type[T] | ResourceType[T],
    *,
    capacity: int | None = None,
    indexed_fields: tuple[str, ...] = (),
    **options: Any,
) -> Storage[T]:
    """Open the storage of one resource behind a watch cache (StorageWithCacher).

    It is ``open_storage`` with ``cached``; ``capacity`` 0 means no cache. (OLD-27)
    """
    options |= {"cached": True, "capacity": capacity, "indexed_fields": indexed_fields}
    return open_storage(where, object_type, **options)


def open_registry(
    where: Where,
    object_type: type[T],
    *,
    resource: ResourceInfo | str = "",
    namespaced: bool | None = None,
    cached: bool = False,
    indexed_fields: tuple[str, ...] = (),
    version: str = "",
    upgrades: Mapping[str, Upgrade] | None = None,
) -> Registry[T]:
    """Open a registry of one resource, by names: ``open_registry("sqlite:///x.db", Node)``.

    The arguments are those of ``StorageFactory.registry``. Closing it closes its backend.
    """
    factory = StorageFactory(where)
    try:
        return factory.registry(
            resource,
            object_type,
            namespaced=namespaced,
            cached=cached,
            indexed_fields=indexed_fields,
            version=version,
            upgrades=upgrades,
            on_close=factory.close,
        )
    except BaseException:
        factory.close()
        raise


def _check_overrides(config: StorageConfig) -> None:
    """Refuse an override under any other name than that of its resource.

    It would never be found, and the resource's objects would be in the main store.

    Raises:
        ConfigError: the name is a kind, a short name, or lacks the group.
    """
    for name in config.overrides:
        try:
            info = None if name.startswith("*.") else kinds.lookup(name, config.resources)
            meant = info.qualified if info else name
        except InvalidArgument as error:  # several groups have it
            meant = error.expected
        if meant != name:
            message = f"invalid overrides.{name}: expected the resource's own name: {meant}"
            raise ConfigError(f"overrides.{name}", name, meant, message=message)


def _copier(name: str, object_type: type[T], codec: Codec[T]) -> Copier[T]:
    match name:
        case "share":
            return SharingCopier()
        case "deep":
            return DeepCopier()
    return default_copier(object_type, codec)


def _without(
    storage: Storage[Any] | None, storages: list[tuple[ResourceInfo, Storage[Any]]]
) -> list[tuple[ResourceInfo, Storage[Any]]]:
    return [each for each in storages if each[1] is not storage]
