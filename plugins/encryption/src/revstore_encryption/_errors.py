"""Why a stored value cannot be decrypted, in words that name the provider and the key."""

from __future__ import annotations

__all__ = ["Undecryptable"]


class Undecryptable(ValueError):
    """A stored value cannot be decrypted. The text holds nothing of the value.

    A storage raises it as the cause of ``CorruptObject``, which names the object's key.
    """
