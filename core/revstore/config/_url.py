"""Store URLs: ``scheme://[user[:password]@]host[:port][,host...][/prefix][?name=value&...]`` or
``scheme:///path``, the four slashes of an absolute path included."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Collection

from revstore.config._text import Unseen, clean
from revstore.config._values import Given, Origin
from revstore.errors import ConfigError

__all__ = ["is_url", "parse_url", "redact_url", "scheme_of"]

_SCHEME = re.compile(r"([a-z][a-z0-9_.-]*)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(password=)[^&]*", re.IGNORECASE)
_FORM = "SCHEME://HOST:PORT/PREFIX?NAME=VALUE or SCHEME:///PATH, such as 'sqlite:///cluster.db'"


def is_url(text: str) -> bool:
    """Return whether ``text`` has a scheme and ``://``."""
    return bool(scheme_of(text))


def scheme_of(url: str) -> str:
    """Return the scheme of ``url`` in lower case, "" if it has none."""
    match = _SCHEME.match(url.strip())
    return match[1].lower() if match else ""


def redact_url(url: str) -> str:
    """Return ``url`` without user, password and query values, fit to be shown. It need not be a
    valid URL."""
    # If a "?" is missing, the query is mistaken for something else.
    return _PASSWORD.sub(r"\1***", _without_user(url))


def _without_user(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url.rpartition("@")[2].partition("?")[0]
    rest, has_query, query = rest.partition("?")
    # A password may contain a raw "/" or "?" by mistake: hide everything up to the last "@".
    whole = rest + has_query + query
    userinfo, at, hosts = whole.rpartition("@")
    # In a file's path an "@" is part of a name, as long as no "user:password" can come before it.
    if at and (":" in userinfo or not rest.startswith("/")):
        rest, has_query, query = hosts.partition("?")
    if not has_query:
        return f"{scheme}://{rest}"
    names = "&".join(f"{part.partition('=')[0]}=***" for part in query.split("&") if part)
    return f"{scheme}://{rest}?{names}"


def parse_url(
    url: str, origin: Origin, field: str, fields: Collection[str], lists: Collection[str]
) -> dict[tuple[str, ...], Given]:
    """Return what ``url`` says, by path into the configuration: ("prefix",), ("options", "path"),
    ...

    ``fields`` are the names that the query may have, ``lists`` those of them that take several
    values; other query names go to ``options``.

    Raises:
        ConfigError: the URL is not valid; the error is about ``field``.
    """
    try:
        url = _cleaned(url)
        head, _, query = url.partition("?")
        result = _read_head(head)
        if ("server_list",) in result and url.count("@") > (("username",) in result):
            raise _Refused("'%40' for '@', '%2F' for '/' and '%3F' for '?' in a password")
        for path, value in _read_query(query, fields, lists).items():
            if path in result:
                raise _Refused(f"{path[-1]} once: it is in the query and before it")
            result[path] = value
    except _Refused as refused:
        shown = redact_url(url)
        where = f"{origin.label}: " if origin.label and origin.label != field else ""
        text = f"{where}invalid {field} {shown!r}: expected {refused}"
        raise ConfigError(field, shown, str(refused), message=text) from None
    return {path: Given(value, origin) for path, value in result.items()}


class _Refused(Exception):
    """A URL is refused; the text names the expected form."""


def _cleaned(text: str) -> str:
    try:
        return clean(text)
    except Unseen as error:
        raise _Refused(str(error)) from None


def _decoded(text: str, what: str) -> str:
    """Decode the percent signs of a part of the URL. Refuse blanks at its ends: they may be a
    mistake."""
    try:
        value = urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _Refused(f"percent-encoded UTF-8 in the {what}") from None
    if _cleaned(value) != value:
        raise _Refused(f"no leading or trailing blanks in the {what}")
    return value


_Values = dict[tuple[str, ...], str | list[str]]


def _read_head(head: str) -> _Values:
    match = _SCHEME.match(head)
    if match is None:
        # "x.db", and "sqlite:x.db" with too few slashes.
        path = re.sub(r"^sqlite:(?!//)", "", head, flags=re.IGNORECASE)
        is_file = re.search(r"\.(db|sqlite3?)$", path) and "@" not in head
        raise _Refused(f"a URL: write {'sqlite:///' + path!r}" if is_file else _FORM)
    authority, slash, path = head[match.end() :].partition("/")
    if authority and match[1].lower() == "sqlite":
        # A path that begins after two slashes loses its first folder, which is read as a host.
        shown = "PATH" if "@" in head else head[match.end() :]
        raise _Refused(f"no host: write {'sqlite:///' + shown!r}")
    userinfo, at, hosts = authority.rpartition("@")
    if "#" in head:
        raise _Refused("no '#': write %23")
    if at and not hosts:
        raise _Refused("a host after '@'")
    result: _Values = {("type",): match[1].lower()}
    if at:
        user, colon, password = userinfo.partition(":")
        result["username",] = _decoded(user, "user")
        if colon:
            result["password",] = _decoded(password, "password")
    if hosts:
        result["server_list",] = [host for host in hosts.split(",") if host]
        if path:
            result["prefix",] = _decoded(path, "prefix")
    elif slash and path:
        result["options", "path"] = _decoded(path, "path")
    return result


def _read_query(query: str, fields: Collection[str], lists: Collection[str]) -> _Values:
    if "#" in query:
        raise _Refused("no '#': write %23")
    result: _Values = {}
    for part in query.split("&") if query else ():
        raw_name, equals, raw_value = part.partition("=")
        name = _decoded(raw_name, "query's name")
        value = _decoded(raw_value, f"value of {name}")
        if not name or not equals:
            raise _Refused("NAME=VALUE pairs after '?'")
        path = (name,) if name in fields else ("options", name)
        before = result.get(path)
        if name in lists:
            values = [item for item in value.split(",") if item]
            result[path] = [*before, *values] if isinstance(before, list) else values
        elif before is not None:
            raise _Refused(f"{name} once in the query")
        else:
            result[path] = value
    return result
