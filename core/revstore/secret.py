"""A string that must not be shown."""

from __future__ import annotations

from typing import Any

__all__ = ["Secret"]


class Secret:
    """A password or key that is not shown; ``str``, ``repr`` and ``format`` return ``***``.

    Two secrets are equal if they hold the same text. Pickling keeps the text: send a pickled Secret
    only where you would send the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._text,)
