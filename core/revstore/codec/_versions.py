"""Stored versions of a type: a value of an older version is upgraded when it is read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from revstore.codec._frozen import FrozenDict
from revstore.codec._json import Misfit, check_plain, decode_json, encode_json
from revstore.errors import InvalidArgument
from revstore.raising import described, let_out

__all__ = ["Upgrade", "VersionMisfit", "Versions"]

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""A function from the plain JSON value of one version to that of the next. It may change and return
its argument."""

_NAME = re.compile("([^/\\s]+/)?[^/\\s]+")
# What says which object it is.
_IDENTITY = ("name", "namespace", "uid")


class VersionMisfit(ValueError):
    """A value whose version is unknown, or cannot be upgraded. ``found`` is its version."""

    def __init__(self, reason: str, found: str, known: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found
        self.known = known


class _Peek(msgspec.Struct, rename="camel"):
    api_version: Any = None


_peek = msgspec.json.Decoder(_Peek)


def _checked(upgrades: Mapping[str, Upgrade]) -> Mapping[str, Upgrade]:
    if not isinstance(upgrades, Mapping) or not all(map(callable, upgrades.values())):
        raise InvalidArgument("upgrades", upgrades, 'functions by version, as {"v1": from_v1}')
    return FrozenDict(upgrades)


@attrs.frozen
class Versions:
    """The version in which objects are stored, and the upgrades that lead to it.

    ``upgrades`` are in order, the oldest version first; each leads to the version of the next one,
    and the last one to ``version``. A version is the last part of ``apiVersion``, such as "v2", or
    all of it, such as "example.com/v2". A value without ``apiVersion`` has the oldest version.

    Raises:
        InvalidArgument: a version is not valid or occurs twice, or an upgrade is no function.
    """

    version: str
    upgrades: Mapping[str, Upgrade] = attrs.field(factory=dict, converter=_checked)
    #: All versions, the oldest first.
    known: tuple[str, ...] = attrs.field(init=False, eq=False)

    @known.default
    def _all(self) -> tuple[str, ...]:
        names = [*self.upgrades, self.version]
        for field, name in zip(["upgrades"] * len(self.upgrades) + ["version"], names, strict=True):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InvalidArgument(field, name, 'a version such as "v2" or "example.com/v2"')
        group, slash, _ = self.version.rpartition("/")
        known = tuple(name if "/" in name else group + slash + name for name in names)
        if len(set(known)) < len(known):
            expected = "each version once: those that lead to it, the oldest first"
            raise InvalidArgument("upgrades", tuple(self.upgrades), expected)
        return known

    def in_group(self, group: str) -> Versions:
        """Return the same versions of a group, unless they name one."""
        if not group or "/" in self.version:
            return self
        return Versions(f"{group}/{self.version}", self.upgrades)

    def read(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a stored value in the current version; the same object if it is current.

        Raises:
            VersionMisfit: its version is unknown, or an upgrade fails.
        """
        return self._upgraded(value, value.get("apiVersion"))

    def read_bytes(self, data: bytes) -> tuple[bytes, bool]:
        """Return what ``read`` does as bytes, and whether it differs.

        Raises:
            VersionMisfit: as in ``read``.
            ValueError: ``data`` is no JSON object.
        """
        found = _peek.decode(data).api_version
        at, text = self._place(found)
        if at == len(self.known) - 1 and found == text:
            return data, False
        return encode_json(self._upgraded(decode_json(data), found)), True

    def written(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a value to be stored in the current version; without a version it counts as
        current.

        Raises:
            VersionMisfit: as in ``read``.
        """
        found = value.get("apiVersion")
        if found is None:
            return {**value, "apiVersion": self.version}
        at, text = self._place(found)
        if at == len(self.known) - 1:
            return value if found == text else {**value, "apiVersion": text}
        # An upgrade may change what it receives, but not the caller's object.
        return self._upgraded(decode_json(encode_json(value)), found)

    def _place(self, found: Any) -> tuple[int, str]:
        """Return the number of a version among the known ones, and the current ``apiVersion`` of
        such a value."""
        if found is None:
            return 0, self.version
        if isinstance(found, str):
            group, slash, last = found.rpartition("/")
            if "/" in self.version:
                name = found if slash else f"{self.version.rpartition('/')[0]}/{found}"
                text = self.version
            else:
                name = found if found in self.known else last
                text = f"{group}{slash}{self.version}"
            if name in self.known:
                return self.known.index(name), text
        known = ", ".join(self.known)
        shown = found if isinstance(found, str) else repr(found)
        reason = f"has the version {found!r}, which is unknown: expected one of {known}"
        raise VersionMisfit(reason, shown, self.known)

    def _upgraded(self, value: dict[str, Any], found: Any) -> dict[str, Any]:
        at, text = self._place(found)
        steps = list(self.upgrades.values())[at:]
        if not steps:
            return value if found == text else {**value, "apiVersion": text}
        pairs = itertools.pairwise(self.known[at:])
        for upgrade, (before, after) in zip(steps, pairs, strict=True):
            try:
                value = _step(upgrade, value, after)
            except Exception as error:
                let_out(error)
                reason = (
                    f"has the version {before!r}, whose upgrade to {after!r} failed: "
                    f"{described(error)}"
                )
                raise VersionMisfit(reason, before, self.known) from error
        return {**value, "apiVersion": text}


def _step(upgrade: Upgrade, value: dict[str, Any], after: str) -> dict[str, Any]:
    """Return what ``upgrade`` makes of ``value``.

    Raises:
        ValueError: it does not fit.
    """
    before = value.get("apiVersion")
    identity = _identity(value)
    made = upgrade(value)
    if not isinstance(made, dict):
        raise Misfit(made, "a dict")
    check_plain(made)
    version = made.get("apiVersion")
    if version not in (None, before, after, after.rpartition("/")[2]):
        raise Misfit(version, f"{after!r} or no change").under("apiVersion")
    if _identity(made) != identity:
        raise ValueError("name, namespace and uid must stay")
    encode_json(made)
    return made


def _identity(value: dict[str, Any]) -> list[Any]:
    metadata = value.get("metadata")
    return [metadata.get(name) if isinstance(metadata, dict) else None for name in _IDENTITY]
