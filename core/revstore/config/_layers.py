"""Layers of configuration: the values of one source, by path, and their order of precedence.

A path is a tuple of names, ("prefix",), ("options", "poll_interval") or ("overrides",
"deployments.apps", "url"), because the name of a resource may have dots.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revstore.config._fields import CREDENTIALS, LISTS, LOCATING, PLAIN, check_field
from revstore.config._text import BLANKS
from revstore.config._url import parse_url, scheme_of
from revstore.config._values import Given, Origin, convert, refuse, unknown_name
from revstore.errors import ConfigError

__all__ = [
    "Layer",
    "expand_url",
    "layer_of_environ",
    "layer_of_file",
    "layer_of_table",
    "list_of_environ",
    "merge",
]

Layer = dict[tuple[str, ...], Given]

#: Tables whose names only a plugin knows.
_OPTIONS = ("options", "transformer_options")
_TABLES = (*_OPTIONS, "overrides", "resources")
#: Variables with the prefix that do not configure a store.
_OTHER_VARIABLES = frozenset(
    {
        "REVSTORE_CONFIG",
        "REVSTORE_PLUGINS",
        "REVSTORE_DISABLE_PLUGINS",
        "REVSTORE_STRICT_PLUGINS",
        "REVSTORE_TRACE_PLUGINS",
    }
)
_PREFIX = "REVSTORE_"
_FORMS = {
    "options": "REVSTORE_OPTIONS__NAME",
    "transformer_options": "REVSTORE_TRANSFORMER_OPTIONS__NAME",
    "overrides": "REVSTORE_OVERRIDES__RESOURCE__NAME, where a known field's name stands last",
    "resources": "REVSTORE_RESOURCES__RESOURCE__NAME",
}


def layer_of_file(path: Path) -> Layer:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or has unknown keys.
    """
    origin = Origin(str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            "config", str(path), "a readable file", message=f"{path}: cannot be read: {reason}"
        ) from error
    try:
        table = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            line = data[: error.start].count(b"\n") + 1
            reason = f"not UTF-8 (at line {line})"
        if b"\0" in data:
            reason = "it has NUL bytes, as UTF-16 has: save it as UTF-8"
        # Not chained: newer versions of the error carry the whole document, secrets included.
        raise ConfigError(
            "config", str(path), "TOML", message=f"{path}: not valid TOML: {reason}"
        ) from None
    return layer_of_table(table, origin)


def list_of_environ(variable: str) -> tuple[str, ...]:
    """Return the texts that an environment variable lists, separated by commas.

    Raises:
        ConfigError: one has an invisible character in it.
    """
    given = Given(os.environ.get(variable, ""), Origin(variable, text=True))
    texts: tuple[str, ...] = convert(given, tuple[str, ...], variable)
    return texts


def layer_of_environ(environ: Mapping[str, str]) -> Layer:
    """Return the ``REVSTORE_*`` variables of ``environ``; ``__`` goes one level down.

    Variables that are empty or blank count as unset; ``REVSTORE_TEST_*`` belong to test suites.
    """
    layer: Layer = {}
    for variable, value in sorted(environ.items()):
        name = variable.removeprefix(_PREFIX)
        if name == variable or variable in _OTHER_VARIABLES or name.startswith("TEST_"):
            continue
        if not value.strip(BLANKS):
            continue
        path = tuple(name.lower().split("__"))
        origin = Origin(variable, text=True)
        _check_path(path, origin, shown=variable)
        if path in layer:
            other = layer[path].origin.label
            message = f"{other} and {variable} are one and the same: unset one of them"
            raise ConfigError(variable, "", f"no {other} beside it", message=message)
        layer[path] = Given(value, origin)
    return layer


def layer_of_table(table: Mapping[str, Any], origin: Origin) -> Layer:
    """Return the keys of a TOML document or of a mapping given in code."""
    layer: Layer = {}
    for key, value in table.items():
        if key not in _TABLES:
            _check_path((key,), origin)
            layer[key,] = Given(value, origin)
            continue
        for name, item in _table(value, key, origin).items():
            if key in _OPTIONS:
                layer[key, name] = Given(item, origin)
                continue
            for path, leaf in _flatten(_table(item, f"{key}.{name}", origin), key):
                _check_path((key, name, *path), origin)
                layer[(key, name, *path)] = Given(leaf, origin)
    return layer


