"""The matching of keys with a watch or a range."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller

__all__ = ["key_matcher", "prefix_end"]


def key_matcher(key: str, *, recursive: bool) -> Callable[[str], bool]:
    """Return a function that says whether a watch covers a key.

    A watch covers all keys that start with ``key`` if it is ``recursive``, else ``key`` alone. The
    function is built into the interpreter, and so faster than any written in Python: a hub calls it
    for each watch and each event.
    """
    return methodcaller("startswith", key) if recursive else key.__eq__


def prefix_end(prefix: str) -> str:
    """Return the least key above all that start with ``prefix``, "" if there is none.

    The range from ``prefix`` up to but not including it holds exactly the keys with the prefix. The
    key has no surrogates, so it can be encoded.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return ""
    last = ord(stem[-1])
    return stem[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
