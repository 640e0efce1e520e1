"""The JSON of the v2 keys API, and the values in it.

v2 holds only text. A value that is UTF-8 is stored unchanged. Any other value, and one that begins
with the mark itself, is stored as the mark and base64. Text with the mark that is not base64 was
written by others, and is read unchanged.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterator
from typing import Annotated

import msgspec

from revstore.backend_tools import let_out
from revstore.errors import CorruptStore
from revstore.values import KeyValue, WatchEvent, WatchEventType
from revstore_etcd2._names import key_of

__all__ = [
    "Action",
    "Answer",
    "Node",
    "decode_answer",
    "decode_value",
    "encode_value",
    "event_of",
    "folders",
    "index_of",
    "kv_of",
    "leaves",
]

_MARK = "revstore/base64:"
_BYTES_MARK = _MARK.encode()
_DELETIONS = frozenset({"delete", "compareAndDelete", "expire"})
_PUTS = frozenset({"set", "create", "update", "compareAndSwap"})
_LAST = (1 << 63) - 1
Index = Annotated[int, msgspec.Meta(ge=0, le=_LAST)]
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Node(msgspec.Struct, rename="camel", gc=False):
    """A key, or with ``dir`` a folder."""

    key: str = "/"
    value: str | None = None
    dir: bool = False
    modified_index: Index = 0
    created_index: Index = 0
    expiration: str = ""
    ttl: int = 0
    nodes: list[Node] = []


class Answer(msgspec.Struct, rename="camel"):
    """The server's answer: a node and the one before it, or an error."""

    action: str = ""
    node: Node | None = None
    prev_node: Node | None = None
    error_code: int = 0
    message: str = ""
    cause: str = ""
    index: Index = 0


class Action(msgspec.Struct):
    """A change of the store at ``index``. ``event`` is its effect on a key, if it concerns one;
    ``lost_folder`` is a folder that was removed with all its contents."""

    index: int
    event: WatchEvent | None = None
    lost_folder: str = ""


_answers = msgspec.json.Decoder(Answer)


def index_of(text: str) -> int:
    """Return the index in a header; 0 if it holds none."""
    return found if text.isascii() and text.isdigit() and (found := int(text[:20])) <= _LAST else 0


def decode_answer(body: bytes) -> Answer:
    """Return the answer in ``body``.

    Raises:
        CorruptStore: it is not the JSON of the API.
    """
    try:
        answer = _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptStore(f"the server's answer cannot be read: {error}") from error
    if (answer.error_code != 0) is (answer.node is not None):
        raise CorruptStore("the server's answer is neither a node nor an error, or both")
    return answer


def encode_value(value: bytes) -> str:
    if not value.startswith(_BYTES_MARK):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return _MARK + base64.urlsafe_b64encode(value).decode()


def decode_value(text: str) -> bytes:
    if text.startswith(_MARK):
        try:
            return base64.b64decode(text[len(_MARK) :], altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            let_out(error)
            return text.encode()
    return text.encode()


def _lease(expiration: str) -> int:
    """Return the moment of expiry in nanoseconds since 1970, which is the same in every answer."""
    whole, _, rest = expiration.partition(".")
    digits = rest.rstrip("Z")[:9]
    try:
        moment = datetime.datetime.fromisoformat(whole.rstrip("Z")[:19] + "+00:00")
    except ValueError as error:
        let_out(error)
        raise CorruptStore(f"the server sent an invalid expiration: {expiration!r}") from error
    seconds = (moment - _EPOCH) // datetime.timedelta(seconds=1)
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0") if digits.isdecimal() else 0) or 1


def kv_of(node: Node, key: str, *, keys_only: bool = False) -> KeyValue:
    """Return the key at a node.

    Raises:
        CorruptStore: it has no value, or its indexes are not valid.
    """
    value = node.value
    if value is None or not 0 < node.created_index <= node.modified_index:
        raise CorruptStore(
            f"the server's answer for {key!r} is incomplete: "
            f"{'no value' if value is None else 'a value'}, indexes "
            f"{node.created_index} and {node.modified_index}"
        )
    return KeyValue(
        key,
        b"" if keys_only else decode_value(value),
        node.modified_index,
        node.created_index,
        0,
        _lease(node.expiration) if node.expiration else 0,
    )


def leaves(node: Node) -> Iterator[Node]:
    """Yield the keys of a tree, in no particular order."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each.dir:
            waiting += each.nodes
        else:
            yield each


def folders(node: Node) -> list[Node]:
    """Return the folders of a tree, each before those below it."""
    found = [node] if node.dir else []
    for each in found:
        found += [inner for inner in each.nodes if inner.dir]
    return found


def event_of(answer: Answer) -> Action:
    """Return the effect of a change that a watch received.

    Raises:
        CorruptStore: the change makes no sense.
    """
    node, before = answer.node, answer.prev_node
    if node is None or not node.modified_index:
        raise CorruptStore("the server sent a change without a node or an index")
    gone = answer.action in _DELETIONS
    if not gone and answer.action not in _PUTS:
        raise CorruptStore(f"the server sent a change of an unknown kind: {answer.action!r}")
    key, index = key_of(node.key), node.modified_index
    if node.dir and gone:
        return Action(index, lost_folder=node.key)
    if key is None or (node.dir and (before is None or before.dir)):
        return Action(index)
    return Action(index, _event(key, node, None if before is None or before.dir else before, gone))


def _event(key: str, node: Node, before: Node | None, gone: bool) -> WatchEvent:
    previous = None if before is None else kv_of(before, key)
    if before is not None and (
        before.key != node.key or before.modified_index >= node.modified_index
    ):
        raise CorruptStore(f"the server sent a change of {key!r} with a wrong previous node")
    if gone or node.dir:  # a folder that replaces a key
        if previous is None:
            raise CorruptStore(f"the server sent a deletion of {key!r} without the deleted value")
        deleted = KeyValue(key, b"", node.modified_index)
        return WatchEvent(WatchEventType.DELETED, deleted, previous)
    kv = kv_of(node, key)
    if previous is None and kv.create_revision != kv.revision:
        raise CorruptStore(f"the server sent an update of {key!r} without the previous value")
    return WatchEvent(WatchEventType.PUT, kv, previous)
