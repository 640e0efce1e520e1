"""Plugin look-up: names from the configuration become open backends, codecs and transformers."""

from __future__ import annotations

import enum
import warnings
from typing import Any

import attrs
import pluggy

from revstore import hooks
from revstore.backend import Backend, BackendInfo
from revstore.config import StorageConfig
from revstore.errors import BackendIncompatible, PluginError, StorageError
from revstore.hooks import CheckResult, CodecFactory, DoctorCheck, TransformerFactory, hookimpl
from revstore.plugins import _find
from revstore.plugins._find import (
    Found,
    find_one,
    register_backend,
    trace,
    unregister_backend,
)
from revstore.plugins._loading import (
    PLUGIN_ERRORS,
    broken,
    guarded,
    implementation,
    import_drivers,
    load,
    load_backend,
    registrations,
)
from revstore.plugins._options import secrets_of, validate_options
from revstore.raising import described, let_out
from revstore.values import Capability

__all__ = [
    "PluginState",
    "PluginStatus",
    "check_backend",
    "command_names",
    "has_command",
    "list_backends",
    "load_codec",
    "load_command",
    "load_transformer",
    "open_backend",
    "open_transformer",
    "refusing_to_create",
    "register_backend",
    "run_doctor",
    "unregister_backend",
    "validate_options",
]


class PluginState(enum.StrEnum):
    """The state of an installed plugin."""

    OK = "ok"
    BROKEN = "broken"
    #: switched off by a variable
    BLOCKED = "blocked"
    #: its name is claimed by several distributions, or reserved
    CONFLICT = "conflict"
    #: written for another version of the contract
    INCOMPATIBLE = "incompatible"
    #: only its metadata was looked at
    UNCHECKED = "unchecked"


@attrs.frozen(kw_only=True)
class PluginStatus:
    """A line of ``revstore plugins list``. ``reason`` says why it is not ok. The fields from
    ``api_version`` on are empty unless the plugin could be loaded; ``drivers``, module to version,
    is empty unless the plugin was checked."""

    name: str
    distribution: str
    version: str
    status: PluginState
    reason: str = ""
    api_version: tuple[int, int] | None = None
    capabilities: frozenset[Capability] = frozenset()
    description: str = ""
    drivers: dict[str, str] = attrs.field(factory=dict)


class _Core:
    """The core's own implementation of opening; it remembers the backend in case a wrapper
    fails."""

    def __init__(self) -> None:
        self.opened: Backend | None = None

    @hookimpl(trylast=True)
    def revstore_open_backend(self, info: BackendInfo, config: StorageConfig) -> Backend:
        self.opened = info.factory(config, validate_options(info, config))
        return self.opened


def open_backend(config: StorageConfig) -> Backend:
    """Open the store that ``config`` describes.

    Errors that the backend raises on opening are raised unchanged.

    Raises:
        BackendNotInstalled: no installed plugin provides the backend or a wrapper.
        BackendBroken: the plugin is installed but does not work.
        BackendConflict: several plugins have the name.
        BackendIncompatible: the plugin was written for another contract.
        ConfigError: the configuration does not fit the backend.
        BackendError: the backend cannot open the store.
    """
    if _find.strict():
        _check_all()
    found = find_one(_find.BACKENDS, config.resolved_type)
    info, manager = load_backend(found)
    config.check_files()
    if config.insecure_skip_verify:
        warnings.warn("TLS certificates are not verified: insecure_skip_verify", stacklevel=2)
    core = _Core()
    # The backend's plugin only describes; it cannot change how its own or another store is opened.
    manager = _manager_for_opening(core, config.wrappers)
    trace(f"{found.name}: opening")
    try:
        backend = manager.hook.revstore_open_backend(info=info, config=config)
        if not isinstance(backend, Backend):
            raise broken(found, f"opening gave {type(backend).__name__}, not a Backend")
    except BaseException as error:
        if core.opened is not None and isinstance(core.opened, Backend):
            core.opened.close()
        if isinstance(error, StorageError) or not isinstance(error, PLUGIN_ERRORS):
            raise
        let_out(error)
        raise broken(found, f"opening failed: {_shown(error, info, config)}") from error
    return backend


def refusing_to_create(config: StorageConfig) -> StorageConfig:
    """Return ``config`` so that opening refuses a store that does not exist, where the backend has
    an option for that and ``config`` does not set it; it raises the plugin errors of
    ``open_backend``."""
    info, _ = load_backend(find_one(_find.BACKENDS, config.resolved_type))
    names = {field.alias or field.name for field in attrs.fields(info.options_class)}
    if "create" not in names or "create" in config.options:
        return config
    return attrs.evolve(config, options={**config.options, "create": False})


