"""The reader of Kubernetes' EncryptionConfiguration, which refuses what kube-apiserver refuses."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs
import yaml

from revstore.errors import ConfigError
from revstore.raising import let_out
from revstore.secret import Secret

__all__ = [
    "API_VERSION",
    "KEY_SIZES",
    "KIND",
    "Configuration",
    "Key",
    "Kms",
    "Provider",
    "configuration_of",
    "load_document",
    "read_configuration",
]

API_VERSION = "apiserver.config.k8s.io/v1"
KIND = "EncryptionConfiguration"

_AES_SIZES = (16, 24, 32)
#: The providers with keys, and how many bytes a key may have.
KEY_SIZES = {"aesgcm": _AES_SIZES, "aescbc": _AES_SIZES, "secretbox": (32,)}
_PROVIDERS = (*KEY_SIZES, "kms", "identity")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|us|µs|ns|m|s)")
_WITHOUT_API = ("apiserveripinfo", "serviceipallocations", "servicenodeportallocations")


@attrs.frozen
class Key:
    """A key of a provider; ``secret`` is in base64, of a length that fits the provider."""

    name: str
    secret: Secret

    def reveal(self) -> bytes:
        """Return the key's bytes."""
        return base64.b64decode(self.secret.reveal())


@attrs.frozen
class Kms:
    """A plugin process of KMS v2: its name in stored values, the path of its socket ("@" and a name
    for an abstract socket), and the seconds that a call may take."""

    name: str
    path: str
    timeout: float


@attrs.frozen
class Provider:
    """An entry of ``providers``: aesgcm, aescbc or secretbox with keys, kms, or identity."""

    kind: str
    keys: tuple[Key, ...] = ()
    kms: Kms | None = None


_IDENTITY = (Provider("identity"),)


@attrs.frozen
class Configuration:
    """The providers of each resource, by (resource, group), either of which may be "*"."""

    resources: dict[tuple[str, str], tuple[Provider, ...]]

    def providers(self, resource: str) -> tuple[Provider, ...]:
        """Return the providers of a resource such as "secrets" or "deployments.apps"; identity if
        none are configured."""
        name, _, group = resource.partition(".")
        for each in ((name, group), ("*", group), ("*", "*")):
            if each in self.resources:
                return self.resources[each]
        return _IDENTITY


