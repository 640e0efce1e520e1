"""Ranges: which keys a request wants, in which order, and how many there are."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import attrs

from revstore.values import KeyValue
from revstore_serve._errors import EMPTY_KEY, INVALID_SORT, Refused
from revstore_serve._keys import KeyRange, spans, to_bytes, to_text
from revstore_serve._proto import message
from revstore_serve._views import View
from revstore_serve._wire import Keyed, key_values, value_of

__all__ = [
    "check_range",
    "count_keys",
    "fill_range",
    "find",
    "find_range",
    "has_bounds",
    "kv_message",
    "range_bytes",
]

_KeyValueMessage = message("KeyValue", "mvccpb")
_RangeResponse = message("RangeResponse")

# The tag of the field "kvs".
_KVS = b"\x12"

# More keys than any store has. etcd takes limits up to 2^63 - 1; here one more key is asked for.
_ALL = 1 << 62

_NONE, _ASCEND, _DESCEND = range(3)
_KEY, _VERSION, _CREATE, _MOD, _VALUE = range(5)

_SORT_BY: dict[int, Callable[[Keyed], Any]] = {
    _KEY: lambda keyed: keyed[0],
    _VERSION: lambda keyed: keyed[1].version,
    _CREATE: lambda keyed: keyed[1].create_revision,
    _MOD: lambda keyed: keyed[1].revision,
    _VALUE: lambda keyed: keyed[1].value,
}


def check_range(request: Any) -> None:
    """Check a range before the store is read.

    Raises:
        Refused: it has no key, or a sort option that does not exist.
    """
    if not request.key:
        raise Refused(*EMPTY_KEY)
    if request.sort_order not in (_NONE, _ASCEND, _DESCEND) or request.sort_target not in _SORT_BY:
        raise Refused(*INVALID_SORT)


def find(
    view: View, keys: KeyRange, limit: int = 0, *, keys_only: bool = False
) -> tuple[list[Keyed], int]:
    """Return the keys of a range in order, at most ``limit`` (0: all), and how many there are."""
    if keys.single:
        kv = view.get(to_text(keys.first))
        return ([] if kv is None else [(keys.first, kv)]), int(kv is not None)
    if keys.empty:
        return [], count_keys(view, keys)
    plain, escaped = spans(keys)
    found: list[Keyed] = []
    total = 0
    for span in plain:
        kvs, count = view.page(span, limit, keys_only=keys_only)
        found += [(kv.key.encode(), kv) for kv in kvs]
        total += count
    kvs, count = view.page(escaped, limit, keys_only=keys_only)
    if kvs:
        others = [(to_bytes(kv.key), kv) for kv in kvs]
        found = list(heapq.merge(found, others, key=lambda keyed: keyed[0]))
    return (found[:limit] if limit else found), total + count


def count_keys(view: View, keys: KeyRange) -> int:
    """Return how many keys a range has."""
    if keys.single or keys.empty:
        # An empty range is read as well, since its revision may be impossible.
        kv = view.get(to_text(keys.first))
        return int(kv is not None and not keys.empty)
    plain, escaped = spans(keys)
    return sum(view.count(span) for span in (*plain, escaped))


@attrs.frozen
class _Filters:
    """The bounds that a request sets to revisions; 0 means no bound."""

    min_mod: int
    max_mod: int
    min_create: int
    max_create: int

    @classmethod
    def of(cls, request: Any) -> _Filters:
        return cls(
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )

    def __bool__(self) -> bool:
        return any((self.min_mod, self.max_mod, self.min_create, self.max_create))

    def keep(self, kv: KeyValue) -> bool:
        return (
            (not self.min_mod or kv.revision >= self.min_mod)
            and (not self.max_mod or kv.revision <= self.max_mod)
            and (not self.min_create or kv.create_revision >= self.min_create)
            and (not self.max_create or kv.create_revision <= self.max_create)
        )


def has_bounds(request: Any) -> bool:
    """Return whether a range is only of keys with certain revisions."""
    return bool(_Filters.of(request))


def find_range(view: View, request: Any) -> tuple[list[Keyed], int, bool]:
    """Return the answer to a range: its keys, how many there are without filters and limit, and
    whether the limit has cut some off."""
    keys = KeyRange.of(request.key, request.range_end)
    if request.count_only:
        return [], count_keys(view, keys), False
    limit = min(max(request.limit, 0), _ALL)
    filters = _Filters.of(request)
    whole = request.sort_order != _NONE or bool(filters)
    found, count = find(
        view,
        keys,
        0 if whole or not limit else limit + 1,
        keys_only=request.keys_only and request.sort_target != _VALUE,
    )
    if filters:
        found = [keyed for keyed in found if filters.keep(keyed[1])]
    # A target without an order sorts only the keys within the limit, as etcd does.
    if request.sort_order != _NONE or request.sort_target != _KEY:
        found.sort(key=_SORT_BY[request.sort_target], reverse=request.sort_order == _DESCEND)
    more = 0 < limit < len(found)
    return (found[:limit] if more else found), count, more


def kv_message(key: bytes, kv: KeyValue, *, keys_only: bool = False) -> Any:
    """Return a key and its stored value as etcd's message."""
    return _KeyValueMessage(
        key=key,
        create_revision=kv.create_revision,
        mod_revision=kv.revision,
        version=kv.version,
        value=b"" if keys_only else value_of(kv),
        lease=kv.lease,
    )


def fill_range(view: View, request: Any, response: Any) -> Any:
    """Fill in the answer to a range, without its header, and return it."""
    found, response.count, response.more = find_range(view, request)
    response.kvs.extend([kv_message(key, kv, keys_only=request.keys_only) for key, kv in found])
    return response


def range_bytes(view: View, request: Any) -> tuple[Any, list[bytes], list[Keyed]]:
    """Return the answer to a range, without its header and without keys, the keys as encoded
    fields, to be put after it, and the keys."""
    found, count, more = find_range(view, request)
    kvs = key_values(_KVS, found, keys_only=request.keys_only)
    return _RangeResponse(count=count, more=more), kvs, found
