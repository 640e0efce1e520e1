"""Keys as etcd v2 paths, and back.

The keys of v2 are paths: the server cleans them, hides segments with a leading "_", and cannot keep
an empty segment. An ordinary key is its own path, so that other clients find it. In other keys, the
segments that the server would change or hide are written with "%":

========================= ==============================
segment                   is written as
========================= ==============================
empty                     "%", and "%=" at the end
".", ".."                 "%2E", "%2E."
with a leading "_"        "%5F" and the rest
with "%" in it            "%25" for each
========================= ==============================

A key without a leading "/" is kept under the segment "%-". No two keys share a path. A path that
belongs to no key is foreign.
"""

from __future__ import annotations

import functools
from urllib.parse import quote

__all__ = ["key_of", "path_of", "prefix_folder", "url_of"]

_RELATIVE = "%-"
_EMPTY = "%"
# A different name, so that "a/" and "a//b" do not need a key and a folder in one place.
_EMPTY_END = "%="


def _segment(name: str) -> str:
    if not name:
        return _EMPTY
    name = name.replace("%", "%25")
    if name[0] == "_":
        return "%5F" + name[1:]
    return "%2E" + name[1:] if name in (".", "..") else name


@functools.lru_cache(4096)
def path_of(key: str) -> str:
    """Return where ``key`` is kept: "/" and segments."""
    root, names = ("", key[1:]) if key[0] == "/" else (f"/{_RELATIVE}", key)
    *folders, last = names.split("/")
    return "/".join([root, *map(_segment, folders), _segment(last) if last else _EMPTY_END])


def prefix_folder(prefix: str) -> str:
    """Return the lowest folder that holds every key that starts with ``prefix``."""
    if not prefix:
        return "/"
    above = prefix[: prefix.rfind("/") + 1]
    # A last segment of any name, cut off again: "" alone would be an empty segment.
    return path_of(above + "x")[:-2] or "/"


def key_of(path: str) -> str | None:
    """Return the key that is kept at ``path``; None if it is foreign."""
    if "%" not in path:
        return path
    segments = path[1:].split("/")
    relative = segments[0] == _RELATIVE and len(segments) > 1
    names = [
        ""
        if each in (_EMPTY, _EMPTY_END)
        else each.replace("%5F", "_").replace("%2E", ".").replace("%25", "%")
        for each in segments[relative:]
    ]
    key = "/".join(names) if relative else "/" + "/".join(names)
    return key if key and path_of(key) == path else None


def url_of(path: str) -> str:
    """Return the path of requests about ``path``."""
    return "/v2/keys" + quote(path, safe="/~-._:@")
