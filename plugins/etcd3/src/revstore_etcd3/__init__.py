"""revstore's etcd v3 backend: an etcd cluster of version 3.4 or later.

``Backend.fence`` stops every process that writes with revstore, but no other program: etcd itself
knows nothing of it.

Importing this module imports neither grpc nor the etcd client; opening a store does.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from revstore.backend import Backend, BackendInfo
from revstore.config import StorageConfig
from revstore.errors import BackendBroken, StorageError
from revstore.hooks import CheckResult, DoctorCheck, hookimpl
from revstore_etcd3._capabilities import CAPABILITIES
from revstore_etcd3._options import Etcd3Options

__all__ = ["Etcd3Options", "factory", "revstore_backend", "revstore_doctor"]


def factory(config: StorageConfig, options: Etcd3Options) -> Backend:
    """Open the cluster at ``config.server_list``; nothing is sent before the first call.

    Raises:
        ConfigError: there are no servers, or the TLS files or credentials do not fit.
        BackendBroken: the client library cannot be imported.
    """
    try:
        from revstore_etcd3._backend import Etcd3Backend
    except (ImportError, TypeError) as error:
        raise BackendBroken(
            "etcd3",
            distribution="revstore-etcd3",
            version=version("revstore-etcd3"),
            reason=f"its client library cannot be imported ({' '.join(str(error).split())[:200]}); "
            "try: pip uninstall -y etcd3; pip install --force-reinstall python3-etcd3",
        ) from error
    return Etcd3Backend(config, options)


@hookimpl
def revstore_backend() -> BackendInfo:
    """Describe the etcd3 backend."""
    return BackendInfo(
        name="etcd3",
        api_version=(1, 1),
        capabilities=CAPABILITIES,
        description="an etcd cluster, API v3",
        factory=factory,
        options_class=Etcd3Options,
        drivers=("grpc", "etcd3.etcdrpc"),
    )


@hookimpl
def revstore_doctor(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Ask each member for its version, leader, database size and alarms."""
    if not config.server_list:
        return
    from revstore_etcd3._check import check_members

    try:
        yield from check_members(config)
    except StorageError as error:
        yield DoctorCheck(name="members", result=CheckResult.FAILED, detail=str(error))
