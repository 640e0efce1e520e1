"""The plugin of the built-in memory backend, found by its entry point like any other."""

from __future__ import annotations

from revstore.backend import API_VERSION, Backend, BackendInfo, NoOptions
from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.hooks import hookimpl
from revstore.values import Capability

__all__ = ["revstore_backend"]


@hookimpl
def revstore_backend() -> BackendInfo:
    """Describe the memory backend: everything but durability and other processes."""
    return BackendInfo(
        name="memory",
        api_version=API_VERSION,
        capabilities=frozenset(
            {
                Capability.HISTORICAL_READS,
                Capability.TTL,
                Capability.PROGRESS,
                Capability.COMPACTION,
                Capability.VERSIONS,
                Capability.NESTED_KEYS,
                Capability.TRANSACTIONS,
                Capability.LEASES,
                Capability.REMAINING_TTL,
                Capability.RAISE_REVISION,
                Capability.FENCE,
            }
        ),
        description="in the memory of this process; lost when it is closed",
        factory=_open,
        drivers=("revstore.memory",),
    )


def _open(config: StorageConfig, options: NoOptions) -> Backend:
    if config.server_list:
        raise ConfigError("server_list", config.server_list, "no servers: this store is in memory")
    from revstore.memory import MemoryBackend

    return MemoryBackend()
