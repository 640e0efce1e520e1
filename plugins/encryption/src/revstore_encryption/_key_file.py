"""Writing files of keys: a new one, and an existing one with another first key."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs
import yaml

from revstore.errors import ConfigError
from revstore.manifests import reads_as_string
from revstore.raising import ignoring, let_out
from revstore_encryption._configuration import (
    API_VERSION,
    KEY_SIZES,
    KIND,
    configuration_of,
    load_document,
)
from revstore_encryption._transformer import Transformers

__all__ = ["Change", "init", "rotate"]

#: Bytes of a new key: the largest that each provider takes.
_SIZE = 32
_NUMBERED = re.compile(r"key([0-9]{1,9})")


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader of YAML would not read as a string, such as the name 0o17."""


def _represent_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if reads_as_string(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)


@attrs.frozen
class Change:
    """What ``rotate`` did to one entry of the file: the name of the key that it added or moved, or
    "" if the entry stays, and then the reason."""

    resources: tuple[str, ...]
    provider: str
    key: str = ""
    reason: str = ""


def init(path: str, provider: str, resources: Sequence[str]) -> None:
    """Write a new file with one fresh key of ``provider`` for ``resources``. Values in plain text
    stay readable. Only the owner can read the file.

    Raises:
        ConfigError: the provider's library is not installed, a resource is not valid, or the file
            exists.
        OSError: the file cannot be written.
    """
    entry = {
        "resources": list(resources),
        "providers": [{provider: {"keys": [_fresh("key1")]}}, {"identity": {}}],
    }
    data = _text({"apiVersion": API_VERSION, "kind": KIND, "resources": [entry]})
    Transformers(configuration_of(path, data))
    target = Path(path)
    name = f".{target.name}.{secrets.token_hex(8)}.new"  # another process may do the same
    with _new_file(target.with_name(name), 0o600, data) as new:
        try:
            # Unlike a rename, a link never replaces a file.
            os.link(new, target)
        except FileExistsError as error:
            let_out(error)
            message = f"{path} exists: `revstore encryption rotate` adds a key to it"
            raise ConfigError("file", path, "a new file", message=message) from None
    _sync_folder(target)


def rotate(
    path: str, *, resource: str = "", behind: bool = False, front: str = ""
) -> tuple[Change, ...]:
    """Add a fresh first key to the first provider of each entry of the file, and replace the file
    in one step. Return what was done to each entry.

    With ``behind``, the new key becomes the second one: it can decrypt, but does not encrypt yet.
    With ``front``, no key is added: the one of this name is moved to the front. ``resource``
    limits this to the entry that lists this resource. The file's comments are lost; its mode and
    its owner stay.

    Raises:
        ConfigError: the file is not valid, others can write it, another process is replacing it
            or has changed it, or there is nothing to rotate.
        OSError: the file cannot be replaced.
    """
    # A link stays a link: its target is replaced.
    target = Path(os.path.realpath(path))
    with _locked(target) as stream:
        before = os.fstat(stream.fileno())
        data = stream.read()
        if before.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            message = f"{path}: others can write it: chmod go-w, and check its keys"
            raise ConfigError("file", path, "a file that only its owner can write", message=message)
        configuration_of(path, data)
        document = load_document(path, data)
        changes = tuple(_changes(path, document, resource, behind=behind, front=front))
        if not any(each.key for each in changes):
            why = "; ".join(f"{', '.join(each.resources)}: {each.reason}" for each in changes)
            message = f"{path}: nothing to rotate: {why or f'no entry lists {resource!r}'}"
            raise ConfigError("file", path, "an entry with keys", message=message)
        text = _text(document)
        Transformers(configuration_of(path, text))
        # Always the same name, so that what a killed process leaves is removed by the next.
        new_path = target.with_name(f".{target.name}.new")
        with ignoring(FileNotFoundError):
            os.unlink(new_path)
        with _new_file(new_path, stat.S_IMODE(before.st_mode), text, owner=before) as new:
            if _identity(os.stat(target)) != _identity(before):
                message = f"{path}: it was changed meanwhile; try again"
                raise ConfigError("file", path, "an unchanged file", message=message)
            os.replace(new, target)
        _sync_folder(target)
    return changes


def _changes(
    path: str, document: Any, resource: str, *, behind: bool, front: str
) -> Iterator[Change]:
    names = {
        key["name"]
        for entry in document["resources"]
        for provider in entry["providers"]
        for inner in provider.values()
        for key in (inner or {}).get("keys", ())
    }
    done: dict[int, str] = {}  # entries may share one list by an alias
    for entry in document["resources"]:
        resources = tuple(entry["resources"])
        if resource and resource not in resources:
            continue
        ((kind, inner),) = (
            (kind, inner) for kind, inner in entry["providers"][0].items() if inner is not None
        )
        if kind not in KEY_SIZES:
            reason = "the plugin rotates its own keys" if kind == "kms" else "it writes plain text"
            yield Change(resources, kind, reason=f"{kind}: {reason}")
            continue
        keys = inner["keys"]
        if id(keys) in done:
            yield Change(resources, kind, done[id(keys)])
            continue
        if front:
            found = [each for each in keys if each["name"] == front]
            if not found:
                yield Change(resources, kind, reason=f"{kind}: no key is named {front!r}")
                continue
            keys.remove(found[0])
            keys.insert(0, found[0])
            done[id(keys)] = front
        else:
            name = _next_name(names)
            names.add(name)
            keys.insert(1 if behind else 0, _fresh(name))
            done[id(keys)] = name
        yield Change(resources, kind, done[id(keys)])


def _next_name(names: set[str]) -> str:
    """Return a name that no key of the file has: one more than the highest number."""
    numbers = [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))]
    return f"key{max(numbers, default=0) + 1}"


def _fresh(name: str) -> dict[str, str]:
    return {"name": name, "secret": base64.b64encode(secrets.token_bytes(_SIZE)).decode()}


def _text(document: Any) -> bytes:
    # Not to_yaml: providers that entries share by an alias stay shared.
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False)
    return text.encode()


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[IO[bytes]]:
    """Open the file, and keep other processes from replacing it by ``rotate``.

    Of two that add a key at once, one would lose the key that the other has added, with which
    values may be encrypted by then. One that has opened the file of before is refused when it is
    about to replace the new one.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(open(target, "rb"))
        except OSError as error:
            let_out(error)
            message = f"{target}: cannot be read: {error.strerror}"
            raise ConfigError("file", str(target), "a readable file", message=message) from error
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            let_out(error)
            message = f"{target}: another process is changing it; try again"
            raise ConfigError("file", str(target), "an unused file", message=message) from None
        yield stream


@contextlib.contextmanager
def _new_file(
    path: Path, mode: int, data: bytes, *, owner: os.stat_result | None = None
) -> Iterator[Path]:
    """Write ``data`` to the new file ``path``, on the disk; yield the path, and remove what is left
    of it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(path, flags, 0o600), "wb") as stream:
            file = stream.fileno()
            if owner is not None:
                current = os.fstat(file)
                if (current.st_uid, current.st_gid) != (owner.st_uid, owner.st_gid):
                    os.fchown(file, owner.st_uid, owner.st_gid)
            os.fchmod(file, mode)
            stream.write(data)
            stream.flush()
            os.fsync(file)
        yield path
    finally:
        with ignoring(FileNotFoundError):
            os.unlink(path)


def _sync_folder(target: Path) -> None:
    """Make the new name of the file durable."""
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
