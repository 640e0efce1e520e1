"""Counting stored values by the key that encrypted them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import attrs

from revstore import kinds
from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import Unreachable
from revstore.factory import StorageFactory
from revstore.plugins import open_transformer
from revstore.raising import let_out, text_of
from revstore.transform import Transformer
from revstore.values import KeyValue
from revstore_encryption._ciphers import ENCRYPTED
from revstore_encryption._configuration import read_configuration
from revstore_encryption._reload import read_options

__all__ = ["Row", "Status", "Unreadable", "status"]

_PAGE = 500


@attrs.frozen(order=True)
class Row:
    """A resource, and what encrypted some of its values: "identity" for plain text. ``key`` is the
    name of the key, or of the KMS plugin."""

    resource: str
    provider: str
    key: str


@attrs.frozen
class Unreadable:
    """A value that cannot be decrypted: not now, since a KMS is unavailable, or by no key."""

    key: str
    reason: str
    unavailable: bool


@attrs.frozen
class Status:
    """The counts of stored values, and of those that are stale, by what encrypted them; ``unused``:
    keys of the files, of which no value was found."""

    values: dict[Row, int]
    stale: dict[Row, int]
    unused: tuple[tuple[str, str, str], ...]


def status(factory: StorageFactory, unreadable: Callable[[Unreadable], None]) -> Status:
    """Decrypt each stored value once, and count it; call ``unreadable`` for those that cannot be
    decrypted.

    Pages are read one after another, each as the store is then.
    """
    config = factory.config
    values: Counter[Row] = Counter()
    stale: Counter[Row] = Counter()
    used: dict[str, set[tuple[str, str]]] = {}
    for each in {config, *(config.for_resource(name) for name in config.overrides)}:
        used.setdefault(_file_of(each), set())
    for prefix in factory.stored_resources():
        name = kinds.for_prefix(prefix, config.resources).qualified
        own = config.for_resource(name)
        transformer = open_transformer(own, name)
        keys = used[_file_of(own)]
        root = f"{own.prefix.rstrip('/')}{prefix}/"
        for kv in _pages(factory.backend(name), root):
            provider, key = _written_by(kv.value)
            keys.add((provider, key))
            row = Row(name, provider, key)
            values[row] += 1
            found = _is_stale(transformer, kv)
            if isinstance(found, Unreadable):
                unreadable(found)
            else:
                stale[row] += found
    unused = [
        (path, provider, key)
        for path, keys in sorted(used.items())
        for provider, key in _configured(path)
        if (provider, key) not in keys
    ]
    return Status(dict(sorted(values.items())), dict(stale), tuple(unused))


def _file_of(config: StorageConfig) -> str:
    return read_options(config)[0] if config.transformer == "encryption" else ""


def _configured(path: str) -> Iterator[tuple[str, str]]:
    """Yield the provider and the name of each key of a file, once."""
    seen = dict.fromkeys(
        (provider.kind, name)
        for chain in (read_configuration(path).resources.values() if path else ())
        for provider in chain
        for name in ([provider.kms.name] if provider.kms else [key.name for key in provider.keys])
    )
    yield from seen


def _pages(backend: Backend, root: str) -> Iterator[KeyValue]:
    start, more = root, True
    while more:
        page = backend.list(root, start=start, limit=_PAGE)
        yield from page.kvs
        more = page.more and bool(page.kvs)
        if more:
            start = page.kvs[-1].key + "\0"


def _written_by(value: bytes) -> tuple[str, str]:
    if not value.startswith(ENCRYPTED):
        return "identity", ""
    parts = value[len(ENCRYPTED) : 1024].split(b":", 3)
    kind, name = parts[0], parts[2] if len(parts) > 3 else b""
    return kind.decode(errors="replace"), name.decode(errors="replace")


def _is_stale(transformer: Transformer, kv: KeyValue) -> bool | Unreadable:
    if kv.damaged:
        return Unreadable(kv.key, "the stored value does not match its checksum", False)
    try:
        return transformer.transform_from_storage(kv.value, kv.key.encode())[1]
    except Exception as error:  # noqa: BLE001 - a transformer may raise any
        let_out(error)
        return Unreadable(kv.key, text_of(error), isinstance(error, Unreachable))
