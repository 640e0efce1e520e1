"""The plain values that Storage and Backend exchange. All are immutable."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import attrs
import msgspec

__all__ = [
    "BackendStatus",
    "Capability",
    "CountResult",
    "DeleteResult",
    "GetResult",
    "KeyValue",
    "LeaseInfo",
    "ListResult",
    "PutResult",
    "TransactionResult",
    "WatchBatch",
    "WatchEvent",
    "WatchEventType",
]


T = TypeVar("T")


class Capability(enum.StrEnum):
    """An ability that a backend may have beyond the minimum.

    All except the last two can be checked with a call. If the capability is claimed, the call must
    work; if not, it must raise ``Unsupported`` (``LOCAL_READS``: it must be served linearizably,
    without an error; ``VERSIONS``: the number must be 0). The last two describe behaviour only: a
    claim is tested, and no claim is shown as "no".
    """

    #: get, list and count at a revision below the current one
    HISTORICAL_READS = "historical-reads"
    #: put with ttl > 0, and ttl=None on a key that expires
    TTL = "ttl"
    #: BackendWatch.request_progress
    PROGRESS = "progress"
    #: Backend.compact
    COMPACTION = "compaction"
    #: linearizable=False may be answered from a replica that lags
    LOCAL_READS = "local-reads"
    #: KeyValue.version counts the writes of a key since its creation
    VERSIONS = "versions"
    #: a key may exist beside others below it, "a" and "a/b"; otherwise put raises ``Unsupported``
    #: for the second, and writes nothing
    NESTED_KEYS = "nested-keys"
    #: Backend.transactions: several keys in one revision (since 1.1)
    TRANSACTIONS = "transactions"
    #: Backend.leases; needs TRANSACTIONS, which attach keys (since 1.1)
    LEASES = "leases"
    #: Backend.remaining_ttl (since 1.1)
    REMAINING_TTL = "remaining-ttl"
    #: Backend.raise_revision (since 1.1)
    RAISE_REVISION = "raise-revision"
    #: Backend.fence and unfence (since 1.1)
    FENCE = "fence"
    #: an acknowledged write survives a crash of the process and of the machine
    DURABLE = "durable"
    #: a watch sees the writes of other processes
    CROSS_PROCESS_WATCH = "cross-process-watch"


# msgspec instead of attrs for the two values that exist once per stored object: creating one is
# about four times as fast, and gc=False keeps bulk reads from triggering the cycle collector.
class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One key as stored.

    ``revision`` is that of its last write, ``create_revision`` that of the write that created it.
    ``version`` counts writes since creation, from 1 (0: the store has no such count). ``lease`` is
    not 0 exactly if the key expires; what the number means depends on the store (etcd: the lease
    id; memory and sqlite: the ttl in seconds with which it was last written). If the key is
    attached to a lease of ``Backend.leases``, it is the id of that lease. In the ``kv`` of a
    DELETED event, ``revision`` is that of the deletion, ``value`` is b"" and the other numbers are
    0. ``damaged``: the stored data does not fit its checksum, so that neither ``value`` nor the
    numbers can be trusted; typed storage raises ``CorruptObject``.
    """

    key: str
    value: bytes
    revision: int
    create_revision: int = 0
    version: int = 0
    lease: int = 0
    damaged: bool = False


class WatchEventType(enum.StrEnum):
    """PUT: the key was created or overwritten. DELETED: it was deleted, or it expired."""

    PUT = "PUT"
    DELETED = "DELETED"


class WatchEvent(msgspec.Struct, frozen=True):
    """One change of one key.

    ``previous`` is the key just before, None exactly if it did not exist. So ``previous is None``
    means "created" (``kv.create_revision == kv.revision``). In a DELETED event ``previous`` is
    never None.
    """

    type: WatchEventType
    kv: KeyValue
    previous: KeyValue | None = None


@attrs.frozen(slots=True)
class WatchBatch:
    """All events of one revision that the watch covers, each key at most once, in key order.

    Without events it is a progress mark: every event up to ``revision`` has been delivered.
    """

    revision: int
    events: tuple[WatchEvent, ...] = ()


@attrs.frozen(slots=True)
class BackendStatus:
    """``store_id`` identifies the data: it is the same for all who open the store, and another
    after the store was wiped. ``revision`` is linearizable: at least that of any write acknowledged
    before the call. ``compacted_revision`` is the highest one known, 0 if nothing was compacted.
    ``server`` is a line for people, such as "sqlite 3.40.1". ``foreign_keys`` counts the keys found
    that are not UTF-8, which lists and watches leave out."""

    store_id: str
    revision: int
    compacted_revision: int
    server: str
    foreign_keys: int = 0


@attrs.frozen(slots=True)
class GetResult:
    """``revision`` is the store's at the moment of the read (even of a historical read: the current
    one, not the one asked for). ``kv`` is None if the key does not exist there."""

    revision: int
    kv: KeyValue | None


@attrs.frozen(slots=True)
class ListResult:
    """``kvs`` are in key order. ``revision`` is that of the state shown: the one asked for, else
    the store's at the moment of the read. ``more`` says whether keys of the prefix follow the last
    one; ``remaining`` counts them if it was asked for, else it is None."""

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool = False
    remaining: int | None = None


@attrs.frozen(slots=True)
class CountResult:
    """``revision`` is that of the state counted: the one asked for, else the store's at the moment
    of the read."""

    revision: int
    count: int


@attrs.frozen(slots=True)
class PutResult:
    """If ``succeeded``, ``revision`` is the write's own and ``current`` is None. Otherwise nothing
    was written, ``current`` is the key as stored now (None: it does not exist), and ``revision`` is
    the store's."""

    succeeded: bool
    revision: int
    current: KeyValue | None = None


@attrs.frozen(slots=True)
class TransactionResult(Generic[T]):
    """``value`` is what the body returned. If the body wrote something, ``wrote`` is true, and
    ``revision`` is the one that all its writes share. Otherwise ``revision`` is the store's at
    which the body read."""

    value: T
    revision: int
    wrote: bool


@attrs.frozen(slots=True)
class LeaseInfo:
    """``ttl`` is the time to live in seconds that the store granted, which may be more than was
    asked for. ``remaining`` is the number of seconds until the lease expires, 0.0 if it is overdue.
    ``keys`` are the keys that are attached, in order; () if they were not asked for."""

    id: int
    ttl: int
    remaining: float
    keys: tuple[str, ...] = ()


@attrs.frozen(slots=True)
class DeleteResult:
    """If ``succeeded``, ``revision`` is the deletion's own and ``kv`` is what was removed.
    Otherwise nothing was deleted, ``kv`` is the key as stored now (None: it does not exist), and
    ``revision`` is the store's."""

    succeeded: bool
    revision: int
    kv: KeyValue | None = None
