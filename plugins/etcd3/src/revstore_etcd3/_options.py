"""The options of the etcd3 backend."""

from __future__ import annotations

import attrs

from revstore.backend_tools import seconds, whole_number

__all__ = ["Etcd3Options"]


@attrs.frozen(kw_only=True)
class Etcd3Options:
    """How an etcd cluster is spoken to; ``ConfigError`` names the field that is wrong.

    ``timeout``: seconds that a call may take if it was given none. ``dial_timeout``: seconds after
    which another server is tried. ``keepalive_time``: seconds of silence after which the other end
    is asked whether it lives; ``keepalive_timeout``: seconds that it may take to say so. ``page``:
    how many keys are read in one request; halved where a page is too large for one message.
    """

    timeout: float = attrs.field(default=30.0, validator=seconds(0.1, 3600))
    dial_timeout: float = attrs.field(default=2.0, validator=seconds(0.1, 60))
    keepalive_time: float = attrs.field(default=10.0, validator=seconds(1, 3600))
    keepalive_timeout: float = attrs.field(default=5.0, validator=seconds(0.5, 600))
    page: int = attrs.field(default=10_000, validator=whole_number(1, 1_000_000))
