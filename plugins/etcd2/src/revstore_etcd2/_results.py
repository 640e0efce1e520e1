"""What answers mean for the calls of the backend, and which arguments it refuses."""

from __future__ import annotations

from revstore.errors import FutureRevision, Unsupported
from revstore.values import Capability, KeyValue
from revstore_etcd2._errors import NOT_A_DIRECTORY, NOT_FOUND, refusal
from revstore_etcd2._wire import Answer, Node, kv_of

__all__ = ["ABSENT", "check_revision", "key_value", "no_folder", "node_of"]

#: The errors that say that there is no such key.
ABSENT = (NOT_FOUND, NOT_A_DIRECTORY)


def node_of(answer: Answer) -> Node | None:
    """What a read found. Errors of a cluster that cannot answer are raised."""
    if answer.error_code in ABSENT:
        return None
    if answer.node is None:
        raise refusal(answer)
    return answer.node


def key_value(node: Node | None, key: str) -> KeyValue | None:
    """The key at ``node``; None if there is none, or a folder."""
    return None if node is None or node.dir else kv_of(node, key)


def no_folder(key: str, reason: str) -> Unsupported:
    """The error for a key that cannot be where it would have to be."""
    return Unsupported(Capability.NESTED_KEYS, f"cannot create {key!r}: {reason}")


def check_revision(revision: int, index: int) -> None:
    """Refuse a read that is not of the state that was read, at ``index``."""
    if revision > index:
        raise FutureRevision(revision, index)
    if 0 < revision < index:
        raise Unsupported(Capability.HISTORICAL_READS, "etcd v2 reads its current state only")
