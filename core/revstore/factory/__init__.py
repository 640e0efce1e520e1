"""From a configuration to open storages. This is the counterpart of the original's backend factory:
instead of a switch over types it looks up a plugin.

Most programs need only ``open_registry``. ``StorageFactory`` opens many resources of one
configuration and shares what can be shared.
"""

from __future__ import annotations

from revstore.factory._factory import (
    StorageFactory,
    Where,
    new_raw_storage,
    open_registry,
    open_storage,
    storage_with_cacher,
)

__all__ = [
    "StorageFactory",
    "Where",
    "new_raw_storage",
    "open_registry",
    "open_storage",
    "storage_with_cacher",
]
