"""The fields that a registry fills in, as pure functions.

They take and return objects of both shapes that ``revstore.objects`` knows, and change none. An
object that is to be stored has no resource version: the storage adds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revstore.codec import evolve, json_codec
from revstore.objects import metadata_value, with_metadata

__all__ = ["as_new", "as_successor", "built_in"]

# Never stored, so they are not compared.
_NOT_STORED = {"resource_version": None, "self_link": None}


def as_new(obj: Any, *, namespace: str | None, uid: str, now: str) -> Any:
    """Return ``obj`` as a new object: its own uid, creation time and generation are dropped."""
    return _bare(
        obj,
        uid=uid,
        creation_timestamp=now,
        generation=1,
        **({} if namespace is None else {"namespace": namespace}),
    )


def as_successor(
    obj: Any, current: Any, namespace: str | None, encode: Callable[[Any], bytes]
) -> Any:
    """Return ``obj`` as the replacement of ``current``, or ``current`` if nothing differs.

    The uid and creation time stay. The generation rises by one if anything but metadata and status
    differs. Objects are equal if ``encode`` returns the same bytes: 1 in a float field is 1.0, but
    the same moment in another time zone is another value. It raises what ``encode`` raises.
    """
    generation = metadata_value(current, "generation")
    known = generation if isinstance(generation, int) else 0
    new = _bare(
        obj,
        **({} if namespace is None else {"namespace": namespace}),
        **{name: _kept(current, name) for name in ("uid", "creation_timestamp")},
        generation=_kept(current, "generation"),
    )
    old = _bare(current)
    stored = encode(old)
    if encode(new) == stored:
        return current
    if encode(_with_content(old, new)) == stored:
        return new
    return with_metadata(new, generation=known + 1)


def built_in(obj: Any) -> bytes:
    """Return the bytes of an object by the built-in codec of its type."""
    data: bytes = json_codec(type(obj)).encode(obj)
    return data


def _with_content(old: Any, new: Any) -> Any:
    """Return ``old`` with everything of ``new`` except metadata and status."""
    kept = ("metadata", "status")
    if isinstance(old, dict):
        content = {name: value for name, value in new.items() if name not in kept}
        return content | {name: old[name] for name in kept if name in old}
    return evolve(new, **{name: getattr(old, name) for name in kept if hasattr(old, name)})


def _bare(obj: Any, **changes: Any) -> Any:
    if isinstance(obj, dict):
        return with_metadata(obj, **_NOT_STORED, **changes)
    return with_metadata(obj, resource_version="", **changes)


def _kept(current: Any, name: str) -> Any:
    """Return a field of the stored object; if it is absent, what its shape has for an absent
    field."""
    return metadata_value(current, name) or (None if isinstance(current, dict) else _ABSENT[name])


_ABSENT = {"uid": "", "creation_timestamp": "", "generation": 0}
