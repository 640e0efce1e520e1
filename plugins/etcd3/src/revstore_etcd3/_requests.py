"""Requests of the contract as requests of etcd, and its answers as the contract's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from revstore.backend_tools import Change
from revstore.errors import CorruptStore
from revstore.values import KeyValue, WatchEvent, WatchEventType
from revstore_etcd3._answers import kv_of
from revstore_etcd3._wire import kv_pb2, rpc_pb2

__all__ = [
    "FENCE",
    "change_operation",
    "delete_request",
    "event_of",
    "fence_request",
    "fence_range",
    "prefix_end",
    "put_request",
    "range_request",
    "transaction_request",
    "watch_request",
]

_EVERYTHING = b"\0"
#: The key that exists while the store is fenced; its value is the reason. It is not UTF-8 and
#: behind all keys that are, so that no object has it and neither lists nor watches show it.
FENCE = b"\xffrevstore/fence"


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all that begin with ``prefix``; after "" it is the fence."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else FENCE


def range_request(prefix: str, start: bytes = b"", **fields: Any) -> Any:
    """Return a Range over the keys that begin with ``prefix``, from ``start`` on."""
    stem = prefix.encode()
    return rpc_pb2.RangeRequest(
        key=max(stem, start) or _EVERYTHING, range_end=prefix_end(stem), **fields
    )


def put_request(
    key: bytes, value: bytes, expected: int, *, lease: int = 0, ignore_lease: bool = False
) -> Any:
    """Return one transaction: put if the key is at ``expected``, else read it and the fence."""
    put = rpc_pb2.PutRequest(key=key, value=value, lease=lease, ignore_lease=ignore_lease)
    return _compare(key, expected, rpc_pb2.RequestOp(request_put=put))


def delete_request(key: bytes, expected: int) -> Any:
    """Return one transaction: delete if the key is at ``expected``, else read it and the fence."""
    delete = rpc_pb2.DeleteRangeRequest(key=key, prev_kv=True)
    return _compare(key, expected, rpc_pb2.RequestOp(request_delete_range=delete))


def _compare(key: bytes, expected: int, operation: Any) -> Any:
    read = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
    return rpc_pb2.TxnRequest(
        compare=[_at(key, expected), _NOT_FENCED],
        success=[operation],
        failure=[read, _READ_FENCE],
    )


def fence_range() -> Any:
    """Return a read of the fence."""
    return rpc_pb2.RangeRequest(key=FENCE)


def fence_request(reason: str) -> Any:
    """Return a transaction that sets the fence, or removes it if ``reason`` is ""."""
    if reason:
        put = rpc_pb2.PutRequest(key=FENCE, value=reason.encode())
        change = rpc_pb2.RequestOp(request_put=put)
    else:
        change = rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=FENCE))
    return rpc_pb2.TxnRequest(success=[change])


def change_operation(change: Change, lease: int) -> Any:
    """Make the part of a transaction for one write of a body."""
    key = change.key.encode()
    if change.value is None:
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    # The server refuses to keep the lease of a key that is not there.
    keep = change.keep and change.previous is not None
    return rpc_pb2.RequestOp(
        request_put=rpc_pb2.PutRequest(key=key, value=change.value, lease=lease, ignore_lease=keep)
    )


def transaction_request(
    keys: Mapping[str, int],
    ranges: Iterable[tuple[bytes, bytes]],
    revision: int,
    operations: Iterable[Any],
) -> Any:
    """Make a transaction that does ``operations`` if each of ``keys`` is at its revision, and
    nothing in ``ranges`` is newer than ``revision``; else it reads the fence."""
    compare = [_at(key.encode(), expected) for key, expected in keys.items()]
    compare.append(_NOT_FENCED)
    for low, end in ranges:
        compare.append(
            rpc_pb2.Compare(
                result=rpc_pb2.Compare.LESS,
                target=rpc_pb2.Compare.MOD,
                key=low,
                range_end=end,
                mod_revision=revision + 1,
            )
        )
    return rpc_pb2.TxnRequest(compare=compare, success=operations, failure=[_READ_FENCE])


def _at(key: bytes, revision: int) -> Any:
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=key,
        mod_revision=revision,
    )


_NOT_FENCED = _at(FENCE, 0)
_READ_FENCE = rpc_pb2.RequestOp(request_range=fence_range())


def watch_request(start: int) -> Any:
    """Return a watch of all keys from the revision ``start`` on."""
    create = rpc_pb2.WatchCreateRequest(
        key=_EVERYTHING, range_end=_EVERYTHING, start_revision=start, prev_kv=True
    )
    return rpc_pb2.WatchRequest(create_request=create)


def event_of(event: Any) -> WatchEvent | None:
    """Return the contract's event, None for a foreign key.

    Raises:
        LookupError: the value before has been compacted.
        CorruptStore: the event cannot have happened.
    """
    kv, before = event.kv, event.prev_kv if event.HasField("prev_kv") else None
    if kv.mod_revision <= 0:
        raise CorruptStore(f"the server sent a change of {kv.key!r} at revision {kv.mod_revision}")
    if before is not None and (before.key != kv.key or before.mod_revision >= kv.mod_revision):
        raise CorruptStore(f"the server sent a change of {kv.key!r} with a wrong previous value")
    try:
        previous = None if before is None else kv_of(before, kv.mod_revision)
        if event.type == kv_pb2.Event.DELETE:
            if previous is None:
                raise LookupError(kv.key)
            gone = KeyValue(kv.key.decode(), b"", kv.mod_revision)
            return WatchEvent(WatchEventType.DELETED, gone, previous)
        found = kv_of(kv, kv.mod_revision)
    except UnicodeDecodeError:
        return None
    if previous is None and found.create_revision != found.revision:
        raise LookupError(found.key)
    return WatchEvent(WatchEventType.PUT, found, previous)
