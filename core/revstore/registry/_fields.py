"""The fields that a registry fills in, as pure functions. (DECISIONS 21)

They take and give objects of both shapes that ``revstore.objects`` knows, and change none. An
object that is to be stored has no resource version: that is the storage's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from revstore.errors import InvalidObject
from revstore.objects import metadata_value, with_metadata

__all__ = ["as_new", "as_successor", "same"]

# Never stored, so that they make no difference.
_NOT_STORED = {"resource_version": None, "self_link": None}


def as_new(obj: Any, *, namespace: str | None, uid: str, now: str) -> Any:
    """``obj`` as the first of its name: its own uid, creation time and generation are dropped."""
    return _bare(
        obj,
        uid=uid,
        creation_timestamp=now,
        generation=1,
        **({} if namespace is None else {"namespace": namespace}),
    )


def as_successor(obj: Any, current: Any, namespace: str | None) -> Any:
    """``obj`` in the place of ``current``: its uid and creation time stay, its generation rises by
    one if anything but metadata and status differs. If nothing differs at all, ``current``.
    Raises ``InvalidObject`` for an object that is nested too deeply to compare."""
    generation = metadata_value(current, "generation")
    known = generation if isinstance(generation, int) else 0
    new = _bare(
        obj,
        **({} if namespace is None else {"namespace": namespace}),
        **{name: _kept(current, name) for name in ("uid", "creation_timestamp")},
        generation=_kept(current, "generation"),
    )
    old = _bare(current)
    try:
        if same(new, old):
            return current
        if same(_content(new), _content(old)):
            return new
    except RecursionError:
        raise InvalidObject(
            "object", type(obj).__name__, "one that is nested less deeply"
        ) from None
    return with_metadata(new, generation=known + 1)


def same(left: Any, right: Any) -> bool:
    """Whether both would be stored as the same bytes: a tuple is a list there, but 1 is neither
    True nor 1.0, which Python calls equal."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return len(left) == len(right) and all(
            key in right and same(value, right[key]) for key, value in left.items()
        )
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if attrs.has(type(left)) and type(left) is type(right):
        return same(_fields(left), _fields(right))
    return bool(left == right) and _number(left) == _number(right)


def _bare(obj: Any, **changes: Any) -> Any:
    if isinstance(obj, dict):
        return with_metadata(obj, **_NOT_STORED, **changes)
    return with_metadata(obj, resource_version="", **changes)


def _kept(current: Any, name: str) -> Any:
    """A field of the stored object, in the way that its shape says that there is none."""
    return metadata_value(current, name) or (None if isinstance(current, dict) else _ABSENT[name])


_ABSENT = {"uid": "", "creation_timestamp": "", "generation": 0}


def _content(obj: Any) -> dict[str, Any]:
    fields = obj if isinstance(obj, dict) else _fields(obj)
    return {name: value for name, value in fields.items() if name not in ("metadata", "status")}


def _fields(obj: Any) -> dict[str, Any]:
    return {field.name: getattr(obj, field.name) for field in attrs.fields(type(obj))}


def _number(value: Any) -> type | None:
    return next((kind for kind in (bool, int, float) if isinstance(value, kind)), None)
