"""From a configuration to open storages: the place of the original's backend factory, whose
switch over types is the plugin look-up here.

``open_registry`` is what most programs want. ``StorageFactory`` opens many resources of one
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
