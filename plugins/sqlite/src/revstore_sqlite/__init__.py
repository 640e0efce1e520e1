"""revstore's sqlite backend: a store in one file, the embedded default.

Importing this module does not import SQLAlchemy; opening a store does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import attrs

from revstore.backend import Backend, BackendInfo
from revstore.backend_tools import let_out
from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.hooks import CheckResult, DoctorCheck, hookimpl
from revstore.plugins import validate_options
from revstore.values import Capability
from revstore_sqlite._options import SQLiteOptions

__all__ = ["SQLiteOptions", "factory", "revstore_backend", "revstore_doctor"]


def factory(config: StorageConfig, options: SQLiteOptions) -> Backend:
    """Open the store at ``options.path``.

    Raises:
        ConfigError: servers are configured; or the folder is missing, or with ``create=false`` the
            file.
        AccessDenied: permissions deny access to the file.
        ReadOnly: the file cannot be written here, and needs to be.
        NoSpace: the disk is full.
        IncompatibleStore: the file is not a revstore store, or has a newer schema.
        CorruptStore: the store is damaged.
        Timeout: other processes held it for too long.
    """
    if config.server_list:
        expected = "no servers: options.path names the file"
        raise ConfigError("server_list", config.server_list, expected)
    try:
        options = attrs.evolve(options, path=os.path.abspath(options.path))
    except FileNotFoundError as error:
        let_out(error)
        expected = "an absolute path: the working folder was deleted"
        raise ConfigError("options.path", options.path, expected) from error
    # Not before: where the working folder is missing, imports may fail.
    from revstore_sqlite._backend import SQLiteBackend

    return SQLiteBackend(options)


@hookimpl
def revstore_backend() -> BackendInfo:
    """Describe the sqlite backend: everything but reads that may lag."""
    return BackendInfo(
        name="sqlite",
        api_version=(1, 1),
        capabilities=frozenset(Capability) - {Capability.LOCAL_READS},
        description="in a file, shared by processes of one machine",
        factory=factory,
        options_class=SQLiteOptions,
        drivers=("sqlite3", "sqlalchemy"),
    )


@hookimpl
def revstore_doctor(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Check the file's mode, its integrity, and its place."""
    options: SQLiteOptions = validate_options(revstore_backend(), config)
    path = os.path.abspath(options.path)
    if not os.path.exists(path):
        yield DoctorCheck(name="file", result=CheckResult.OK, detail=f"{path} is not there yet")
        return
    mode = stat.S_IMODE(os.stat(path).st_mode)
    wide = mode & 0o077
    yield DoctorCheck(
        name="file mode",
        result=CheckResult.WARNING if wide else CheckResult.OK,
        detail=f"{path} has mode {mode:04o}: others may read it; chmod 600" if wide else "",
    )
    from revstore_sqlite._check import check_file

    yield from check_file(path)
