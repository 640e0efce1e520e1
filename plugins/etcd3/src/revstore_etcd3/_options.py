"""The options of the etcd3 backend."""

from __future__ import annotations

import attrs

from revstore.backend_tools import seconds, whole_number

__all__ = ["Etcd3Options"]


@attrs.frozen(kw_only=True)
class Etcd3Options:
    """The connection to an etcd cluster.

    ``timeout``: seconds that a call may take if it has no timeout. ``dial_timeout``: seconds after
    which another server is tried. ``keepalive_time``: seconds of silence after which the other end
    is asked for a sign of life; ``keepalive_timeout``: seconds that it may take to answer.
    ``page``: how many keys are read in one request; it is halved if a page is too large for one
    message. ``max_txn_ops``: how many keys and ranges a transaction compares at most, the fence
    included; as the server's option of that name.

    Raises:
        ConfigError: a value is not allowed; the error names the field.
    """

    timeout: float = attrs.field(default=30.0, validator=seconds(0.1, 3600))
    dial_timeout: float = attrs.field(default=2.0, validator=seconds(0.1, 60))
    keepalive_time: float = attrs.field(default=10.0, validator=seconds(1, 3600))
    keepalive_timeout: float = attrs.field(default=5.0, validator=seconds(0.5, 600))
    page: int = attrs.field(default=10_000, validator=whole_number(1, 1_000_000))
    max_txn_ops: int = attrs.field(default=128, validator=whole_number(1, 1_000_000))
