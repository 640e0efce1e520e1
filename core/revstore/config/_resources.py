"""Kinds that revstore does not know, as ``[resources.NAME]`` declares them."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

import attrs

from revstore import kinds
from revstore.config._values import CODE, FrozenMap, Given, Origin, convert, refuse, unknown_name

__all__ = ["ResourceConfig", "check_resource_name", "check_resources"]


@attrs.frozen(kw_only=True)
class ResourceConfig:
    """The settings of ``[resources.NAME]``, about a kind that revstore does not know; NAME is its
    lower-case plural, followed by a dot and the group if there is one: "widgets.example.com".

    ``namespaced`` None: an object is namespaced exactly if it has ``metadata.namespace``.
    ``version`` and ``upgrades`` are those of ``ResourceType``; an upgrade names its function, as
    "v1=myapp.widgets:to_v2".
    """

    kind: str
    namespaced: bool | None = None
    short_names: tuple[str, ...] = ()
    version: str = ""
    upgrades: tuple[str, ...] = ()


_RESOURCE = re.compile(r"[^\sA-Z*/%]+")
_UPGRADE = re.compile(r"[^=\s]+=[\w.]+:[\w.]+")
_TYPES = typing.get_type_hints(ResourceConfig)


def check_resources(
    value: Mapping[str, Any], origins: Mapping[str, Origin] = FrozenMap()
) -> FrozenMap[ResourceConfig]:
    """Return the ``resources`` tables as values; ``origins`` is by dotted name.

    Raises:
        ConfigError: a table does not declare a resource correctly.
    """
    result = {}
    for name, given_table in value.items():
        check_resource_name("resources", name)
        if not kinds.is_resource(name):
            expected = "a plural and its group, such as 'widgets' or 'widgets.example.com'"
            raise refuse("resources", Given(name), expected)
        made = isinstance(given_table, ResourceConfig)
        table = attrs.asdict(given_table, recurse=False) if made else given_table
        field = f"resources.{name}"
        if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
            given = Given(table, origins.get(f"{field}.kind", CODE))
            raise refuse(field, given, 'a table with a string "kind"')
        values = {}
        for key, item in table.items():
            origin = origins.get(f"{field}.{key}", CODE)
            if key not in _TYPES:
                raise unknown_name(f"{field}.{key}", origin, _TYPES, "key")
            given = Given(item, origin)
            values[key] = convert(given, _TYPES[key], f"{field}.{key}")
        if not kinds.is_kind(values["kind"]):
            given = Given(table["kind"], origins.get(f"{field}.kind", CODE))
            raise refuse(f"{field}.kind", given, "a kind such as 'Widget'")
        shorts = values.get("short_names", ())
        # Each is a name on the command line, as the plural is.
        if not all("." not in short and kinds.is_resource(short.lower()) for short in shorts):
            given = Given(table["short_names"], origins.get(f"{field}.short_names", CODE))
            raise refuse(f"{field}.short_names", given, "words such as 'wd'")
        if not all(map(_UPGRADE.fullmatch, values.get("upgrades", ()))):
            given = Given(table["upgrades"], origins.get(f"{field}.upgrades", CODE))
            raise refuse(f"{field}.upgrades", given, "a list such as ['v1=myapp.widgets:to_v2']")
        result[name] = ResourceConfig(**values)
    return FrozenMap(result)


def check_resource_name(table: str, name: object) -> None:
    """Refuse a name in ``table`` that no resource can have, since it would never be found.

    Raises:
        ConfigError: it is not a string, is empty, or has blanks, capitals, "*", "/" or "%" in it.
            ``overrides`` may have "*.GROUP".
    """
    text = name.removeprefix("*.") if isinstance(name, str) and table == "overrides" else name
    if not isinstance(text, str) or not text.isprintable() or not _RESOURCE.fullmatch(text):
        expected = "a resource, such as 'events' or 'deployments.apps'"
        group = " or '*.apps'" if table == "overrides" else ""
        raise refuse(table, Given(name), f"{expected}{group}, in lower case")
