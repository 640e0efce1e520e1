"""Errors of values that cannot be decrypted."""

from __future__ import annotations

__all__ = ["Undecryptable"]


class Undecryptable(ValueError):
    """A stored value cannot be decrypted. The text contains no part of the value.

    A storage chains it as the cause of ``CorruptObject``, which names the object's key.
    """
