"""Checks of keys: those that backends store, and those of objects. (KEY-1 to KEY-8)"""

from __future__ import annotations

from revstore.errors import InvalidKey

__all__ = ["check_key", "check_object_key", "is_segment"]


def check_key(key: str) -> str:
    """Return ``key`` if a backend may store it.

    Raises:
        InvalidKey: it is empty, not a ``str``, not valid UTF-8, or has a NUL.
    """
    if not isinstance(key, str) or not key:
        raise InvalidKey(str(key), "a non-empty str")
    if "\0" in key:
        raise InvalidKey(key, "a key without NUL characters")
    if not _is_utf8(key):
        shown = key.encode("utf-8", "backslashreplace").decode()
        raise InvalidKey(shown, "a key that is valid UTF-8")
    return key


def is_segment(name: object) -> bool:
    """Return whether ``name`` can be a segment of an object's key, as names and namespaces are.

    It has no "/" and no "%", is neither "." nor "..", as in Kubernetes'
    path.IsValidPathSegmentName; it is not blank, as a command takes a blank name for a variable
    that is not set; and a backend may store it. (KEY-9)
    """
    return (
        isinstance(name, str)
        and name.strip() != ""
        and name not in (".", "..")
        and {"/", "%", "\0"}.isdisjoint(name)
        and _is_utf8(name)
    )


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_object_key(key: str, root: str, *, prefix: bool = False) -> str:
    """Return ``key`` if it can be the key of an object below ``root``, such as "/pods/".

    With ``prefix`` it is the prefix of such keys, and is returned with a slash at its end.

    Raises:
        InvalidKey: it is empty, is not below ``root``, has a segment that is empty, "." or "..",
            or no backend may store it.
    """
    if not isinstance(key, str):
        # Checked first, since a slash cannot be appended to it.
        raise InvalidKey(str(key), "a str") if prefix else _empty(key, root)
    if key in ("", "/"):
        raise _empty(key, root)
    whole = f"{key}/" if prefix and not key.endswith("/") else key
    if "/." in whole and not {".", ".."}.isdisjoint(whole.split("/")):
        raise InvalidKey(key, 'no segment "." or ".."', message=f"invalid key: {key!r}")
    if not whole.startswith(root):
        raise InvalidKey(
            key,
            f"one below {root!r}",
            message=f"invalid key: {key!r} lacks resource prefix {root!r}",
        )
    # No continue token can name such a key (LIST-15): a list in pages would not get past it.
    if "//" in whole:
        raise InvalidKey(key, "no empty segment", message=f"invalid key: {key!r}")
    return check_key(whole)


def _empty(key: object, root: str) -> InvalidKey:
    return InvalidKey(str(key), f"one below {root!r}", message=f"empty key: {key!r}")
