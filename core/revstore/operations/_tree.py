"""A folder with one manifest for each object, and a file that says whether it is complete."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from revstore.errors import InvalidArgument
from revstore.operations._new_file import naming
from revstore.raising import let_out

__all__ = ["Tree", "file_name", "state_of"]

#: The file that marks a folder as an export. kubectl and ``apply`` pass over it.
_STATE = ".revstore-export"
#: The file that names all manifests that an export wrote to the folder, and perhaps more.
_LIST = ".revstore-export.files"
_SUFFIX = ".yaml"

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
#: Names that Windows reserves, whatever follows a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
#: Bytes that most file systems allow in a name, less those of suffixes.
_LONGEST = 200


def file_name(text: str, *, folder: bool = False) -> str:
    """Return a name for a file or a folder, a different one for each ``text``, even where upper and
    lower case are one. Lower case, digits, "-" and "." stay, other bytes are written as "%41".

    The name of a folder has no dot, so that no file has it.
    """
    plain = _PLAIN - {"."} if folder else _PLAIN
    name = "".join(
        char if char in plain else "".join(f"%{byte:02x}" for byte in char.encode())
        for char in text
    )
    if name.startswith(".") or _RESERVED.fullmatch(name):
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if len(name) > _LONGEST:
        # No other name has "%-".
        name = f"{name[:100]}%-{hashlib.sha256(text.encode()).hexdigest()}"
    return name


def state_of(folder: str | os.PathLike[str]) -> Mapping[str, Any] | None:
    """Return what the folder's export says of itself; None if it is none.

    Raises:
        InvalidArgument: the export is incomplete.
    """
    state = _read_state(Path(folder))
    if state is not None and not state.get("complete"):
        message = f"{folder}: the export is incomplete: run it again"
        raise InvalidArgument("folder", str(folder), "a complete export", message=message)
    return state


def _read_state(folder: Path) -> Mapping[str, Any] | None:
    try:
        state = json.loads((folder / _STATE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        let_out(error)
        state = {}
    return state if isinstance(state, dict) else {}


class Tree:
    """Writes an export to a folder: RESOURCE/NAMESPACE/NAME.yaml, or RESOURCE/NAME.yaml.

    ``selection`` says what is exported. A folder that has an export of the same selection is
    brought up to date: manifests of objects that are gone are deleted. A list in the folder names
    every manifest that an export wrote there, so that no other file is deleted.

    Raises:
        InvalidArgument: the folder has manifests that no export wrote, or an export of another
            selection.
    """

    def __init__(self, folder: str | os.PathLike[str], selection: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._selection = dict(selection)
        self._made: set[Path] = set()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = _read_state(self._folder)
        if state is not None and state.get("selection", self._selection) != self._selection:
            message = f"{folder}: it has an export of another selection"
            raise InvalidArgument("folder", str(folder), "an empty folder", message=message)
        #: The manifests that are there and were not written by this export, as the list has them.
        self._stale = set(self._files())
        foreign = min(self._stale.difference(self._listed()), default="")
        if foreign:
            found = self._folder / foreign
            message = f"{folder}: it has manifests of other origin, such as {found}"
            raise InvalidArgument("folder", str(folder), "an empty folder", message=message)
        self._count = 0
        self._write_state(complete=False)

    def write(self, resource: str, namespace: str, name: str, text: str) -> None:
        """Write the manifest of an object; ``namespace`` is "" for one without."""
        parts = [file_name(resource), *([file_name(namespace, folder=True)] if namespace else [])]
        folder = self._folder
        for part in parts:
            folder /= part
            if folder not in self._made:
                folder.mkdir(mode=0o700, exist_ok=True)
                self._made.add(folder)
        path = "/".join([*parts, file_name(name) + _SUFFIX])
        if path in self._stale:
            self._stale.remove(path)
        else:
            self._list(path)
        self._replace(path, text.encode())
        self._count += 1

    def finish(self) -> None:
        """Delete the manifests of objects that are gone, and mark the export as complete, once all
        is on the disk."""
        for path in self._stale:
            (self._folder / path).unlink(missing_ok=True)
        for root, _, names in os.walk(self._folder):
            for name in names:
                if name.endswith((_SUFFIX, _LIST)):
                    _sync(os.path.join(root, name))
            _sync(root)
        self._write_state(complete=True)
        _sync(self._folder / _STATE)
        _sync(self._folder)

    def _list(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        path_of_list = self._folder / _LIST
        with naming(path_of_list), open(os.open(path_of_list, flags, 0o600), "ab") as stream:
            # An empty line before it ends one that was cut.
            stream.write(f"\n{path}\n".encode())

    def _listed(self) -> Iterator[str]:
        try:
            with open(self._folder / _LIST, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    yield line.rstrip("\n")
        except FileNotFoundError:
            return

    def _files(self) -> Iterator[str]:
        """Yield the manifests below the folder, which the paths are relative to."""
        for root, _, names in os.walk(self._folder):
            above = os.path.relpath(root, self._folder)
            for name in names:
                if name.endswith(_SUFFIX):
                    yield name if above == "." else f"{above}/{name}"

    def _write_state(self, *, complete: bool) -> None:
        state = {"format": "revstore-export", "version": 1, "complete": complete}
        more = {"selection": self._selection, "objects": self._count if complete else None}
        text = json.dumps({**state, **more}, indent=4, sort_keys=True)
        self._replace(_STATE, text.encode() + b"\n")

    def _replace(self, path: str, data: bytes) -> None:
        new = self._folder / f"{_STATE}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with (
                naming(self._folder / path),
                open(os.open(new, flags, 0o600), "wb") as stream,
            ):
                stream.write(data)
            os.replace(new, self._folder / path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
