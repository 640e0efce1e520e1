"""The options of the etcd2 backend, and what it can do."""

from __future__ import annotations

import attrs

from revstore.backend_tools import seconds, whole_number
from revstore.values import Capability

__all__ = ["CAPABILITIES", "Etcd2Options"]

#: No history except what watches need, no compaction, no count of versions, no progress on request.
CAPABILITIES = frozenset(
    {
        Capability.TTL,
        Capability.REMAINING_TTL,
        Capability.LOCAL_READS,
        Capability.DURABLE,
        Capability.CROSS_PROCESS_WATCH,
    }
)


@attrs.frozen(kw_only=True)
class Etcd2Options:
    """The connection to an etcd cluster.

    ``timeout``: seconds that a call may take if it has no timeout. ``dial_timeout``: seconds after
    which another server is tried. ``idle_timeout``: seconds of silence after which the stream of
    changes reconnects, so that a dead server is noticed. ``list_limit``: the largest answer to a
    list, in bytes; v2 answers a list as a whole.

    Raises:
        ConfigError: a value is not allowed; the error names the field.
    """

    timeout: float = attrs.field(default=30.0, validator=seconds(0.1, 3600))
    dial_timeout: float = attrs.field(default=2.0, validator=seconds(0.1, 60))
    idle_timeout: float = attrs.field(default=5.0, validator=seconds(0.1, 600))
    list_limit: int = attrs.field(default=512 << 20, validator=whole_number(1 << 20, 1 << 40))
