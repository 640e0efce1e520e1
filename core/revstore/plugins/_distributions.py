"""The declarations of installed distributions, read one by one: a broken one affects no
other."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator
from importlib.metadata import Distribution

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


def declared(group: str) -> Iterator[Declared | Unreadable]:
    """Yield the declarations in ``group``, in the order of the path.

    If there are several copies of a distribution, the first counts, as for imports. Folders that an
    interrupted pip leaves behind (``~name``), and those without a name, are skipped.
    """
    seen = set()
    for distribution in importlib.metadata.distributions():
        folder = _folder(distribution)
        name, version = _name_of_folder(folder)
        try:
            name = name or _header(distribution, "Name")
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


def _header(distribution: Distribution, name: str) -> str:
    metadata = distribution.metadata
    return str(metadata[name] or "") if name in metadata else ""


def _described(distribution: Distribution, name: str, version: str) -> tuple[str, str]:
    """Return name and version by the metadata, else those of the folder."""
    try:
        return (
            _header(distribution, "Name") or name,
            _header(distribution, "Version") or version,
        )
    except Exception:  # noqa: BLE001 - metadata may be absent or anything
        return name, version


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "its entry points are malformed"
