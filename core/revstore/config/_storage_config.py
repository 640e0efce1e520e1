"""The configuration of a store: from TOML, from a URL, from ``REVSTORE_*``, or in code."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from revstore.config._fields import PLAIN, SERVER, PlainFields, Rule, check_field, rule_of
from revstore.config._layers import (
    Layer,
    expand_url,
    layer_of_environ,
    layer_of_file,
    layer_of_table,
    merge,
)
from revstore.config._resources import ResourceConfig, check_resource_name, check_resources
from revstore.config._text import Unseen, clean_secret
from revstore.config._url import is_url, redact_url
from revstore.config._values import CODE, FrozenMap, Given, Origin, convert, refuse, unknown_name
from revstore.errors import ConfigError
from revstore.secret import Secret

__all__ = ["ResourceConfig", "Secret", "StorageConfig", "redact_url"]


def _options(value: Any, field: str = "options") -> FrozenMap[Any]:
    if not isinstance(value, Mapping):
        raise refuse(field, Given(value), "a mapping", secret=True)
    return FrozenMap(value)


def _transformer_options(value: Any) -> FrozenMap[Any]:
    return _options(value, "transformer_options")


def _overrides(value: Any) -> FrozenMap[FrozenMap[Any]]:
    if not isinstance(value, Mapping):
        raise refuse("overrides", Given(value), "a mapping of resources", secret=True)
    tables = {}
    for name, table in value.items():
        check_resource_name("overrides", name)
        if not isinstance(table, Mapping):
            raise refuse(f"overrides.{name}", Given(table), "a mapping of fields", secret=True)
        tables[name] = FrozenMap(table)
    return FrozenMap(tables)


def _resources(value: Any) -> FrozenMap[ResourceConfig]:
    if not isinstance(value, Mapping):
        raise refuse("resources", Given(value), "a mapping of resources")
    return check_resources(value)


def _sources(value: Mapping[str, Origin]) -> FrozenMap[Origin]:
    return FrozenMap(value)


_ABOVE = {Rule: Rule(above_backend=True)}


@attrs.frozen(kw_only=True)
class StorageConfig(PlainFields):
    """The description of a store (storagebackend.Config). All times are in seconds.

    The backend's own ``options`` are checked when the store is opened, since only the plugin knows
    them. Equal configs have the same hash; ``repr`` shows no secret.

    Raises:
        ConfigError: a value is of a wrong type or out of range, or fields contradict each other.
            The error names the field and its source.
    """

    #: The backend's own options, raw; see ``revstore.plugins.validate_options``.
    options: Mapping[str, Any] = attrs.field(
        factory=FrozenMap, converter=_options, hash=False, metadata={Rule: Rule()}
    )
    #: The transformer's own options, raw; see ``typed_options``.
    transformer_options: Mapping[str, Any] = attrs.field(
        factory=FrozenMap, converter=_transformer_options, hash=False, metadata=_ABOVE
    )
    #: Fields that differ for a resource: by "events", "deployments.apps" or "*.apps". Besides
    #: the fields above a table may have ``url``.
    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(
        factory=FrozenMap, converter=_overrides, hash=False, metadata=_ABOVE
    )
    #: Scope and kind of resources that revstore does not know, by "widgets.example.com".
    resources: Mapping[str, ResourceConfig] = attrs.field(
        factory=FrozenMap, converter=_resources, hash=False, metadata=_ABOVE
    )
    #: Where values came from, by dotted name; a value that is not in it is a default or from code.
    sources: Mapping[str, Origin] = attrs.field(
        factory=FrozenMap, converter=_sources, eq=False, repr=False, metadata={Rule: Rule()}
    )

    def __attrs_post_init__(self) -> None:
        _check_together(self)
        for name in self.overrides:
            self._overridden((name,))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Load a URL alone; ignore the environment."""
        return cls._build(expand_url({("url",): Given(url)}))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Load a TOML file alone; ignore the environment."""
        return cls._build(expand_url(layer_of_file(Path(path))))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Load the ``REVSTORE_*`` variables of ``environ`` (default: the process's).

        They override the file that ``REVSTORE_CONFIG`` names.
        """
        environ = os.environ if environ is None else environ
        label = "REVSTORE_CONFIG"
        path = convert(Given(environ.get(label, ""), Origin(label, text=True)), str, "config")
        below = expand_url(layer_of_file(Path(path))) if path else {}
        return cls._build(merge(below, layer_of_environ(environ)))

    @classmethod
    def load(
        cls,
        url_or_config: str | os.PathLike[str] | StorageConfig | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> StorageConfig:
        """Load a URL, a ``.toml`` file, or (None) the environment; return a config unchanged.

        The variables of ``environ`` (default: the process's) apply as this module's docstring says.
        """
        if isinstance(url_or_config, StorageConfig):
            return url_or_config
        if url_or_config is None:
            return cls.from_env(environ)
        variables = layer_of_environ(os.environ if environ is None else environ)
        where = os.fspath(url_or_config)
        if (isinstance(url_or_config, str) and is_url(where)) or not _is_file(url_or_config):
            url = Given(where, Origin("", text=True))
            return cls._build(merge(variables, {("url",): url}, under_code=True))
        if isinstance(url_or_config, str):
            where = convert(Given(where), str, "config")
        variables.pop(("url",), None)
        return cls._build(merge(expand_url(layer_of_file(Path(where))), variables))

    @classmethod
    def _build(cls, layer: Layer) -> Self:
        values: dict[str, Any] = {}
        for path, given in layer.items():
            if len(path) == 1:
                values[path[0]] = check_field(path[0], given)
                continue
            table = values
            for name in path[:-1]:
                table = table.setdefault(name, {})
            table[path[-1]] = given.value
        sources = {".".join(path): given.origin for path, given in layer.items()}
        if "resources" in values:
            values["resources"] = check_resources(values["resources"], sources)
        return cls(**values, sources=sources)

    @property
    def resolved_type(self) -> str:
        """The backend's name: ``type``, or the one that an unset type means."""
        return self.type or ("etcd3" if self.server_list else "sqlite")

    @property
    def tls_enabled(self) -> bool:
        """True if connections use TLS: https in ``server_list``, or one of the three files."""
        return bool(self.key_file or self.cert_file or self.ca_file) or any(
            server.startswith("https://") for server in self.server_list
        )

    def for_resource(self, name: str) -> StorageConfig:
        """Return the config for a resource, "events" or "deployments.apps".

        It is this config with the overrides of "*.GROUP", then those of the name itself, and
        without the table of overrides (CFG-4, SF-1).
        """
        group = name.partition(".")[2]
        names = (f"*.{group}", name) if group else (name,)
        return self._overridden(tuple(each for each in names if each in self.overrides))

    def _overridden(self, names: tuple[str, ...]) -> StorageConfig:
        if not names:
            return attrs.evolve(self, overrides={}) if self.overrides else self
        layer: Layer = {
            (field,): Given(getattr(self, field), self.sources.get(field, CODE)) for field in PLAIN
        }
        for table in ("options", "transformer_options"):
            for key, value in getattr(self, table).items():
                layer[table, key] = Given(value, self.sources.get(f"{table}.{key}", CODE))
        for name in names:
            try:
                layer = merge(layer, self._override_layer(name))
                result = self._build(layer)
            except ConfigError as error:
                raise _within(error, name) from error.__cause__
        return attrs.evolve(result, resources=self.resources)

    def _override_layer(self, name: str) -> Layer:
        table = self.overrides[name]
        for key in ("overrides", "resources"):
            if key in table:
                raise ConfigError(key, "", "no value: overrides cannot set it")
        layer = layer_of_table(table, CODE)
        for path, given in layer.items():
            origin = self.sources.get(".".join(("overrides", name, *path)), CODE)
            layer[path] = Given(given.value, origin)
        return layer

    def backend_part(self) -> StorageConfig:
        """Return the config with only those fields that open a backend: configs with an equal part
        can share one backend."""
        plain = StorageConfig()
        above = [each.name for each in attrs.fields(StorageConfig) if rule_of(each).above_backend]
        return attrs.evolve(self, **{name: getattr(plain, name) for name in above})

    def typed_options(
        self, wanted: Mapping[str, Any], what: str, table: str = "options"
    ) -> dict[str, Any]:
        """Return ``options``, or those of another ``table``, "transformer_options", with the types
        that ``wanted`` gives by name.

        Raises:
            ConfigError: an option is not in ``wanted``, the options of ``what``, or has a value of
                another type. It names ``options.NAME`` and the source.
        """
        values = {}
        for name, value in getattr(self, table).items():
            path = f"{table}.{name}"
            origin = self.sources.get(path, CODE)
            if name not in wanted:
                raise unknown_name(path, origin, wanted, f"option of {what}:")
            values[name] = convert(Given(value, origin), wanted[name], path)
        return values

    def read_password(self) -> Secret | None:
        """Return the password, from ``password_file`` if that is set.

        Raises:
            ConfigError: the file cannot be read, or has blanks around the password other than one
                line end at its end.
        """
        if not self.password_file:
            return self.password
        field = "password_file"
        try:
            return Secret(clean_secret(_read(self.password_file, field).removeprefix("\ufeff")))
        except Unseen as error:
            message = f"{field}: the password in {self.password_file!r}: expected {error}"
            raise ConfigError(field, self.password_file, str(error), message=message) from None

    def check_files(self) -> None:
        """Check the TLS files and the password file.

        It warns about a secret file that others than its owner can read.

        Raises:
            ConfigError: a file cannot be read; the error names its field.
        """
        for field in ("key_file", "cert_file", "ca_file", "password_file"):
            path = getattr(self, field)
            if not path:
                continue
            _read(path, field)
            if field in ("key_file", "password_file") and os.stat(path).st_mode & 0o077:
                warnings.warn(f"{field} {path!r} can be read by others: chmod 600", stacklevel=3)


def _check_together(config: StorageConfig) -> None:
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
        if not _is_loopback(server):
            raise ConfigError(
                "allow_plaintext",
                False,
                "true, or TLS",
                message=f"the password would go to {server!r} in plain text: use https or a "
                "ca_file, or set allow_plaintext",
            )


def _is_loopback(server: str) -> bool:
    """Return whether ``server`` ("host:port", "https://host") names this machine's loopback."""
    match = SERVER.fullmatch(server)
    host = match[2].strip("[]") if match else ""
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _read(path: str, field: str) -> str:
    try:
        return Path(path).read_bytes().decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(
            field, path, "a readable file", message=f"{field}: cannot read {path!r}: {reason}"
        ) from error


def _is_file(where: str | os.PathLike[str]) -> bool:
    return not isinstance(where, str) or where.strip().endswith(".toml")


def _within(error: ConfigError, name: str) -> ConfigError:
    """Return ``error`` with the override ``name`` added to its field."""
    where = f"overrides.{name}"
    return ConfigError(
        f"{where}.{error.field}", error.value, error.expected, message=f"in {where}: {error}"
    )
