"""From a configuration to open storages: the place of the original's backend factory, whose
switch over types is the plugin look-up here.

``open_registry`` is what most programs want. ``StorageFactory`` opens many resources of one
configuration and shares what can be shared.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs

from revstore import kinds
from revstore._closing import Closing
from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.codec import Codec
from revstore.compactor import Compactor
from revstore.config import StorageConfig
from revstore.copier import Copier, DeepCopier, SharingCopier, default_copier
from revstore.errors import Closed, InvalidArgument
from revstore.health import HealthCheck
from revstore.kinds import ResourceInfo
from revstore.objects import field_value, labels_of
from revstore.plugins import load_codec, load_transformer, open_backend
from revstore.registry import Registry
from revstore.storage import Storage
from revstore.transform import Transformer
from revstore.typed import TypedStorage
from revstore.versioner import Versioner

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

# Fields that say what is done above the backend: configs that differ in no other share one.
_ABOVE_BACKEND = (
    "prefix",
    "codec",
    "copier",
    "transformer",
    "deserialization_cache_size",
    "compaction_interval",
    "event_history_window",
    "healthcheck_timeout",
    "readycheck_timeout",
    "count_metric_poll_period",
    "db_metric_poll_interval",
    "resources",
    "overrides",
)
_PLAIN = StorageConfig()


@attrs.frozen
class _Opened:
    backend: Backend
    compactor: Compactor


class StorageFactory(Closing):
    """Opens backends, storages and registries of one configuration, per-resource overrides
    included. Resources whose configuration names the same store share one backend, and one
    compactor with the smallest ``compaction_interval`` among them.

    ``where`` is a URL, the path of a ``.toml`` file, a ``StorageConfig``, or None for the
    environment; see ``revstore.config``. Nothing is opened before it is needed. Every method may
    be called from many threads; one that opens a store raises what
    ``revstore.plugins.open_backend`` does, and ``Closed`` after ``close``.
    """

    def __init__(self, where: Where = None) -> None:
        self.config = StorageConfig.load(where)
        # Held while a store is opened, so that nobody opens it a second time meanwhile.
        self._lock = threading.Lock()  # guards the four below
        self._opened: dict[StorageConfig, _Opened] = {}
        self._storages: list[Storage[Any]] = []
        self._registries: dict[tuple[ResourceInfo, type[Any]], Registry[Any]] = {}
        self._closed = False

    def backend(self, resource: str = "") -> Backend:
        """The backend that holds ``resource``, as "events" or "deployments.apps"; "": the main
        one. It is the factory's: do not close it."""
        config = self.config.for_resource(resource) if resource else self.config
        with self._lock:
            return self._open(config)

    def storage(
        self,
        object_type: type[T],
        *,
        resource: str = "",
        resource_prefix: str = "",
        codec: Codec[T] | None = None,
        copier: Copier[T] | None = None,
        transformer: Transformer | None = None,
        versioner: Versioner[T] | None = None,
        new_object: Callable[[], T] | None = None,
        labels: Callable[[T], Mapping[str, str]] = labels_of,
        fields: Callable[[T, str], str] = field_value,
        on_close: Callable[[], None] | None = None,
    ) -> Storage[T]:
        """The undecorated storage of one resource. It lives until the factory is closed.

        ``resource`` chooses the configuration's overrides and, unless ``resource_prefix`` is
        given, the keys: "pods" is "/pods", "widgets.example.com" is "/example.com/widgets". By
        default it is the plural of the type's name, as Kubernetes has it; ``dict`` needs one.
        ``codec``, ``copier`` and ``transformer`` go over those of the configuration; the rest is
        as ``TypedStorage`` has it.
        """
        info = self.info(object_type, resource)
        config = self.config.for_resource(info.qualified)
        with self._lock:
            backend = self._open(config)
        storage = TypedStorage(
            backend,
            object_type,
            resource_prefix=resource_prefix or info.prefix,
            prefix=config.prefix,
            codec=codec or load_codec(config.codec)(object_type),
            versioner=versioner,
            transformer=transformer or load_transformer(config.transformer)(config),
            copier=copier or _copier(config.copier, object_type),
            new_object=new_object,
            labels=labels,
            fields=fields,
            cache_size=config.deserialization_cache_size,
            quorum=config.quorum,
            ready_timeout=config.readycheck_timeout or 2.0,
            on_close=on_close,
        )
        with self._lock:
            self._check_open()
            self._storages.append(storage)
        return storage

    def registry(
        self,
        resource: ResourceInfo | str = "",
        object_type: type[Any] = dict,
        *,
        namespaced: bool | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Registry[Any]:
        """The registry of one resource, of plain dicts unless an ``object_type`` is given: the
        same one for the same arguments, until the factory is closed, but for one with ``on_close``,
        which is called when the registry has been closed. ``namespaced`` goes over what is known
        of the resource; an unknown one counts as namespaced."""
        info = self.info(object_type, resource)
        if namespaced is not None:
            info = attrs.evolve(info, namespaced=namespaced)
        if on_close is not None:
            return self._registry(info, object_type, on_close)
        with self._lock:
            self._check_open()
            registry = self._registries.get((info, object_type))
        if registry is None:
            made = self._registry(info, object_type)
            with self._lock:
                registry = self._registries.setdefault((info, object_type), made)
        return registry

    def stored_resources(self) -> tuple[str, ...]:
        """The resource prefixes that hold keys, as "/pods" or "/example.com/widgets", sorted.
        Reads one key of each resource, not all keys."""
        found = set()
        for config in self._configs():
            with self._lock:
                backend = self._open(config)
            for prefix in _resource_prefixes(backend, config.prefix.rstrip("/")):
                # In a store that several resources share lie also keys of an override's resource
                # from before it had one: nobody reaches those by its name.
                name = kinds.for_prefix(prefix, self.config.resources).qualified
                if _transport(self.config.for_resource(name)) == _transport(config):
                    found.add(prefix)
        return tuple(sorted(found))

    def health_check(self, resource: str = "") -> HealthCheck:
        """A check that the store answers a read of "<prefix>/health"; a missing key is healthy.
        (HLT-1, HLT-2)"""
        config = self.config.for_resource(resource) if resource else self.config
        timeout = config.healthcheck_timeout or 2.0
        key = f"{config.prefix.rstrip('/')}/health"

        def probe() -> None:
            self.backend(resource).get(key, timeout=timeout)

        return HealthCheck(probe, timeout=timeout)

    def ready_check(self, resource: str = "") -> HealthCheck:
        """A check that the store serves linearizable reads. (HLT-2)"""
        config = self.config.for_resource(resource) if resource else self.config
        timeout = config.readycheck_timeout or 2.0

        def probe() -> None:
            self.backend(resource).status(timeout=timeout)

        return HealthCheck(probe, timeout=timeout)

    def close(self) -> None:
        """Close storages first, then compactors, then backends. Idempotent."""
        with self._lock:
            self._closed = True
            storages, self._storages = self._storages, []
            opened, self._opened = list(self._opened.values()), {}
        for storage in storages:
            storage.close()
        for each in opened:
            each.compactor.close()
            each.backend.close()

    def _registry(
        self,
        info: ResourceInfo,
        object_type: type[T],
        on_close: Callable[[], None] | None = None,
    ) -> Registry[T]:
        storage = self.storage(
            object_type,
            resource=info.qualified,
            resource_prefix=info.prefix,
            on_close=on_close,
        )
        return Registry(storage, resource_prefix=info.prefix, namespaced=info.namespaced)

    def info(self, object_type: type[Any], resource: ResourceInfo | str = "") -> ResourceInfo:
        """The resource that ``storage`` and ``registry`` take these arguments for."""
        if isinstance(resource, ResourceInfo):
            return resource
        if not resource:
            if object_type is dict:
                raise InvalidArgument("resource", "", 'a resource, such as "pods", for dicts')
            resource = kinds.plural_of(object_type.__name__)
        known = kinds.lookup(resource, self.config.resources)
        if known is not None:
            return known
        plural, _, group = resource.partition(".")
        return ResourceInfo(plural, object_type.__name__, group)

    def _configs(self) -> Iterator[StorageConfig]:
        yield self.config
        for name in self.config.overrides:
            yield self.config.for_resource(name)

    def _open(self, config: StorageConfig) -> Backend:
        self._check_open()
        transport = _transport(config)
        opened = self._opened.get(transport)
        if opened is None:
            backend = open_backend(config)
            compactor = Compactor(backend, interval=self._compaction_interval(transport))
            opened = self._opened[transport] = _Opened(backend, compactor)
        return opened.backend

    def _compaction_interval(self, transport: StorageConfig) -> float:
        """The smallest that is asked for; 0 if all say off. (CMP-5)"""
        intervals = [
            config.compaction_interval
            for config in self._configs()
            if _transport(config) == transport
        ]
        return min(filter(None, intervals), default=0.0)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the storage factory was closed")


def new_raw_storage(where: Where, object_type: type[T], **options: Any) -> Storage[T]:
    """The undecorated storage of one resource (NewRawStorage); ``options`` are those of
    ``StorageFactory.storage``. Closing it closes its backend."""
    factory = StorageFactory(where)
    try:
        return factory.storage(object_type, on_close=factory.close, **options)
    except BaseException:
        factory.close()
        raise


def open_storage(where: Where, object_type: type[T], **options: Any) -> Storage[T]:
    """A storage of one resource, by keys: ``open_storage("sqlite:///x.db", Node)``. ``options``
    are those of ``StorageFactory.storage``. Closing it closes its backend."""
    return new_raw_storage(where, object_type, **options)


def storage_with_cacher(
    where: Where,
    object_type: type[T],
    *,
    capacity: int | None = None,
    indexed_fields: tuple[str, ...] = (),
    **options: Any,
) -> Storage[T]:
    """The storage of one resource behind a watch cache (StorageWithCacher).

    ``capacity`` and ``indexed_fields`` are those of ``revstore.cacher.CacherConfig``; capacity 0:
    no cache. ``options`` are those of ``StorageFactory.storage``. Closing it closes the cache
    first, then the storage and its backend; if the cache cannot be made, nothing is left open.
    """
    factory = StorageFactory(where)
    try:
        info = factory.info(object_type, options.get("resource", ""))
        storage = factory.storage(object_type, on_close=factory.close, **options)
        if capacity == 0:
            return storage
        config = factory.config.for_resource(info.qualified)
        names = ("versioner", "copier", "labels", "fields", "new_object")
        shared = {name: options[name] for name in names if name in options}
        shared.setdefault("copier", _copier(config.copier, object_type))
        return Cacher(
            CacherConfig(
                storage=storage,
                object_type=object_type,
                resource_prefix=options.get("resource_prefix") or info.prefix,
                capacity=capacity,
                event_history_window=config.event_history_window,
                indexed_fields=indexed_fields,
                **shared,
            )
        )
    except BaseException:
        factory.close()
        raise


def open_registry(
    where: Where,
    object_type: type[T],
    *,
    resource: ResourceInfo | str = "",
    namespaced: bool | None = None,
) -> Registry[T]:
    """A registry of one resource, by names: ``open_registry("sqlite:///x.db", Node)``. Arguments
    as ``StorageFactory.registry`` has them. Closing it closes its backend."""
    factory = StorageFactory(where)
    try:
        return factory.registry(
            resource, object_type, namespaced=namespaced, on_close=factory.close
        )
    except BaseException:
        factory.close()
        raise


def _transport(config: StorageConfig) -> StorageConfig:
    """``config`` with only what the backend is opened by."""
    plain: dict[str, Any] = {name: getattr(_PLAIN, name) for name in _ABOVE_BACKEND}
    return attrs.evolve(config, **plain)


def _copier(name: str, object_type: type[T]) -> Copier[T]:
    match name:
        case "share":
            return SharingCopier()
        case "deep":
            return DeepCopier()
    return default_copier(object_type)


def _resource_prefixes(backend: Backend, root: str) -> Iterator[str]:
    """Each "/resource" or "/group/resource" that keys below ``root`` begin with, by skipping from
    one to the next."""
    start = root + "/"
    end = root + "0"  # "0" follows "/": the first key that is not below the root
    while start < end:
        page = backend.list(root + "/", start=start, limit=1, keys_only=True)
        for kv in page.kvs:
            if kv.key < start:  # a backend that cannot page gives all at once
                continue
            first, *rest = kv.key[len(root) + 1 :].split("/")
            # A group has a dot, a resource has none; at least a name follows either.
            names = [first, *rest[:1]] if "." in first else [first]
            if len(names) <= len(rest):
                prefix = "/" + "/".join(names)
                yield prefix
                start = root + prefix + "0"
            else:
                start = kv.key + "\0"
        if not page.more:
            return
