"""The plain fields of a configuration: their types, defaults, and limits on their values."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from typing import Any

import attrs

from revstore.config._values import Given, convert, refuse
from revstore.secret import Secret

__all__ = [
    "CREDENTIALS",
    "LISTS",
    "LOCATING",
    "PLAIN",
    "SERVER",
    "PlainFields",
    "Rule",
    "check_field",
    "rule_of",
]

#: CACHE-1: a cache that remembers less than this ends watches that only reconnect.
MIN_EVENT_HISTORY_WINDOW = 75.0

#: An entry of server_list: its scheme, host and port.
SERVER = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.%]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?/?")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_COPIERS = ("auto", "share", "deep")


@attrs.frozen(kw_only=True)
class Rule:
    """The rules of a field besides its type and default."""

    #: What was expected, "" if the value is allowed.
    check: Callable[[Any], str] = lambda value: ""
    #: The stored value for one of the right type.
    normalise: Callable[[Any], Any] = lambda value: value
    #: It says where the store is: a URL of higher precedence replaces it.
    locates: bool = False
    #: It belongs to the servers, and is replaced with them.
    credential: bool = False
    #: It does not affect how the backend is opened: configs that differ in it share one.
    above_backend: bool = False


def _normalise_prefix(prefix: str) -> str:
    return "/" + prefix.strip("/")


def _check_prefix(prefix: str) -> str:
    segments = prefix[1:].split("/") if prefix != "/" else []
    if "\0" in prefix or any(segment in ("", ".", "..") for segment in segments):
        return "a path without NUL, '//', '.' and '..' segments"
    if any(segment != segment.strip() for segment in segments):
        return "a path whose segments have no leading or trailing blanks"
    return _not_utf8(prefix)


def _not_utf8(text: str) -> str:
    """Return what is expected instead of a text that cannot be sent to a server; "" if it can
    be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "valid UTF-8"
    return ""


def _check_servers(servers: tuple[str, ...]) -> str:
    for server in servers:
        match = SERVER.fullmatch(server)
        if match is None or (match[3] and not 0 < int(match[3]) < 65536) or _not_utf8(server):
            return "HOST:PORT, http://HOST:PORT or https://HOST:PORT each, without a user"
    return ""


def _check_name(name: str) -> str:
    return "" if _NAME.fullmatch(name) else "a plugin's name (a-z, 0-9, '-', '_', '.')"


def _check_names(names: tuple[str, ...]) -> str:
    return next(filter(None, map(_check_name, names)), "")


def _check_type(name: str) -> str:
    return _check_name(name) if name else ""


def _check_copier(name: str) -> str:
    return "" if name in _COPIERS else f"one of {', '.join(_COPIERS)}"


def _two_for_zero(seconds: float) -> float:
    """Replace 0 by the default. (CFG-3)"""
    return seconds or 2.0


def _at_least(lowest: float, unit: str = "") -> Callable[[float], str]:
    return lambda value: "" if value >= lowest else f"at least {lowest:g}{unit}"


def _field(default: Any, **rule: Any) -> Any:
    """Return a plain field, whose converter gives the value its type and refuses what is not
    allowed."""

    def converter(value: Any, _: Any, field: attrs.Attribute[Any]) -> Any:
        return check_field(field.name, Given(value))

    takes = attrs.Converter(converter, takes_self=True, takes_field=True)
    return attrs.field(default=default, converter=takes, metadata={Rule: Rule(**rule)})