def _flatten(table: Mapping[str, Any], parent: str) -> list[tuple[tuple[str, ...], Any]]:
    result: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        if parent == "overrides" and key in _OPTIONS and isinstance(value, Mapping):
            result += [((key, name), item) for name, item in value.items()]
        else:
            result.append(((key,), value))
    return result


def _table(value: Any, field: str, origin: Origin) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise refuse(field, Given(value, origin), "a table", secret=True)
    return value


def _check_path(path: tuple[str, ...], origin: Origin, shown: str = "") -> None:
    """Refuse a path that no setting has. The values of options and resources are checked later."""
    rest = path[2:] if path[0] == "overrides" else path
    known = [*PLAIN, "url", *_OPTIONS]
    if path[0] == "resources":
        leads = len(path) == 3
    elif len(rest) == 1:
        leads = rest[0] in PLAIN or rest[0] == "url"
    else:
        leads = len(rest) == 2 and rest[0] in _OPTIONS
    if leads:
        return
    if path[0] != "overrides":
        known += ["overrides", "resources"]
    if shown:
        form = _FORMS.get(path[0])
        if form is not None:
            message = f"unknown variable {shown!r}: expected {form}"
            raise ConfigError(shown, "", form, message=message)
        names = [_PREFIX + name.upper() for name in known] + sorted(_OTHER_VARIABLES)
        raise unknown_name(shown, Origin(), names if len(path) == 1 else (), "variable")
    raise unknown_name(".".join(path), origin, known, "key")


def expand_url(layer: Layer, field: str = "url") -> Layer:
    """Return ``layer``, completed by what its url says; what the layer says itself has
    precedence."""
    given = layer.get(("url",))
    if given is None:
        return layer
    if not isinstance(given.value, str):
        raise refuse(field, given, "a URL", secret=True)
    origin = Origin(given.origin.label or "URL", text=True)
    result = parse_url(given.value, origin, field, PLAIN, LISTS)
    result.update({path: item for path, item in layer.items() if path != ("url",)})
    return result


def merge(below: Layer, above: Layer, *, under_code: bool = False) -> Layer:
    """Return ``below`` overridden by ``above``; a ``url`` in ``above`` is expanded.

    A URL says where the store is, so it hides the servers below it and their credentials (SF-4).
    Options belong to one backend, or to one transformer: those below are dropped if it changes.
    ``under_code``:
    ``above`` is a URL in code and ``below`` the environment, whose own URL is dropped, whose
    credentials are kept, and whose options are dropped only if it names another backend.
    """
    has_url = ("url",) in above
    above = expand_url(above)
    result = {path: given for path, given in below.items() if path != ("url",)}
    if has_url:
        for name in (*LOCATING, *(() if under_code else CREDENTIALS)):
            result.pop((name,), None)
    names_backend = any((name,) in below for name in ("url", *LOCATING))
    becomes_another = backend_of(below) != backend_of({**result, **above})
    if becomes_another and (names_backend or not under_code):
        result = _without(result, "options")
    if ("transformer",) in below and _transformer_of(below) != _transformer_of({**below, **above}):
        result = _without(result, "transformer_options")
    return {**result, **above}


def _without(layer: Layer, table: str) -> Layer:
    return {path: given for path, given in layer.items() if path[0] != table}


def _transformer_of(layer: Layer) -> object:
    return check_field("transformer", layer["transformer",])


def backend_of(layer: Layer) -> str:
    """Return the name of the backend that ``layer`` selects.

    An unset type means etcd3 if servers are given, as in the original, else sqlite (CFG-1).
    """
    given = layer.get(("type",))
    name = check_field("type", given) if given is not None else ""
    url = layer.get(("url",))
    if not name and url is not None:
        name = scheme_of(str(url.value))
    servers = layer.get(("server_list",))
    has_servers = servers is not None and check_field("server_list", servers)
    return str(name) or ("etcd3" if has_servers else "sqlite")
