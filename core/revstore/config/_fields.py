"""What each field of StorageConfig may hold, beyond its type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from revstore.config._values import (
    CODE,
    FrozenMap,
    Given,
    Source,
    convert,
    refuse,
    unknown_name,
)
from revstore.errors import ConfigError
from revstore.secret import Secret

if TYPE_CHECKING:
    from revstore.config import StorageConfig

__all__ = ["FIELD_TYPES", "ResourceConfig", "check_field", "check_together", "is_loopback"]

#: CACHE-1: a cache that remembers less than this drops watchers that only reconnect.
MIN_EVENT_HISTORY_WINDOW = 75.0

#: The plain fields and their types. url, options, overrides and resources have rules of their own.
FIELD_TYPES: dict[str, Any] = {
    "type": str,
    "prefix": str,
    "server_list": tuple[str, ...],
    "key_file": str,
    "cert_file": str,
    "ca_file": str,
    "insecure_skip_verify": bool,
    "allow_plaintext": bool,
    "username": str,
    "password": Secret | None,
    "password_file": str,
    "quorum": bool,
    "deserialization_cache_size": int,
    "codec": str,
    "copier": str,
    "transformer": str,
    "wrappers": tuple[str, ...],
    "compaction_interval": float,
    "event_history_window": float,
    "lease_reuse_duration": float,
    "lease_max_object_count": int,
    "healthcheck_timeout": float,
    "readycheck_timeout": float,
    "count_metric_poll_period": float,
    "db_metric_poll_interval": float,
}

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_SERVER = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?/?")
_COPIERS = ("auto", "share", "deep")


@attrs.frozen(kw_only=True)
class ResourceConfig:
    """What ``[resources.NAME]`` says about a kind that revstore does not know; NAME is its
    lower-case plural, with the group behind a dot if there is one: "widgets.example.com".

    ``namespaced`` None: an object is namespaced exactly if it has ``metadata.namespace``.
    """

    kind: str
    namespaced: bool | None = None
    short_names: tuple[str, ...] = ()


_RESOURCE_TYPES: dict[str, Any] = {
    "kind": str,
    "namespaced": bool | None,
    "short_names": tuple[str, ...],
}


def check_field(name: str, given: Given) -> Any:
    """The value for the plain field ``name``, or ``ConfigError`` with the source."""
    value = convert(given, FIELD_TYPES[name], name)
    normalise = _NORMALISE.get(name)
    if normalise is not None:
        value = normalise(value)
    check = _CHECKS.get(name)
    expected = check(value) if check is not None else ""
    if expected:
        # A server given with a user and password in front must not be repeated.
        raise refuse(name, given, expected, secret="@" in str(given.value))
    return value


def check_resources(
    value: Mapping[str, Any], sources: Mapping[str, Source] = FrozenMap()
) -> FrozenMap[ResourceConfig]:
    """The ``resources`` tables as values, or ``ConfigError``; ``sources`` by dotted name."""
    result = {}
    for name, table in value.items():
        if isinstance(table, ResourceConfig):
            result[name] = table
            continue
        field = f"resources.{name}"
        if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
            given = Given(table, sources.get(f"{field}.kind", CODE))
            raise refuse(field, given, 'a table with a string "kind"')
        values = {}
        for key, item in table.items():
            source = sources.get(f"{field}.{key}", CODE)
            if key not in _RESOURCE_TYPES:
                raise unknown_name(f"{field}.{key}", source, _RESOURCE_TYPES, "key")
            given = Given(item, source)
            values[key] = convert(given, _RESOURCE_TYPES[key], f"{field}.{key}")
        result[name] = ResourceConfig(**values)
    return FrozenMap(result)


def check_together(config: StorageConfig) -> None:
    """Refuse fields that contradict each other."""
    schemes = {server.partition("://")[0] for server in config.server_list if "://" in server}
    files = bool(config.ca_file or config.cert_file or config.key_file)
    if len(schemes) > 1:
        raise ConfigError("server_list", config.server_list, "either http or https, not both")
    if "http" in schemes and files:
        raise ConfigError(
            "server_list", config.server_list, "https: ca_file, cert_file or key_file is given"
        )
    if bool(config.cert_file) != bool(config.key_file):
        absent = "key_file" if config.cert_file else "cert_file"
        raise ConfigError(absent, "", "a file: cert_file and key_file go together")
    if config.password is not None and config.password_file:
        raise ConfigError("password_file", config.password_file, "none: password is given too")
    if (config.password is not None or config.password_file) and not config.username:
        raise ConfigError("username", "", "a name: a password is given")
    if not config.username or config.tls_enabled or config.allow_plaintext:
        return
    for server in config.server_list:
        if not is_loopback(server):
            raise ConfigError(
                "allow_plaintext",
                False,
                "true, or TLS",
                message=f"the password would go to {server!r} in plain text: use https or a "
                "ca_file, or set allow_plaintext",
            )


def is_loopback(server: str) -> bool:
    """Whether ``server`` ("host:port", "https://host") is this machine's loopback by its name."""
    match = _SERVER.fullmatch(server)
    host = match[2].strip("[]") if match else ""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _normalise_prefix(prefix: str) -> str:
    return "/" + prefix.strip("/")


def _check_prefix(prefix: str) -> str:
    segments = prefix[1:].split("/") if prefix != "/" else []
    if "\0" in prefix or any(segment in ("", ".", "..") for segment in segments):
        return "a path without NUL, '//', '.' and '..' segments"
    try:
        prefix.encode()
    except UnicodeEncodeError:
        return "valid UTF-8"
    return ""


def _check_servers(servers: tuple[str, ...]) -> str:
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or (match[3] and not 0 < int(match[3]) < 65536):
            return "HOST:PORT, http://HOST:PORT or https://HOST:PORT each, without a user"
    return ""


def _check_name(name: str) -> str:
    return "" if _NAME.fullmatch(name) else "a plugin's name (a-z, 0-9, '-', '_', '.')"


def _at_least(lowest: float, unit: str = "") -> Callable[[float], str]:
    return lambda value: "" if value >= lowest else f"at least {lowest:g}{unit}"


_NORMALISE: dict[str, Callable[[Any], Any]] = {
    "prefix": _normalise_prefix,
    # CFG-3: 0 stands for the default.
    "healthcheck_timeout": lambda value: value or 2.0,
    "readycheck_timeout": lambda value: value or 2.0,
}

_CHECKS: dict[str, Callable[[Any], str]] = {
    "type": lambda value: _check_name(value) if value else "",
    "prefix": _check_prefix,
    "server_list": _check_servers,
    "codec": _check_name,
    "copier": lambda value: "" if value in _COPIERS else f"one of {', '.join(_COPIERS)}",
    "transformer": _check_name,
    "wrappers": lambda value: next(filter(None, map(_check_name, value)), ""),
    "deserialization_cache_size": _at_least(0),
    "event_history_window": _at_least(MIN_EVENT_HISTORY_WINDOW, " seconds"),
    "lease_max_object_count": _at_least(1),
}
