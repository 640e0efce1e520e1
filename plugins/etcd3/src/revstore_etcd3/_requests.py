"""Requests of the contract as etcd's, and its answers as the contract's values."""

from __future__ import annotations

from typing import Any

from revstore.values import KeyValue, WatchEvent, WatchEventType
from revstore_etcd3._wire import kv_pb2, rpc_pb2

__all__ = [
    "delete_request",
    "event_of",
    "key_value",
    "prefix_end",
    "put_request",
    "range_request",
    "watch_request",
]

_EVERYTHING = b"\0"


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that begin with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else _EVERYTHING


def range_request(prefix: str, start: str = "", **fields: Any) -> Any:
    """A Range over the keys that begin with ``prefix``, from ``start`` on."""
    low = max(prefix, start).encode() or _EVERYTHING
    return rpc_pb2.RangeRequest(key=low, range_end=prefix_end(prefix.encode()), **fields)


def put_request(
    key: bytes, value: bytes, expected: int, *, lease: int = 0, ignore_lease: bool = False
) -> Any:
    """One transaction: put if the key is at ``expected``, else read it."""
    put = rpc_pb2.PutRequest(key=key, value=value, lease=lease, ignore_lease=ignore_lease)
    return _compare(key, expected, rpc_pb2.RequestOp(request_put=put))


def delete_request(key: bytes, expected: int) -> Any:
    """One transaction: delete if the key is at ``expected``, else read it."""
    delete = rpc_pb2.DeleteRangeRequest(key=key, prev_kv=True)
    return _compare(key, expected, rpc_pb2.RequestOp(request_delete_range=delete))


def _compare(key: bytes, expected: int, operation: Any) -> Any:
    compare = rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=key,
        mod_revision=expected,
    )
    read = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
    return rpc_pb2.TxnRequest(compare=[compare], success=[operation], failure=[read])


def watch_request(start: int) -> Any:
    """A watch of all keys from the revision ``start`` on. (DECISIONS 12)"""
    create = rpc_pb2.WatchCreateRequest(
        key=_EVERYTHING, range_end=_EVERYTHING, start_revision=start, prev_kv=True
    )
    return rpc_pb2.WatchRequest(create_request=create)


def key_value(kv: Any) -> KeyValue:
    """Raises ``UnicodeDecodeError`` for a foreign key."""
    return KeyValue(
        kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease
    )


def event_of(event: Any) -> WatchEvent | None:
    """None for a foreign key. ``LookupError`` if the value before has been compacted."""
    try:
        kv = key_value(event.kv)
    except UnicodeDecodeError:
        return None
    previous = key_value(event.prev_kv) if event.HasField("prev_kv") else None
    if event.type == kv_pb2.Event.DELETE:
        if previous is None:
            raise LookupError(kv.key)
        gone = KeyValue(kv.key, b"", kv.revision)
        return WatchEvent(WatchEventType.DELETED, gone, previous)
    if previous is None and kv.create_revision != kv.revision:
        raise LookupError(kv.key)
    return WatchEvent(WatchEventType.PUT, kv, previous)
