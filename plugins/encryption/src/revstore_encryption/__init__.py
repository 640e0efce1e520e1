"""Encryption at rest, as kube-apiserver does it: the same configuration file, the same stored
bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from revstore.hooks import DoctorCheck, TransformerFactory, hookimpl

if TYPE_CHECKING:
    from revstore.config import StorageConfig
    from revstore.transform import ResourceTransformers

__all__ = ["revstore_commands", "revstore_doctor", "revstore_transformers"]


@hookimpl
def revstore_transformers(register: Callable[[str, TransformerFactory], None]) -> None:
    """Register "encryption"."""
    register("encryption", _open)


@hookimpl
def revstore_doctor(config: StorageConfig) -> Iterable[DoctorCheck]:
    """Check the file of keys, and that the KMS plugins in it answer."""
    from revstore_encryption._doctor import checks

    return checks(config)


@hookimpl
def revstore_commands(cli: Any) -> None:
    """Add ``revstore encryption``."""
    from revstore_encryption._command import command

    cli.add_command(command)


def _open(config: StorageConfig) -> ResourceTransformers:
    from revstore_encryption._reload import open_transformers

    return open_transformers(config)
