"""Finding the one plugin of a name from metadata alone, without importing anything."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

import attrs

from revstore.backend import BackendInfo
from revstore.config import list_of_environ
from revstore.errors import BackendConflict, BackendNotInstalled, InvalidArgument
from revstore.plugins._distributions import Unreadable, declared, normal

__all__ = [
    "BACKENDS",
    "CODECS",
    "COMMANDS",
    "TRANSFORMERS",
    "WRAPPERS",
    "Found",
    "blocked_by",
    "conflict",
    "find_all",
    "find_one",
    "kind_of",
    "register_backend",
    "reserved",
    "strict",
    "trace",
    "unregister_backend",
]

BACKENDS = "revstore.backends"
WRAPPERS = "revstore.wrappers"
CODECS = "revstore.codecs"
TRANSFORMERS = "revstore.transformers"
COMMANDS = "revstore.commands"

#: The core's own distribution.
_CORE = "revstore"

#: Names that only the given distribution may provide, by group.
_RESERVED: dict[str, dict[str, str]] = {
    BACKENDS: BackendInfo.RESERVED,
    WRAPPERS: {"metrics": _CORE},
    CODECS: {"json": _CORE},
    TRANSFORMERS: {"identity": _CORE, "encryption": "revstore-encryption"},
    COMMANDS: {"encryption": "revstore-encryption", "serve": "revstore-serve"},
}

_registered: dict[str, str] = {}  # name -> "package.module"; guarded by _lock
_lock = threading.Lock()


@attrs.frozen
class Found:
    """A plugin that exists: by an entry point, or registered in code (then ``distribution`` is the
    module's name and ``version`` is "")."""

    name: str
    group: str
    value: str
    distribution: str
    version: str
    in_code: bool = False

    def load(self) -> Any:
        """Import the plugin. It raises whatever the plugin's module raises."""
        return importlib.metadata.EntryPoint(self.name, self.value, self.group).load()

    @property
    def origin(self) -> str:
        """The distribution with its version, for messages."""
        return f"{self.distribution} {self.version}".rstrip()


def register_backend(name: str, target: str) -> None:
    """Register the backend ``name`` in this process.

    This is for tests, and for applications that contain a backend without being a distribution. It
    overrides installed backends of that name. ``target`` is "package.module" or
    "package.module:object" with the hooks; it is imported when the backend is first used.

    Raises:
        InvalidArgument: the name is reserved for a distribution of this project, or is registered
            with another target.
    """
    if name in BackendInfo.RESERVED:
        raise InvalidArgument("name", name, "a name that is not reserved")
    with _lock:
        if _registered.get(name, target) != target:
            raise InvalidArgument("name", name, f"another name: it is {_registered[name]!r}")
        _registered[name] = target


def unregister_backend(name: str) -> None:
    """Undo ``register_backend``; do nothing if the name is not registered."""
    with _lock:
        _registered.pop(name, None)


def kind_of(group: str) -> str:
    """Return the word for the plugins of a group: "backend" and so on."""
    return group.removeprefix("revstore.").removesuffix("s")


def find_all(group: str) -> dict[str, list[Found]]:
    """Return every plugin of ``group`` by name, including blocked and conflicting ones."""
    result: dict[str, list[Found]] = {}
    for entry in declared(group):
        if isinstance(entry, Unreadable):
            trace(f"passing over {entry}")
            continue
        found = Found(entry.name, group, entry.value, entry.distribution, entry.version)
        same = result.setdefault(entry.name, [])
        if found not in same:
            same.append(found)
    if group == BACKENDS:
        with _lock:
            registered = dict(_registered)
        for name, target in registered.items():
            result[name] = [Found(name, group, target, target.partition(":")[0], "", in_code=True)]
    return result


def find_one(group: str, name: str) -> Found:
    """Return the plugin called ``name``.

    Raises:
        BackendNotInstalled: there is none, or it is switched off.
        BackendConflict: there are several, or one claims a reserved name.
    """
    everything = find_all(group)
    every = everything.get(name, [])
    usable = [found for found in every if not blocked_by(found)]
    if not usable:
        raise _absent(group, name, every, everything)
    error = conflict(usable)
    if error is not None:
        raise error
    return usable[0]


def conflict(candidates: list[Found]) -> BackendConflict | None:
    """Return the error for plugins that cannot all have their one name, None if there is just
    one."""
    first = candidates[0]
    kind = kind_of(first.group)
    owner = _RESERVED.get(first.group, {}).get(first.name)
    if owner is not None:
        intruders = [found.origin for found in candidates if normal(found.distribution) != owner]
        if intruders:
            return BackendConflict(first.name, distributions=intruders, reserved=True, kind=kind)
    if len(candidates) > 1:
        origins = [found.origin for found in candidates]
        return BackendConflict(first.name, distributions=origins, kind=kind)
    return None


def blocked_by(found: Found) -> str:
    """Return the variable that switches the plugin off, "" if none does.

    Both variables take names of plugins or of distributions; the core's own plugins are always
    allowed by ``REVSTORE_PLUGINS``.
    """
    names = {found.name, normal(found.distribution)}
    if names & _names("REVSTORE_DISABLE_PLUGINS"):
        return "REVSTORE_DISABLE_PLUGINS"
    allowed = os.environ.get("REVSTORE_PLUGINS")
    own = normal(found.distribution) == _CORE or found.in_code
    if allowed is not None and not own and not names & _names("REVSTORE_PLUGINS"):
        return "REVSTORE_PLUGINS"
    return ""


def reserved(group: str, name: str) -> bool:
    """Return whether a name is for a distribution of this project, installed or not."""
    return name in _RESERVED.get(group, {})


def strict() -> bool:
    """Return whether REVSTORE_STRICT_PLUGINS makes every plugin's failure fatal."""
    return _flag("REVSTORE_STRICT_PLUGINS")


def trace(text: str) -> None:
    """Report each step with plugins on standard error, if REVSTORE_TRACE_PLUGINS is set."""
    if _flag("REVSTORE_TRACE_PLUGINS"):
        sys.stderr.write(f"revstore plugins: {text}\n")


def _absent(
    group: str, name: str, every: list[Found], everything: dict[str, list[Found]]
) -> BackendNotInstalled:
    installed = [other for other, found in everything.items() if not all(map(blocked_by, found))]
    if every:
        return BackendNotInstalled(
            name, installed=installed, blocked=blocked_by(every[0]), kind=kind_of(group)
        )
    # The pip line only for names of this project: otherwise a typo in a URL, or somebody who took
    # such a name on PyPI, would determine what is installed.
    known = _RESERVED.get(group, {})
    hint = f"pip install {known[name]}" if name in known else ""
    close: Iterable[str] = difflib.get_close_matches(name, [*installed, *known], n=1)
    return BackendNotInstalled(
        name,
        installed=installed,
        hint=hint,
        did_you_mean=next(iter(close), ""),
        kind=kind_of(group),
        unreadable=[str(each) for each in declared(group) if isinstance(each, Unreadable)],
    )


def _names(variable: str) -> set[str]:
    names = set(list_of_environ(variable))
    return names | {normal(name) for name in names}


def _flag(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")
