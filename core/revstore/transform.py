"""Value transformers: they change the encoded bytes between codec and backend, for example by
encryption at rest (storage/value.Transformer)."""

from __future__ import annotations

from typing import Protocol

__all__ = ["IdentityTransformer", "ResourceTransformers", "Transformer", "concealed", "conceals"]

_ENCRYPTED_PREFIX = b"k8s:enc:"


class Transformer(Protocol):
    """A transformer of values, called from many threads and never under a lock.

    ``context`` is the object's physical key in UTF-8. A cipher authenticates it, so that a value
    that was moved to another key cannot be decrypted. ``Unreachable`` means that it cannot be
    transformed now, for example while a server of keys is down: storages raise it to the caller,
    and never treat the object as corrupt. Any other exception means that the value cannot be
    transformed.
    """

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        """Return the plain bytes, and whether they are *stale*: to be rewritten even if equal,
        since they were written with an older key."""
        ...

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        """Return the bytes to store."""
        ...


class ResourceTransformers(Protocol):
    """The transformers of a plugin that has a different one for each resource."""

    def for_resource(self, resource: str) -> Transformer:
        """Return the transformer of a resource such as "secrets" or "deployments.apps"."""
        ...


class IdentityTransformer:
    """Stores bytes unchanged; refuses to read values of an encrypting transformer."""

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        if data.startswith(_ENCRYPTED_PREFIX):
            raise ValueError("the value is encrypted, but no transformer is configured")
        return data, False

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        return data


def conceals(transformer: Transformer) -> bool:
    """Return whether the plain bytes may be a secret, as they are not what the store holds."""
    return not isinstance(getattr(transformer, "traced", transformer), IdentityTransformer)


def concealed(error: Exception) -> str:
    """Return what may be said about an error that plain bytes have caused: only the place, since a
    codec, a validator or an upgrade may quote them."""
    path = getattr(error, "path", "")
    named = isinstance(path, str) and path
    reason = f"{path}: a value that does not fit its field" if named else type(error).__name__
    return f"it was decrypted, and cannot be decoded: {reason}"
