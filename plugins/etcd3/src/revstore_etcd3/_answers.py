"""The answers of a server, checked once: what etcd never says is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from revstore.errors import CorruptStore, ReadOnly
from revstore.values import DeleteResult, KeyValue, PutResult

__all__ = [
    "check_fence_range",
    "check_header",
    "check_lease",
    "check_refusal",
    "check_written",
    "count_of",
    "delete_result",
    "kv_of",
    "one_of",
    "put_result",
]


def check_header(header: Any) -> None:
    """Check that the header names a cluster and a revision.

    Raises:
        CorruptStore: it does not.
    """
    if header.revision <= 0 or not header.cluster_id:
        raise CorruptStore(
            f"the server sent an invalid header: cluster {header.cluster_id}, "
            f"revision {header.revision}"
        )


def kv_of(kv: Any, upto: int) -> KeyValue:
    """Return the contract's value for a key in a store at ``upto``.

    Raises:
        UnicodeDecodeError: it is a foreign key.
    """
    if not 0 < kv.create_revision <= kv.mod_revision <= upto or kv.version <= 0:
        raise CorruptStore(
            f"the server sent {kv.key!r} with impossible numbers: created at {kv.create_revision}, "
            f"changed at {kv.mod_revision}, version {kv.version}, while the store is at {upto}"
        )
    return KeyValue(
        kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease
    )


def one_of(kvs: Any, key: bytes, upto: int) -> KeyValue | None:
    """Return the one key that was asked for, None if it does not exist."""
    if not kvs:
        return None
    if len(kvs) > 1 or kvs[0].key != key:
        raise CorruptStore(f"asked for {key!r}, the server sent {[kv.key for kv in kvs[:3]]}")
    return kv_of(kvs[0], upto)


def put_result(response: Any, key: bytes, expected: int) -> PutResult:
    """Return the outcome of a put of ``put_request``."""
    revision = response.header.revision
    if not response.succeeded:
        return PutResult(False, revision, _current(response, key))
    _only(response, "response_put")
    if revision <= expected:
        raise CorruptStore(f"the server reports a write at {revision}, not above {expected}")
    return PutResult(True, revision)


def delete_result(response: Any, key: bytes, expected: int) -> DeleteResult:
    """Return the outcome of a deletion of ``delete_request``."""
    revision = response.header.revision
    if not response.succeeded:
        return DeleteResult(False, revision, _current(response, key))
    removed = one_of(_only(response, "response_delete_range").prev_kvs, key, revision)
    if removed is None or removed.revision != expected:
        raise CorruptStore("the server did not return the key that it deleted")
    return DeleteResult(True, revision, removed)


def check_written(response: Any, deletions: Sequence[bool], before: int) -> int:
    """Return the revision of a transaction that succeeded, in a store that was at ``before``; each
    part is a put or one of ``deletions``."""
    parts = response.responses
    asked = [("response_put", "response_delete_range")[deletion] for deletion in deletions]
    if [each.WhichOneof("response") for each in parts] != asked:
        raise CorruptStore("the server's answer does not fit the transaction")
    revision = int(response.header.revision)
    if revision <= before:
        raise CorruptStore(f"the server reports a write at {revision}, not above {before}")
    return revision


def _current(response: Any, key: bytes) -> KeyValue | None:
    """Return the key as stored, which conflicts with a write that did not succeed.

    Raises:
        ReadOnly: the store is fenced.
    """
    parts = response.responses
    if len(parts) != 2 or not all(part.HasField("response_range") for part in parts):
        raise CorruptStore("the server's answer does not fit the transaction")
    check_fence_range(parts[1].response_range)
    return one_of(parts[0].response_range.kvs, key, response.header.revision)


def check_refusal(response: Any) -> None:
    """Check why a transaction was refused.

    Raises:
        ReadOnly: the store is fenced.
    """
    check_fence_range(_only(response, "response_range"))


def check_fence_range(response: Any) -> None:
    """Check that a read of the fence found none.

    Raises:
        ReadOnly: the store is fenced.
    """
    if response.kvs:
        reason = response.kvs[0].value.decode(errors="replace")
        raise ReadOnly(reason or "the store is fenced")


def _only(response: Any, kind: str) -> Any:
    responses = response.responses
    if len(responses) != 1 or not responses[0].HasField(kind):
        raise CorruptStore("the server's answer does not fit the transaction")
    return getattr(responses[0], kind)


def count_of(response: Any) -> int:
    """Return the number of keys."""
    if response.count < 0:
        raise CorruptStore(f"the server sent an invalid number of keys: {response.count}")
    return int(response.count)


def check_lease(lease: Any) -> int:
    """Check a lease that was granted, and return its id."""
    if lease <= 0:
        raise CorruptStore(f"the server sent an invalid lease id: {lease}")
    return int(lease)
