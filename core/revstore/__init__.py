"""Revisioned object storage with watch: the Kubernetes apiserver's storage layer for Python.

Most programs need no more than this::

    import attrs
    import revstore

    @attrs.frozen(kw_only=True)
    class Node:
        metadata: revstore.ObjectMeta
        zone: str = ""

    with revstore.open_registry("sqlite:///cluster.db", Node) as nodes:
        nodes.create(Node(metadata=revstore.ObjectMeta(name="n1"), zone="a"))
        for event in nodes.watch():
            print(event.type, event.object.metadata.name)

Errors that are not here are in ``revstore.errors``; backends, for those who write one, are
described in ``revstore.backend``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revstore.config import ResourceConfig, Secret, StorageConfig
    from revstore.errors import (
        Conflict,
        CorruptObject,
        CorruptObjects,
        Expired,
        InvalidArgument,
        KeyExists,
        KeyNotFound,
        NotReady,
        OutcomeUnknown,
        PreconditionFailed,
        StorageError,
        TooLargeResourceVersion,
        Unreachable,
        Unsupported,
        WatchClosed,
    )
    from revstore.factory import StorageFactory, new_raw_storage, open_registry, open_storage
    from revstore.objects import ObjectMeta, OwnerReference
    from revstore.preconditions import Preconditions
    from revstore.registry import ApplyOutcome, ApplyResult, Registry
    from revstore.resource_type import ResourceType
    from revstore.storage import (
        Event,
        EventType,
        ObjectList,
        ResponseMeta,
        Stats,
        Storage,
        Watch,
        WithTTL,
    )

__all__ = [
    "ApplyOutcome",
    "ApplyResult",
    "Conflict",
    "CorruptObject",
    "CorruptObjects",
    "Event",
    "EventType",
    "Expired",
    "InvalidArgument",
    "KeyExists",
    "KeyNotFound",
    "NotReady",
    "ObjectList",
    "ObjectMeta",
    "OutcomeUnknown",
    "OwnerReference",
    "PreconditionFailed",
    "Preconditions",
    "Registry",
    "ResourceConfig",
    "ResourceType",
    "ResponseMeta",
    "Secret",
    "Stats",
    "Storage",
    "StorageConfig",
    "StorageError",
    "StorageFactory",
    "TooLargeResourceVersion",
    "Unreachable",
    "Unsupported",
    "Watch",
    "WatchClosed",
    "WithTTL",
    "new_raw_storage",
    "open_registry",
    "open_storage",
]

# Where the names are defined. They are imported when first used, so that `import revstore` costs
# next to nothing, and a program that only wants, say, errors does not load the plug-in machinery.
_HOMES = {
    "config": (
        "ResourceConfig",
        "Secret",
        "StorageConfig",
    ),
    "errors": (
        "Conflict",
        "CorruptObject",
        "CorruptObjects",
        "Expired",
        "InvalidArgument",
        "KeyExists",
        "KeyNotFound",
        "NotReady",
        "OutcomeUnknown",
        "PreconditionFailed",
        "StorageError",
        "TooLargeResourceVersion",
        "Unreachable",
        "Unsupported",
        "WatchClosed",
    ),
    "factory": (
        "StorageFactory",
        "new_raw_storage",
        "open_registry",
        "open_storage",
    ),
    "objects": (
        "ObjectMeta",
        "OwnerReference",
    ),
    "preconditions": ("Preconditions",),
    "registry": (
        "ApplyOutcome",
        "ApplyResult",
        "Registry",
    ),
    "resource_type": ("ResourceType",),
    "storage": (
        "Event",
        "EventType",
        "ObjectList",
        "ResponseMeta",
        "Stats",
        "Storage",
        "Watch",
        "WithTTL",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
