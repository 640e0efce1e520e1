"""Fields in stored lists that a class does not know."""

from __future__ import annotations

import copy
from typing import Any

from revstore.codec._json import Misfit, encode_json, seen

__all__ = ["merge_items"]


def merge_items(
    item: Any, old: list[Any], new: list[Any], *, key: str, unordered: bool
) -> list[Any]:
    """Return ``new``, a list of the shape ``item``, with the unknown fields of the items of
    ``old``.

    Items correspond by their key if the list has one, else by their position if the item is
    otherwise unchanged.

    Raises:
        Misfit: an item with unknown fields was changed, moved or removed, and the list has no key.
    """
    by_key = {_key(each, key): each for each in old} if key else {}
    taken = {_key(each, key) for each in new}
    # Two items with the same key, or without one, are distinguished by their place.
    if key and len(by_key) == len(old) and None not in by_key and len(taken) == len(new):
        return [
            item.merge(by_key[_key(each, key)], each) if _key(each, key) in by_key else each
            for each in new
        ]
    places = {encode_json([each]): at for at, each in enumerate(new)} if unordered else {}
    for at, before in enumerate(old):
        known, unknown = _known_part(item, before)
        if not unknown:
            continue
        place = places.get(encode_json([known]), -1) if unordered else at
        after = new[place] if 0 <= place < len(new) else None
        if after is None or encode_json([after]) != encode_json([known]):
            raise Misfit(
                known,
                "the item unchanged and in its place: it is stored with fields that the class "
                "does not know, and a changed list does not tell which item they belong to; give "
                'the list a key, such as attrs.field(metadata={"list_key": "name"})',
            ).under(at)
        new[place] = item.merge(before, after)
    return new


def _known_part(item: Any, stored: Any) -> tuple[Any, bool]:
    """Return what a class makes of a stored item, and whether it left something out."""
    before, seen.unknown = seen.unknown, False
    try:
        return item.encode(item.decode(copy.deepcopy(stored))), seen.unknown
    finally:
        seen.unknown = before


def _key(value: Any, name: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    return (type(found), found) if isinstance(found, (str, int)) else None
