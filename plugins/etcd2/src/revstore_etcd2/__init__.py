"""revstore's etcd v2 backend: etcd 2.x to 3.5 with the v2 keys API.

Importing this module imports no HTTP client; opening a store does.
"""

from __future__ import annotations

from collections.abc import Iterator

from revstore.backend import Backend, BackendInfo
from revstore.config import StorageConfig
from revstore.errors import StorageError
from revstore.hooks import CheckResult, DoctorCheck, hookimpl
from revstore_etcd2._options import CAPABILITIES, Etcd2Options

__all__ = ["Etcd2Options", "factory", "revstore_backend", "revstore_doctor"]


def factory(config: StorageConfig, options: Etcd2Options) -> Backend:
    """Open the cluster at ``config.server_list``; nothing is sent before the first call.

    Raises:
        ConfigError: there are no servers, or the TLS files or credentials do not fit.
    """
    from revstore_etcd2._backend import Etcd2Backend

    return Etcd2Backend(config, options)


@hookimpl
def revstore_backend() -> BackendInfo:
    """Describe the etcd2 backend: no history beyond what watches need, no compaction."""
    return BackendInfo(
        name="etcd2",
        api_version=(1, 0),
        capabilities=CAPABILITIES,
        description="an etcd cluster, API v2 (etcd 2.x to 3.5)",
        factory=factory,
        options_class=Etcd2Options,
        drivers=("http.client", "ssl"),
    )


@hookimpl
def revstore_doctor(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Ask each server for its version and whether it serves the v2 API."""
    if not config.server_list:
        return
    from revstore_etcd2._check import check_servers

    try:
        yield from check_servers(config)
    except StorageError as error:
        yield DoctorCheck(name="servers", result=CheckResult.FAILED, detail=str(error))
