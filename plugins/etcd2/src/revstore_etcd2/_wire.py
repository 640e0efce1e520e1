"""The JSON of the v2 keys API, and the values in it.

v2 holds text only. A value that is UTF-8 is kept as it is; any other, and one that begins with the
mark itself, as the mark and base64. Text with the mark that is not base64 is somebody else's, and
is taken as it stands.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterator

import msgspec

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
    "kv_of",
    "leaves",
]

_MARK = "revstore/base64:"
_BYTES_MARK = _MARK.encode()
_DELETIONS = frozenset({"delete", "compareAndDelete", "expire"})
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Node(msgspec.Struct, rename="camel", gc=False):
    """A key, or with ``dir`` a folder."""

    key: str = "/"
    value: str = ""
    dir: bool = False
    modified_index: int = 0
    created_index: int = 0
    expiration: str = ""
    ttl: int = 0
    nodes: list[Node] = []


class Answer(msgspec.Struct, rename="camel"):
    """What the server answers: a node and what was there before, or an error."""

    action: str = ""
    node: Node | None = None
    prev_node: Node | None = None
    error_code: int = 0
    message: str = ""
    cause: str = ""
    index: int = 0


class Action(msgspec.Struct):
    """A change of the store at ``index``. ``event`` is what it did to a key, if to one;
    ``lost_folder`` is a folder that went away with whatever was in it."""

    index: int
    event: WatchEvent | None = None
    lost_folder: str = ""


_answers = msgspec.json.Decoder(Answer)


def decode_answer(body: bytes) -> Answer:
    """``CorruptStore`` if it is not the JSON of the API."""
    try:
        return _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptStore(f"the server's answer cannot be read: {error}") from error


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
        except (binascii.Error, ValueError):
            return text.encode()
    return text.encode()


def _lease(expiration: str) -> int:
    """The moment of expiry in nanoseconds since 1970; it is the same in every answer."""
    if not expiration:
        return 0
    whole, _, rest = expiration.partition(".")
    digits = rest.rstrip("Z")[:9]
    moment = datetime.datetime.fromisoformat(whole.rstrip("Z")[:19] + "+00:00")
    seconds = (moment - _EPOCH) // datetime.timedelta(seconds=1)
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0") if digits.isdigit() else 0) or 1


def kv_of(node: Node, key: str, *, keys_only: bool = False) -> KeyValue:
    return KeyValue(
        key,
        b"" if keys_only else decode_value(node.value),
        node.modified_index,
        node.created_index,
        0,
        _lease(node.expiration) if node.expiration else 0,
    )


def leaves(node: Node) -> Iterator[Node]:
    """The keys of a tree, in no particular order."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each.dir:
            waiting += each.nodes
        else:
            yield each


def event_of(answer: Answer) -> Action:
    """What happened, of a change that a watch was told of."""
    node, before = answer.node, answer.prev_node
    if node is None:
        raise CorruptStore("the server told of a change of nothing")
    key = key_of(node.key)
    gone = answer.action in _DELETIONS
    if node.dir and gone:
        return Action(node.modified_index, lost_folder=node.key)
    previous = None if before is None or before.dir or key is None else kv_of(before, key)
    if key is None or (node.dir and previous is None):
        return Action(node.modified_index)
    if gone or node.dir:  # a folder that takes the place of a key
        if previous is None:
            return Action(node.modified_index)
        deleted = KeyValue(key, b"", node.modified_index)
        return Action(node.modified_index, WatchEvent(WatchEventType.DELETED, deleted, previous))
    return Action(node.modified_index, WatchEvent(WatchEventType.PUT, kv_of(node, key), previous))
