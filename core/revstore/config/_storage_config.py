"""The configuration of a store: from TOML, from a URL, from ``REVSTORE_*``, or in code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from revstore.config._fields import (
    FIELD_TYPES,
    ResourceConfig,
    check_field,
    check_resources,
    check_together,
)
from revstore.config._layers import (
    Layer,
    expand_url,
    layer_of_environ,
    layer_of_file,
    layer_of_table,
    merge,
)
from revstore.config._url import is_url, redact_url
from revstore.config._values import CODE, FrozenMap, Given, Source, refuse
from revstore.errors import ConfigError
from revstore.secret import Secret

__all__ = ["ResourceConfig", "Secret", "StorageConfig", "redact_url"]


def _field(default: Any, **arguments: Any) -> Any:
    """A plain field: its converter gives the value its type and refuses what will not do."""

    def converter(value: Any, _: Any, field: attrs.Attribute[Any]) -> Any:
        return check_field(field.name, Given(value))

    takes = attrs.Converter(converter, takes_self=True, takes_field=True)
    return attrs.field(default=default, converter=takes, **arguments)


def _options(value: Any) -> FrozenMap[Any]:
    if not isinstance(value, Mapping):
        raise refuse("options", Given(value), "a mapping", secret=True)
    return FrozenMap(value)


def _overrides(value: Any) -> FrozenMap[FrozenMap[Any]]:
    if not isinstance(value, Mapping):
        raise refuse("overrides", Given(value), "a mapping of resources", secret=True)
    tables = {}
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise refuse(f"overrides.{name}", Given(table), "a mapping of fields", secret=True)
        tables[name] = FrozenMap(table)
    return FrozenMap(tables)


def _resources(value: Any) -> FrozenMap[ResourceConfig]:
    if not isinstance(value, Mapping):
        raise refuse("resources", Given(value), "a mapping of resources")
    return check_resources(value)


def _sources(value: Mapping[str, Source]) -> FrozenMap[Source]:
    return FrozenMap(value)


@attrs.frozen(kw_only=True)
class StorageConfig:
    """Where objects are stored, and how (storagebackend.Config). All times are in seconds.

    Making one raises ``ConfigError``, which names the field and its source, for a value of a
    wrong type or out of range and for fields that contradict each other. The backend's own
    ``options`` are checked when the store is opened, as only the plugin knows them.
    Equal configs are equal and have the same hash; ``repr`` shows no secret.
    """

    #: The backend's name; "" means etcd3 if there are servers, else sqlite.
    type: str = _field("")
    #: Stands before every key; "/" for none.
    prefix: str = _field("/registry")
    #: "host:port" or "http://..." or "https://...", for backends that have servers.
    server_list: tuple[str, ...] = _field(())
    #: PEM files. Any of them, or https, turns TLS on.
    key_file: str = _field("")
    cert_file: str = _field("")
    ca_file: str = _field("")
    #: Do not verify the servers' certificates. Warned of at opening.
    insecure_skip_verify: bool = _field(False)
    #: Allow that a password goes to another machine without TLS.
    allow_plaintext: bool = _field(False)
    username: str = _field("")
    password: Secret | None = _field(None)  # noqa: RUF009 - an attrs field
    #: Read at opening; a line end at its end is dropped.
    password_file: str = _field("")
    #: False allows reads that lag, where the store has them.
    quorum: bool = _field(True)
    #: How many decoded objects are kept by key and revision; 0: none.
    deserialization_cache_size: int = _field(0)
    codec: str = _field("json")
    #: What readers of shared objects get: "share", "deep" copies, or "auto": by the object's type.
    copier: str = _field("auto")
    transformer: str = _field("identity")
    #: Names of plugins of the group revstore.wrappers around the backend, the outermost first.
    wrappers: tuple[str, ...] = _field(())
    #: 0 turns compaction off.
    compaction_interval: float = _field(300.0)
    #: How far back a cache serves watches; at least 75.
    event_history_window: float = _field(75.0)
    lease_reuse_duration: float = _field(60.0)
    lease_max_object_count: int = _field(1000)
    #: 0 means 2 s, for both.
    healthcheck_timeout: float = _field(2.0)
    readycheck_timeout: float = _field(2.0)
    #: 0 turns the counting off.
    count_metric_poll_period: float = _field(60.0)
    db_metric_poll_interval: float = _field(30.0)
    #: The backend's own options, raw; see ``revstore.plugins.validate_options``.
    options: Mapping[str, Any] = attrs.field(factory=FrozenMap, converter=_options, hash=False)
    #: Fields that differ for a resource: by "events", "deployments.apps" or "*.apps". Besides
    #: the fields above a table may have ``url``.
    overrides: Mapping[str, Mapping[str, Any]] = attrs.field(
        factory=FrozenMap, converter=_overrides, hash=False
    )
    #: Scope and kind of resources that revstore does not know, by "widgets.example.com".
    resources: Mapping[str, ResourceConfig] = attrs.field(
        factory=FrozenMap, converter=_resources, hash=False
    )
    #: Where values came from, by dotted name; what is not in it is a default or from code.
    sources: Mapping[str, Source] = attrs.field(
        factory=FrozenMap, converter=_sources, eq=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        check_together(self)
        for name in self.overrides:
            self._overridden((name,))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From a URL alone; the environment is not looked at."""
        return cls._build(expand_url({("url",): Given(url)}))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """From a TOML file alone; the environment is not looked at."""
        return cls._build(expand_url(layer_of_file(Path(path))))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """From the ``REVSTORE_*`` variables of ``environ`` (default: the process's), over the
        file that ``REVSTORE_CONFIG`` names."""
        environ = os.environ if environ is None else environ
        path = environ.get("REVSTORE_CONFIG", "")
        below = expand_url(layer_of_file(Path(path))) if path else {}
        return cls._build(merge(below, layer_of_environ(environ)))

    @classmethod
    def load(
        cls,
        url_or_config: str | os.PathLike[str] | StorageConfig | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> StorageConfig:
        """From a URL, a ``.toml`` file, or (None) the environment; a config is returned as it is.

        The variables of ``environ`` (default: the process's) are taken in as this module's
        docstring says.
        """
        if isinstance(url_or_config, StorageConfig):
            return url_or_config
        if url_or_config is None:
            return cls.from_env(environ)
        variables = layer_of_environ(os.environ if environ is None else environ)
        variables.pop(("url",), None)
        where = os.fspath(url_or_config)
        if is_url(where) or not (where.endswith(".toml") or isinstance(url_or_config, Path)):
            url = Given(where, Source("", text=True))
            return cls._build(merge(variables, {("url",): url}, keep_credentials=True))
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
        sources = {".".join(path): given.source for path, given in layer.items()}
        if "resources" in values:
            values["resources"] = check_resources(values["resources"], sources)
        return cls(**values, sources=sources)

    @property
    def resolved_type(self) -> str:
        """The backend's name: ``type``, or what an unset one stands for."""
        return self.type or ("etcd3" if self.server_list else "sqlite")

    @property
    def tls_enabled(self) -> bool:
        """Whether connections use TLS: https in ``server_list``, or any of the three files."""
        return bool(self.key_file or self.cert_file or self.ca_file) or any(
            server.startswith("https://") for server in self.server_list
        )

    def for_resource(self, name: str) -> StorageConfig:
        """The config for a resource, "events" or "deployments.apps": this one with the overrides
        of "*.GROUP" and then of the name itself applied, and without overrides (CFG-4, SF-1)."""
        group = name.partition(".")[2]
        names = (f"*.{group}", name) if group else (name,)
        return self._overridden(tuple(each for each in names if each in self.overrides))

    def _overridden(self, names: tuple[str, ...]) -> StorageConfig:
        if not names:
            return attrs.evolve(self, overrides={}) if self.overrides else self
        layer: Layer = {
            (field,): Given(getattr(self, field), self.sources.get(field, CODE))
            for field in FIELD_TYPES
        }
        for key, value in self.options.items():
            layer["options", key] = Given(value, self.sources.get(f"options.{key}", CODE))
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
                raise ConfigError(key, "", "none: it is not for overrides")
        layer = layer_of_table(table, CODE)
        for path, given in layer.items():
            source = self.sources.get(".".join(("overrides", name, *path)), CODE)
            layer[path] = Given(given.value, source)
        return layer

    def read_password(self) -> Secret | None:
        """The password, from ``password_file`` if that is set. ``ConfigError`` if the file cannot
        be read."""
        if not self.password_file:
            return self.password
        return Secret(_read(self.password_file, "password_file").removesuffix("\n").rstrip("\r"))

    def check_files(self) -> None:
        """``ConfigError`` by field for a file of the TLS set-up or a password file that cannot be
        read; a warning for a secret one that others than its owner can read."""
        for field in ("key_file", "cert_file", "ca_file", "password_file"):
            path = getattr(self, field)
            if not path:
                continue
            _read(path, field)
            if field in ("key_file", "password_file") and os.stat(path).st_mode & 0o077:
                warnings.warn(f"{field} {path!r} can be read by others: chmod 600", stacklevel=3)


def _read(path: str, field: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(
            field, path, "a readable file", message=f"{field}: cannot read {path!r}: {reason}"
        ) from error


def _within(error: ConfigError, name: str) -> ConfigError:
    """``error``, told to be about the override ``name``."""
    where = f"overrides.{name}"
    return ConfigError(
        f"{where}.{error.field}", error.value, error.expected, message=f"in {where}: {error}"
    )
