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
from revstore.raising import let_out

__all__ = ["Tree", "file_name", "state_of"]

#: The file that marks a folder as an export. kubectl and ``apply`` pass over it.
_STATE = ".revstore-export"
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
    brought up to date: manifests of objects that are gone are deleted.

    Raises:
        InvalidArgument: the folder has manifests that are no export, or one of another selection.
    """

    def __init__(self, folder: str | os.PathLike[str], selection: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._selection = dict(selection)
        self._made: set[Path] = set()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = _read_state(self._folder)
        self._again = state is not None
        if state is None:
            found = next(self._files(), None)
            if found is not None:
                message = f"{folder}: it has manifests of other origin, such as {found}"
                raise InvalidArgument("folder", str(folder), "an empty folder", message=message)
        elif state.get("selection", self._selection) != self._selection:
            message = f"{folder}: it has an export of another selection"
            raise InvalidArgument("folder", str(folder), "an empty folder", message=message)
        self._written: set[str] = set()
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
        path = folder / (file_name(name) + _SUFFIX)
        if self._again:
            self._written.add(str(path))
        self._replace(path, text.encode())
        self._count += 1

    def finish(self) -> None:
        """Delete the manifests of objects that are gone, and mark the export as complete."""
        if self._again:
            for path in list(self._files()):
                if path not in self._written:
                    os.unlink(path)
        self._write_state(complete=True)

    def _files(self) -> Iterator[str]:
        for root, _, names in os.walk(self._folder):
            for name in names:
                if name.endswith(_SUFFIX):
                    yield os.path.join(root, name)

    def _write_state(self, *, complete: bool) -> None:
        state = {"format": "revstore-export", "version": 1, "complete": complete}
        more = {"selection": self._selection, "objects": self._count if complete else None}
        text = json.dumps({**state, **more}, indent=4, sort_keys=True)
        self._replace(self._folder / _STATE, text.encode() + b"\n")

    def _replace(self, path: Path, data: bytes) -> None:
        new = str(self._folder / f"{_STATE}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(new, flags, 0o600), "wb") as stream:
            stream.write(data)
        os.replace(new, path)