def read_configuration(path: str) -> Configuration:
    """Read the file.

    Raises:
        ConfigError: the file cannot be read, or is not valid. The error names the place in the
            file, and contains no secret.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        let_out(error)
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            "config", path, "a readable file", message=f"{path}: cannot be read: {reason}"
        ) from error
    return configuration_of(path, data)


def configuration_of(path: str, data: bytes) -> Configuration:
    """Return the configuration in the content of the file.

    Raises:
        ConfigError: as in ``read_configuration``.
    """
    return _configuration(_Place(path, "", load_document(path, data)))


def load_document(path: str, data: bytes) -> Any:
    """Return the file's content as plain values.

    Raises:
        ConfigError: it is not valid YAML.
    """
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        let_out(error)
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or "it is not valid YAML"
        where = f" at line {mark.line + 1}" if mark is not None else ""
        # Not chained: the error quotes the document, and so perhaps a secret.
        raise ConfigError("config", path, "YAML", message=f"{path}: {reason}{where}") from None


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys in a mapping. YAML readers usually drop one of them."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                problem="a field's name is not a string", problem_mark=key_node.start_mark
            )
        key = loader.construct_object(key_node)
        if key in result:
            raise yaml.constructor.ConstructorError(
                problem="a field is given twice", problem_mark=key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


@attrs.frozen
class _Place:
    """A value of the file, and where it is."""

    file: str
    path: str
    value: Any

    def refuse(self, expected: str, *, shown: str = "") -> NoReturn:
        where = self.path or "the document"
        text = f"{self.file}: {where}{' ' + shown if shown else ''}: expected {expected}"
        raise ConfigError(self.path or "config", shown, expected, message=text)

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            self.refuse("a string that is not empty")
        return self.value

    def fields(self, *known: str) -> dict[str, _Place]:
        if not isinstance(self.value, dict):
            self.refuse("a mapping")
        for name in self.value:
            if name not in known:
                # The name only: the value of a mistyped field may be a secret.
                expected = f"one of {', '.join(known)}" if known else "no fields"
                self.refuse(expected, shown=f"has the field {name!r}")
        head = f"{self.path}." if self.path else ""
        return {
            name: _Place(self.file, f"{head}{name}", self.value[name])
            for name in known
            if self.value.get(name) is not None
        }

    def field(self, fields: dict[str, _Place], name: str) -> _Place:
        if name not in fields:
            self.refuse(f"the field {name!r}")
        return fields[name]

    def items(self) -> Iterator[_Place]:
        if not isinstance(self.value, list) or not self.value:
            self.refuse("a list with at least one entry")
        for number, each in enumerate(self.value):
            yield _Place(self.file, f"{self.path}[{number}]", each)


def _configuration(document: _Place) -> Configuration:
    fields = document.fields("apiVersion", "kind", "resources", "metadata")
    for name, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        place = document.field(fields, name)
        if place.value != wanted:
            place.refuse(repr(wanted))
    resources: dict[tuple[str, str], tuple[Provider, ...]] = {}
    kms_names: set[str] = set()
    for entry in document.field(fields, "resources").items():
        parts = entry.fields("resources", "providers")
        names = list(map(_resource, entry.field(parts, "resources").items()))
        _check_overlap(entry.field(parts, "resources"), names)
        providers = tuple(map(_provider, entry.field(parts, "providers").items()))
        for kms in (provider.kms for provider in providers if provider.kms is not None):
            if kms.name in kms_names:
                entry.field(parts, "providers").refuse(f"another name than {kms.name!r} for a kms")
            kms_names.add(kms.name)
        for place, each in zip(entry.field(parts, "resources").items(), names, strict=True):
            for mask in (("*", each[1]), ("*", "*")):
                if mask in resources:
                    earlier = ".".join(mask)
                    place.refuse(f"no resource that {earlier!r} of an earlier entry covers")
            resources[each] = resources.get(each, ()) + providers
    return Configuration(resources)


def _resource(place: _Place) -> tuple[str, str]:
    text = place.text()
    name, _, group = text.partition(".")
    expected = ""
    if text != text.lower():
        expected = "a name without capital letters"
    elif text == "*":
        expected = "'*.' for the core group, or '*.*' for all resources"
    elif text in _WITHOUT_API:
        expected = "a resource that has an API"
    elif group == "events.k8s.io":
        expected = "'events', where these objects are stored"
    elif group == "extensions":
        expected = "another group: 'extensions' was removed"
    elif group == "*" and name != "*":
        expected = "one group: 'RESOURCE.GROUP'"
    if expected:
        place.refuse(expected, shown=repr(text))
    return name, group


def _check_overlap(place: _Place, names: list[tuple[str, str]]) -> None:
    if len(set(names)) < len(names):
        place.refuse("each resource once")
    groups = [group for _, group in names]
    for name, group in names:
        if name == "*" and (groups.count(group) > 1 or (group == "*" and len(names) > 1)):
            place.refuse("no resource that another one in the list covers")


def _provider(place: _Place) -> Provider:
    fields = place.fields(*_PROVIDERS)
    # As in Kubernetes, "identity: {}" is a provider, and "identity:" with no value is not.
    if len(fields) != 1:
        place.refuse(f"exactly one of {', '.join(_PROVIDERS)}")
    ((kind, inner),) = fields.items()
    if kind == "identity":
        inner.fields()
        return Provider(kind)
    if kind == "kms":
        return Provider(kind, kms=_kms(inner))
    keys = inner.field(inner.fields("keys"), "keys").items()
    return Provider(kind, tuple(_key(each, KEY_SIZES[kind]) for each in keys))


def _kms(place: _Place) -> Kms:
    fields = place.fields("apiVersion", "name", "cachesize", "endpoint", "timeout")
    version = fields.get("apiVersion")
    if version is None or version.value != "v2":
        (version or place).refuse("apiVersion 'v2': version 1 is not supported")
    if "cachesize" in fields:
        fields["cachesize"].refuse("no value: only version 1 of KMS has this field")
    name = place.field(fields, "name")
    if ":" in name.text():
        name.refuse("a name without ':'", shown=repr(name.value))
    endpoint = place.field(fields, "endpoint")
    url = urllib.parse.urlsplit(endpoint.text())
    path = url.path.removeprefix("/") if url.path.startswith("/@") else url.path
    if url.scheme != "unix" or url.netloc or not path.strip("/@"):
        endpoint.refuse("'unix:///PATH'", shown=repr(endpoint.value))
    timeout = _seconds(fields["timeout"]) if "timeout" in fields else 3.0
    return Kms(name.text(), path, timeout)


def _seconds(place: _Place) -> float:
    text = place.text()
    parts = _DURATION.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds:
        place.refuse("a duration above 0, such as '3s'", shown=repr(text))
    return seconds


def _key(place: _Place, sizes: tuple[int, ...]) -> Key:
    fields = place.fields("name", "secret")
    name = place.field(fields, "name").text()
    secret = place.field(fields, "secret")
    text = "".join(secret.text().split("\n"))
    try:
        size = len(base64.b64decode(text, validate=True))
    except ValueError as error:
        let_out(error)
        size = -1
    if size not in sizes:
        wanted = " or ".join(map(str, sizes))
        found = f"has {size} bytes" if size >= 0 else ""
        secret.refuse(f"{wanted} bytes in base64", shown=found)
    return Key(name, Secret(text))
