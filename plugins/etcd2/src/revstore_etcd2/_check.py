"""The checks of ``revstore doctor`` for each server."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from revstore.config import StorageConfig
from revstore.errors import StorageError
from revstore.hooks import CheckResult, DoctorCheck
from revstore_etcd2._backend import Etcd2Backend
from revstore_etcd2._options import Etcd2Options

__all__ = ["check_servers"]

_TIMEOUT = 2.0


def check_servers(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Yield a line for each server, and one if they belong to several clusters."""
    clusters = set()
    for server in config.server_list:
        alone = attrs.evolve(config, server_list=(server,), overrides={})
        name = f"server {server}"
        try:
            with Etcd2Backend(alone, Etcd2Options(dial_timeout=_TIMEOUT)) as backend:
                status = backend.status(timeout=_TIMEOUT)
        except StorageError as error:
            yield DoctorCheck(name=name, result=CheckResult.FAILED, detail=str(error))
            continue
        clusters.add(status.store_id)
        yield DoctorCheck(
            name=name,
            result=CheckResult.OK,
            detail=f"{status.server}, index {status.revision}",
        )
    if len(clusters) > 1:
        yield DoctorCheck(
            name="cluster",
            result=CheckResult.FAILED,
            detail=f"the servers belong to different clusters: {', '.join(sorted(clusters))}",
        )
