"""The configuration of a store: from TOML, from a URL, from ``REVSTORE_*``, or in code.

Code has precedence over the environment, and the environment over a file. A URL or file that a
program names counts as code's choice of the store: ``REVSTORE_URL`` and ``REVSTORE_CONFIG`` are
then ignored; other variables yield to that URL, but override that file. Within one source, a field
set by itself overrides the same field in its ``url``.

URLs::

    memory://
    sqlite:///cluster.db                 relative path, options.path = "cluster.db"
    sqlite:////var/lib/cluster.db        absolute path
    etcd3://h1:2379,h2:2379/prefix?ca_file=ca.pem&username=ann
    sqlite:///cluster.db?poll_interval=50ms

A query name that is a field of ``StorageConfig`` sets it; any other is an option of the backend.
Percent-encode ``? # % @ & =`` where they are literal characters.

Variables: ``REVSTORE_URL``, ``REVSTORE_CONFIG`` (a TOML file), ``REVSTORE_TYPE`` and so on for each
field. Lists are separated by commas. ``__`` goes one level down, as in
``REVSTORE_OPTIONS__POLL_INTERVAL`` and ``REVSTORE_OVERRIDES__EVENTS__URL``. An empty or blank
variable counts as unset.

Blanks around any text are dropped; text with an invisible character in it is refused.

Durations are in seconds, or strings such as "500ms", "60s", "5m", "1h30m". File names are relative
to the current directory.
"""

from __future__ import annotations

from revstore.config._layers import list_of_environ
from revstore.config._storage_config import (
    ResourceConfig,
    Secret,
    StorageConfig,
    redact_url,
)
from revstore.config._values import Origin

__all__ = [
    "Origin",
    "ResourceConfig",
    "Secret",
    "StorageConfig",
    "list_of_environ",
    "redact_url",
]
