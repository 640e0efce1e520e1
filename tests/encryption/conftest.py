"""Keys, files of keys, and stores that use them."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from revstore.config import StorageConfig

SECRET = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(100, 132))).decode()


def provider(kind: str, *keys: tuple[str, str]) -> dict[str, Any]:
    """An entry of ``providers``: its keys by name and secret."""
    if kind == "identity":
        return {kind: {}}
    return {kind: {"keys": [{"name": name, "secret": secret} for name, secret in keys]}}


def document(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> Any:
    """An EncryptionConfiguration with one entry."""
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": list(providers)}],
    }


def save(path: Path, content: Any) -> Path:
    """Replace the file, as an editor does."""
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    new.chmod(0o600)
    os.replace(new, path)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Callable[..., StorageConfig]:
    """Writes a file of keys, and returns the configuration of a store that uses it."""

    def made(content: Any, **fields: Any) -> StorageConfig:
        path = save(tmp_path / "encryption.yaml", content)
        options = {"config": str(path)}
        return StorageConfig(
            **{"type": "memory", **fields}, transformer="encryption", transformer_options=options
        )

    return made