def _manager_for_opening(core: _Core, wrappers: tuple[str, ...]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(core, "revstore")
    # pluggy puts what is registered last outermost.
    for name in reversed(wrappers):
        found = find_one(_find.WRAPPERS, name)
        alone = load(found)
        impl = implementation(alone, found, "revstore_open_backend")
        if not impl.wrapper:
            raise broken(found, "its revstore_open_backend is not a hookimpl(wrapper=True)")
        manager.register(impl.plugin, f"wrapper {name}")
    return manager


def list_backends(*, fast: bool = False) -> list[PluginStatus]:
    """Return every installed backend, by name, whether it works or not.

    The light modules that the entry points name are imported, with errors caught, but no driver;
    with ``fast`` only metadata is read.
    """
    return [
        _status(found, same, fast=fast)
        for _, same in sorted(_find.find_all(_find.BACKENDS).items())
        for found in same
    ]


def check_backend(name: str) -> PluginStatus:
    """Load the backend ``name`` with its drivers, and return its status, which says what is wrong.

    Raises:
        BackendNotInstalled: it does not exist or is switched off.
    """
    same = _find.find_all(_find.BACKENDS).get(name)
    if not same:
        find_one(_find.BACKENDS, name)
        raise AssertionError("find_one raises for a missing name")
    return _status(same[0], same, drivers=True)


def load_codec(name: str) -> CodecFactory:
    """Return the factory of the codec ``name``; it raises the plugin errors of ``open_backend``."""
    return registrations(find_one(_find.CODECS, name), "revstore_codecs")


def load_transformer(name: str) -> TransformerFactory:
    """Return the factory of the value transformer ``name``; it raises the same errors as
    ``load_codec``."""
    return registrations(find_one(_find.TRANSFORMERS, name), "revstore_transformers")


def open_transformer(config: StorageConfig, resource: str) -> Any:
    """Return the value transformer of ``resource``, such as "secrets" or "deployments.apps"; it
    raises the same errors as ``load_codec``, and those of the plugin about its options."""
    made = load_transformer(config.transformer)(config)
    if not hasattr(made, "for_resource"):
        return made
    found = find_one(_find.TRANSFORMERS, config.transformer)
    return guarded(found, made.for_resource, "its for_resource")(resource)


def command_names() -> tuple[str, ...]:
    """Return the subcommands that plugins add, sorted, without those that are switched off.

    Nothing is imported.
    """
    every = _find.find_all(_find.COMMANDS)
    return tuple(
        sorted(name for name, same in every.items() if not all(map(_find.blocked_by, same)))
    )


def has_command(name: str) -> bool:
    """Return whether a plugin adds the subcommand, or a distribution of this project would; then
    the error of ``load_command`` says which."""
    return name in command_names() or _find.reserved(_find.COMMANDS, name)


def load_command(name: str, cli: Any) -> None:
    """Let the plugin of the subcommand ``name`` add it to the click group ``cli``."""
    found = find_one(_find.COMMANDS, name)
    manager = load(found, "revstore_commands")
    try:
        manager.hook.revstore_commands(cli=cli)
    except PLUGIN_ERRORS as error:
        let_out(error)
        raise broken(found, f"revstore_commands failed: {described(error)}") from error


def run_doctor(config: StorageConfig) -> tuple[DoctorCheck, ...]:
    """Return the results of the checks of the configured backend's plugin, then of the plugins of
    the transformers, those of the overrides included.

    It raises the plugin errors of ``open_backend``; an error in a plugin's checks, or a transformer
    that does not work, is returned as a failed check.
    """
    found = find_one(_find.BACKENDS, config.resolved_type)
    info, manager = load_backend(found)
    checks: list[DoctorCheck] = []
    try:
        checks += _answers(manager, config)
    except PLUGIN_ERRORS as error:
        let_out(error)
        checks.append(_failed(found.name, _shown(error, info, config)))
    for each in _transforming(config):
        try:
            checks += _answers(load(find_one(_find.TRANSFORMERS, each.transformer)), each)
        except PLUGIN_ERRORS as error:
            let_out(error)
            checks.append(_failed(each.transformer, described(error)))
    return tuple(checks)


def _answers(manager: pluggy.PluginManager, config: StorageConfig) -> list[DoctorCheck]:
    answers = manager.hook.revstore_doctor(config=config)
    return [check for checks in answers for check in checks]


def _failed(name: str, detail: str) -> DoctorCheck:
    return DoctorCheck(name=name, result=CheckResult.FAILED, detail=detail)


def _transforming(config: StorageConfig) -> list[StorageConfig]:
    """Return a part of the configuration for each transformer with options of its own."""
    found: list[StorageConfig] = []
    for each in (config, *map(config.for_resource, config.overrides)):
        own = StorageConfig(
            transformer=each.transformer, transformer_options=each.transformer_options
        )
        if each.transformer != "identity" and own not in found:
            found.append(own)
    return found


def _status(
    found: Found, same: list[Found], *, fast: bool = False, drivers: bool = False
) -> PluginStatus:
    row = PluginStatus(
        name=found.name,
        distribution=found.distribution,
        version=found.version,
        status=PluginState.UNCHECKED,
    )
    blocked = _find.blocked_by(found)
    if blocked:
        return attrs.evolve(row, status=PluginState.BLOCKED, reason=f"by {blocked}")
    rivals = [other for other in same if not _find.blocked_by(other)]
    conflict = _find.conflict(rivals)
    if conflict is not None:
        return attrs.evolve(row, status=PluginState.CONFLICT, reason=str(conflict))
    if fast:
        return row
    try:
        info, _ = load_backend(found)
        row = attrs.evolve(
            row,
            api_version=info.api_version,
            capabilities=info.capabilities,
            description=info.description,
        )
        versions = import_drivers(info, found) if drivers else {}
    except BackendIncompatible as error:
        return attrs.evolve(
            row,
            status=PluginState.INCOMPATIBLE,
            reason=str(error),
            api_version=error.plugin_api,
        )
    except PluginError as error:
        return attrs.evolve(row, status=PluginState.BROKEN, reason=str(error))
    return attrs.evolve(row, status=PluginState.OK, drivers=versions)


def _check_all() -> None:
    for name, same in sorted(_find.find_all(_find.BACKENDS).items()):
        if not all(map(_find.blocked_by, same)):
            load_backend(find_one(_find.BACKENDS, name))


def _shown(error: BaseException, info: BackendInfo, config: StorageConfig) -> str:
    """Return a foreign error in one line; it may repeat its arguments, but no secret."""
    text = described(error)
    for secret in secrets_of(info, config):
        text = text.replace(secret, "***")
    return text
