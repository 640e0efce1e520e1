"""The declarations of installed distributions, read one by one: a broken one affects no
other."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution
from typing import Any

import attrs

__all__ = ["Declared", "Unreadable", "declared", "normal"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


@attrs.frozen
class Declared:
    """An entry point, with the distribution that declares it."""

    name: str
    value: str
    distribution: str
    version: str


@attrs.frozen
class Unreadable:
    """A distribution whose entry points cannot be read: its folder, and why."""

    folder: str
    reason: str

    def __str__(self) -> str:
        return f"{self.folder}: {self.reason}"


def normal(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(group: str) -> Sequence[Declared | Unreadable]:
    """Return the declarations in ``group``, in the order of the path.

    If there are several copies of a distribution, the first counts, as for imports. Folders that an
    interrupted pip leaves behind (``~name``), and those without a name, are skipped. What is
    installed or removed meanwhile counts from the next call on.
    """
    global _last  # noqa: PLW0603 - one for the process, as is what is installed
    scan = _last
    if scan is None or not scan.is_current():
        scan = _Scan()
        _last = scan if scan.settled else None
    return scan.declared(group)


# The times at which a file and its mode were changed last, and its size.
_Stamp = tuple[int, int, int]

# Seconds after which a folder that has changed again shows it by another time.
_TICK = 2.0


class _Scan:
    """What was installed at one moment. To read it takes milliseconds, to see whether anything has
    changed a twentieth."""

    def __init__(self) -> None:
        now = time.time()
        self._places = _places()
        self._distributions = list(importlib.metadata.distributions())
        folders = list(map(_folder, self._distributions))
        files = [os.path.join(folder, "entry_points.txt") for folder in folders]
        self._stamps = [(file, _stamp(file)) for file in files]
        self._groups: dict[str, Sequence[Declared | Unreadable]] = {}
        stamps = [stamp for _, stamp in (*self._places[1], *self._stamps)]
        #: Whether each later change will show. The distributions of other finders may show none.
        self.settled = all(folders) and all(
            stamp is None or now - stamp[0] / 1e9 > _TICK for stamp in stamps
        )

    def is_current(self) -> bool:
        """Return whether all is as it was."""
        return _places() == self._places and all(
            _stamp(file) == stamp for file, stamp in self._stamps
        )

    def declared(self, group: str) -> Sequence[Declared | Unreadable]:
        """Return the declarations in ``group``."""
        found = self._groups.get(group)
        if found is None:
            found = tuple(_declared(self._distributions, group))
            # What keeps a file from being read may pass without a change of the file.
            if not any(isinstance(each, Unreadable) for each in found):
                self._groups[group] = found
        return found


_last: _Scan | None = None


def _places() -> tuple[list[int], list[tuple[str, _Stamp | None]]]:
    """Return what finds distributions, and the folders in which they are found, with their
    stamps."""
    return list(map(id, sys.meta_path)), [(path, _stamp(path or ".")) for path in sys.path]


def _stamp(path: str) -> _Stamp | None:
    """Return what differs once a file or folder has changed; None if it does not exist."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _declared(distributions: Iterable[Distribution], group: str) -> Iterator[Declared | Unreadable]:
    seen = set()
    for distribution in distributions:
        folder = _folder(distribution)
        name, version = _name_of_folder(folder)
        try:
            name = name or _header(distribution.metadata, "Name")
            # The remains of an older copy may have no entry points; they hide nothing.
            text = distribution.read_text("entry_points.txt")
            if not text or not _NAME.fullmatch(name) or normal(name) in seen:
                continue
            seen.add(normal(name))
            points = distribution.entry_points.select(group=group) if group in text else ()
            found = [(point.name, point.value) for point in points]
        except Exception as error:  # noqa: BLE001 - whatever a file holds that is not ours
            yield Unreadable(folder, _reason(error))
            continue
        if found:
            name, version = _described(distribution, name, version)
        for point, value in found:
            yield Declared(point, value, name, version)


def _folder(distribution: Distribution) -> str:
    # There is no public attribute for it; other finders' distributions may have no folder.
    return str(getattr(distribution, "_path", "")).rstrip("/\\")


def _name_of_folder(folder: str) -> tuple[str, str]:
    """Return the name and version in "name-version.dist-info"; a file ".egg-info" may lack the
    version."""
    stem, kind = os.path.splitext(os.path.basename(folder))
    if kind not in (".dist-info", ".egg-info"):
        # A hidden ".dist-info" has no ending, and no name either.
        return ("~", "") if stem.startswith(".") else ("", "")
    name, _, version = stem.partition("-")
    return (name or "~"), version.partition("-")[0]


def _header(metadata: Any, name: str) -> str:
    return str(metadata[name] or "") if name in metadata else ""


def _described(distribution: Distribution, name: str, version: str) -> tuple[str, str]:
    """Return name and version by the metadata, else those of the folder."""
    try:
        metadata = distribution.metadata
        return _header(metadata, "Name") or name, _header(metadata, "Version") or version
    except Exception:  # noqa: BLE001 - metadata may be absent or anything
        return name, version


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "its entry points are malformed"
