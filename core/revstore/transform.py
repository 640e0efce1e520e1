"""Value transformers: what happens to encoded bytes between codec and backend, such as encryption
at rest (storage/value.Transformer)."""

from __future__ import annotations

from typing import Protocol

__all__ = ["IdentityTransformer", "Transformer"]

_ENCRYPTED_PREFIX = b"k8s:enc:"


class Transformer(Protocol):
    """``context`` is the object's physical key in UTF-8: authenticated data for a cipher, so that
    a value moved to another key does not open. Any exception means that the value cannot be
    transformed. Called from many threads, never under a lock."""

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        """The plain bytes, and whether they are *stale*: to be rewritten although equal, since
        they were written with an older key."""
        ...

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        """The bytes to store."""
        ...


class IdentityTransformer:
    """Stores bytes as they are; refuses to read what an encrypting transformer has written."""

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        if data.startswith(_ENCRYPTED_PREFIX):
            raise ValueError("the value is encrypted, but no transformer is configured")
        return data, False

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        return data
