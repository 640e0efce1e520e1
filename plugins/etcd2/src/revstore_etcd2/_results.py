"""The backend's interpretation of answers, and its checks of arguments."""

from __future__ import annotations

from collections.abc import Sequence

from revstore.errors import CorruptStore, FutureRevision, Unsupported
from revstore.values import Capability, KeyValue
from revstore_etcd2._errors import NOT_A_DIRECTORY, NOT_FOUND, REFUSALS, refusal
from revstore_etcd2._wire import Answer, Node, kv_of

__all__ = [
    "ABSENT",
    "check_list_of",
    "check_revision",
    "key_value",
    "no_folder",
    "node_of",
    "nonsense",
]

#: The errors that mean that there is no such key.
ABSENT = (NOT_FOUND, NOT_A_DIRECTORY)


def node_of(answer: Answer, path: str, index: int) -> Node | None:
    """Return what a read of ``path`` found, in a store at ``index``.

    The errors of a cluster that cannot answer come out.

    Raises:
        CorruptStore: it is the answer to something else.
    """
    if not index:
        raise CorruptStore("the server did not report the store's index")
    if answer.error_code in ABSENT:
        return None
    node = answer.node
    if node is None:
        raise refusal(answer)
    if node.key != path:
        raise CorruptStore(f"asked for {path!r}, the server sent {node.key!r}")
    if node.modified_index > index:
        raise CorruptStore(
            f"{path!r} was changed at {node.modified_index}, but the store is at {index}"
        )
    return node


def key_value(node: Node | None, key: str) -> KeyValue | None:
    """Return the key at ``node``; None if there is none, or if it is a folder."""
    return None if node is None or node.dir else kv_of(node, key)


def nonsense(answer: Answer, path: str, expected: int) -> str:
    """Return why the answer does not say whether a write to ``path`` happened; "" if it does."""
    node = answer.node
    if node is None:
        if answer.error_code in REFUSALS:
            return ""
        return f"{answer.error_code}: {answer.message}: {answer.cause}"
    rises = expected < node.modified_index and 0 < node.created_index <= node.modified_index
    if node.key == path and rises:
        return ""
    return f"the server answers for {node.key!r} at {node.modified_index}"


def no_folder(key: str, reason: str) -> Unsupported:
    """Return the error for a key that cannot be where it would have to be."""
    return Unsupported(Capability.NESTED_KEYS, f"cannot create {key!r}: {reason}")


def check_list_of(found: Sequence[tuple[str, Node]], index: int) -> None:
    """Check that a store at ``index`` can hold these keys, which are in order.

    Raises:
        CorruptStore: it cannot.
    """
    before = ""
    for key, node in found:
        if key == before:
            raise CorruptStore(f"the server sent {key!r} twice in one list")
        if node.modified_index > index:
            raise CorruptStore(
                f"{key!r} was changed at {node.modified_index}, but the store is at {index}"
            )
        before = key


def check_revision(revision: int, index: int) -> None:
    """Refuse a read at another revision than ``index``, the one that was read."""
    if revision > index:
        raise FutureRevision(revision, index)
    if 0 < revision < index:
        raise Unsupported(Capability.HISTORICAL_READS, "etcd v2 reads its current state only")
