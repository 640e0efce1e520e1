"""The plugin of the codecs and transformers that come with revstore."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from revstore.hooks import CodecFactory, TransformerFactory, hookimpl

if TYPE_CHECKING:
    from revstore.config import StorageConfig

__all__ = ["revstore_codecs", "revstore_transformers"]


@hookimpl
def revstore_codecs(register: Callable[[str, CodecFactory], None]) -> None:
    """Register "json"."""
    register("json", _json)


@hookimpl
def revstore_transformers(register: Callable[[str, TransformerFactory], None]) -> None:
    """Register "identity"."""
    register("identity", _identity)


def _json(object_type: type[Any]) -> Any:
    from revstore.codec import json_codec

    return json_codec(object_type)


def _identity(config: StorageConfig) -> Any:
    from revstore.transform import IdentityTransformer

    # Options without `transformer = ...` must not end in plain text.
    config.typed_options({}, "transformer 'identity'", "transformer_options")
    return IdentityTransformer()