@attrs.frozen(kw_only=True)
class PlainFields:
    """The fields that hold one value each, or a list of strings; ``StorageConfig`` has the
    others. All times are in seconds."""

    #: The backend's name; "" means etcd3 if there are servers, else sqlite.
    type: str = _field("", check=_check_type, locates=True)
    #: Comes before every key; "/" for none.
    prefix: str = _field(
        "/registry", check=_check_prefix, normalise=_normalise_prefix, above_backend=True
    )
    #: "host:port" or "http://..." or "https://...", for backends that have servers.
    server_list: tuple[str, ...] = _field((), check=_check_servers, locates=True)
    #: PEM files. Any of them, or https, turns TLS on.
    key_file: str = _field("", credential=True)
    cert_file: str = _field("", credential=True)
    ca_file: str = _field("", credential=True)
    #: Do not verify the servers' certificates. Opening logs a warning.
    insecure_skip_verify: bool = _field(False, credential=True)
    #: Allow that a password goes to another machine without TLS.
    allow_plaintext: bool = _field(False, credential=True)
    username: str = _field("", check=_not_utf8, credential=True)
    password: Secret | None = _field(None, credential=True)  # noqa: RUF009 - an attrs field
    #: Read at opening; a line end at its end is dropped.
    password_file: str = _field("", credential=True)
    #: False allows reads that lag, if the store has them.
    quorum: bool = _field(True)
    #: How many decoded objects are kept by key and revision; 0: none.
    deserialization_cache_size: int = _field(0, check=_at_least(0), above_backend=True)
    codec: str = _field("json", check=_check_name, above_backend=True)
    #: What readers of shared objects get: "share", "deep" copies, or "auto": by the object's type.
    copier: str = _field("auto", check=_check_copier, above_backend=True)
    transformer: str = _field("identity", check=_check_name, above_backend=True)
    #: Names of plugins of the group revstore.wrappers around the backend, the outermost first.
    wrappers: tuple[str, ...] = _field((), check=_check_names)
    #: 0 turns compaction off.
    compaction_interval: float = _field(300.0, above_backend=True)
    #: How far back a cache serves watches; at least 75.
    event_history_window: float = _field(
        75.0, check=_at_least(MIN_EVENT_HISTORY_WINDOW, " seconds"), above_backend=True
    )
    lease_reuse_duration: float = _field(60.0)
    lease_max_object_count: int = _field(1000, check=_at_least(1))
    #: 0 means 2 s, for both.
    healthcheck_timeout: float = _field(2.0, normalise=_two_for_zero, above_backend=True)
    readycheck_timeout: float = _field(2.0, normalise=_two_for_zero, above_backend=True)
    #: 0 turns the counting off.
    count_metric_poll_period: float = _field(60.0, above_backend=True)
    db_metric_poll_interval: float = _field(30.0, above_backend=True)
    #: Calls that take as long are logged; 0: none.
    slow_operation_threshold: float = _field(0.0, above_backend=True)
    #: Create spans of OpenTelemetry; needs opentelemetry-api.
    tracing: bool = _field(False, above_backend=True)


_FIELDS = attrs.fields_dict(PlainFields)
_TYPES = typing.get_type_hints(PlainFields)

#: The names of the plain fields, in their order.
PLAIN = tuple(_FIELDS)
#: Those that hold several values.
LISTS = frozenset(name for name in PLAIN if typing.get_origin(_TYPES[name]) is tuple)


def rule_of(field: attrs.Attribute[Any]) -> Rule:
    """Return the rule of a field of ``StorageConfig``."""
    rule: Rule = field.metadata[Rule]
    return rule


def _names(wanted: Callable[[Rule], bool]) -> tuple[str, ...]:
    return tuple(name for name, field in _FIELDS.items() if wanted(rule_of(field)))


#: Those that say where the store is.
LOCATING = _names(lambda rule: rule.locates)
#: Those that belong to its servers, and are replaced with them.
CREDENTIALS = _names(lambda rule: rule.credential)


def check_field(name: str, given: Given) -> Any:
    """Return the value for the plain field ``name``.

    Raises:
        ConfigError: the value is of a wrong type or out of range; names the field and the origin.
    """
    rule = rule_of(_FIELDS[name])
    value = rule.normalise(convert(given, _TYPES[name], name))
    expected = rule.check(value)
    if expected:
        # An error must not repeat a server that has a user and a password in front.
        raise refuse(name, given, expected, secret="@" in str(given.value))
    return value
