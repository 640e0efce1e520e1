"""The fields that a registry fills in, as pure functions. (DECISIONS 21)

They take and give objects of both shapes that ``revstore.objects`` knows, and change none. An
object that is to be stored has no resource version: that is the storage's.
"""

from __future__ import annotations

from typing import Any

from revstore.codec import encode_json, json_codec
from revstore.objects import metadata_value, with_metadata

__all__ = ["as_new", "as_successor"]

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
    Raises ``InvalidObject`` for an object with a value that does not fit its field."""
    generation = metadata_value(current, "generation")
    known = generation if isinstance(generation, int) else 0
    new = _bare(
        obj,
        **({} if namespace is None else {"namespace": namespace}),
        **{name: _kept(current, name) for name in ("uid", "creation_timestamp")},
        generation=_kept(current, "generation"),
    )
    before, after = _plain(_bare(current)), _plain(new)
    if encode_json(after) == encode_json(before):
        return current
    if encode_json(_content(after)) == encode_json(_content(before)):
        return new
    return with_metadata(new, generation=known + 1)


def _plain(obj: Any) -> dict[str, Any]:
    """The object as it is stored, so that what makes no difference there makes none here: 1 in a
    float field is 1.0, but the same moment in another zone is another text."""
    found: dict[str, Any] = json_codec(type(obj)).to_json(obj)
    return found


def _bare(obj: Any, **changes: Any) -> Any:
    if isinstance(obj, dict):
        return with_metadata(obj, **_NOT_STORED, **changes)
    return with_metadata(obj, resource_version="", **changes)


def _kept(current: Any, name: str) -> Any:
    """A field of the stored object, in the way that its shape says that there is none."""
    return metadata_value(current, name) or (None if isinstance(current, dict) else _ABSENT[name])


_ABSENT = {"uid": "", "creation_timestamp": "", "generation": 0}


def _content(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("metadata", "status")}
