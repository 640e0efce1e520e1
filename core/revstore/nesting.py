"""The limit of nesting in stored JSON: a fixed depth, lower than the interpreter's own."""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "MAX_LIST_DEPTH", "TOO_DEEP", "check_nesting"]

#: The most levels of objects and lists that a stored object may have, as in a manifest.
MAX_DEPTH = 100
#: The most levels that a manifest may have: those of an object, and of the List that it is an item
#: of.
MAX_LIST_DEPTH = MAX_DEPTH + 2

TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

_TO_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_QUOTE_OR_BRACKET = bytes(set(range(256)) - set(b'"[]{}'))


def check_nesting(data: bytes) -> None:
    """Check that JSON is nested no more than ``MAX_DEPTH`` levels deep, at the speed of C.

    Most objects have too few brackets to be examined. Text that is not JSON may pass.

    Raises:
        ValueError: it is nested more deeply.
    """
    # For few brackets this is four times as fast as count.
    others = data.replace(b"{", b"").replace(b"[", b"")
    if len(data) - len(others) <= MAX_DEPTH:
        return
    # Without escaped quotes, quotes only open and close strings.
    if data.rfind(b'\\"') >= 0:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = data.translate(_TO_ONE_KIND, _NO_QUOTE_OR_BRACKET).replace(b'""', b"")
    if b'"' in brackets:  # brackets in strings
        brackets = b"".join(brackets.split(b'"')[::2])
    # Each round removes the innermost level; each level that is left needs a pair.
    for level in range(MAX_DEPTH):
        if len(brackets) <= 2 * (MAX_DEPTH - level):
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ValueError(TOO_DEEP)
