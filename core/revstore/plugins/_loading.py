"""The import of one plugin, whose errors are caught, and its calls through pluggy.

Every load has its own plugin manager, which holds this one plugin and is dropped afterwards. So two
backends can be open at once (to migrate) without interfering, a plugin that fails leaves nothing
registered, and no lock is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from revstore import hooks
from revstore.backend import API_VERSION, BackendInfo
from revstore.errors import BackendBroken, BackendIncompatible, StorageError
from revstore.plugins._find import Found, kind_of, trace
from revstore.plugins._options import check_options_class
from revstore.raising import described, let_out
from revstore.values import Capability

__all__ = [
    "PLUGIN_ERRORS",
    "broken",
    "guarded",
    "implementation",
    "import_drivers",
    "load",
    "load_backend",
    "registrations",
]

#: If a plugin raises one of these it is broken. Ctrl-C is not its fault.
PLUGIN_ERRORS = (Exception, SystemExit)


def broken(found: Found, reason: str) -> BackendBroken:
    """Return the error for a plugin that does not work."""
    return BackendBroken(
        found.name,
        distribution=found.distribution,
        version=found.version,
        reason=reason,
        kind=kind_of(found.group),
    )


def load(found: Found, *hook_names: str) -> pluggy.PluginManager:
    """Return a manager with just this plugin, which implements the first of ``hook_names`` exactly
    once.

    Raises:
        BackendBroken: its import or its hooks fail. By itself pluggy would ignore some of this: a
            function without ``@hookimpl``, or with another project's, is not a hook.
    """
    trace(f"{found.name}: importing {found.value} from {found.origin}")
    try:
        plugin = found.load()
    except PLUGIN_ERRORS as error:
        let_out(error)
        raise broken(found, f"importing {found.value} failed: {described(error)}") from error
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(plugin, found.name)
        manager.check_pending()
    except PLUGIN_ERRORS as error:
        let_out(error)
        raise broken(found, f"its hooks do not fit: {described(error)}") from error
    for name in hook_names:
        implementation(manager, found, name)
    return manager


def implementation(manager: pluggy.PluginManager, found: Found, name: str) -> pluggy.HookImpl:
    """Return the plugin's one implementation of the hook ``name``.

    Raises:
        BackendBroken: there is not exactly one.
    """
    impls = getattr(manager.hook, name).get_hookimpls()
    if len(impls) != 1:
        problem = f"{len(impls)} times {name}" if impls else f"no {name}"
        raise broken(
            found,
            f"it has {problem}, expected one; is @hookimpl of revstore.hooks on it?",
        )
    impl: pluggy.HookImpl = impls[0]
    return impl


def load_backend(found: Found) -> tuple[BackendInfo, pluggy.PluginManager]:
    """Return the plugin's BackendInfo, checked, and its manager. Its driver is not imported.

    Raises:
        BackendBroken: the plugin does not work.
        BackendIncompatible: it was written for another contract.
    """
    manager = load(found, "revstore_backend")
    impl = implementation(manager, found, "revstore_backend")
    if impl.wrapper or impl.hookwrapper:
        raise broken(found, "its revstore_backend is a wrapper")
    try:
        info = impl.function()
    except PLUGIN_ERRORS as error:
        let_out(error)
        raise broken(found, f"revstore_backend failed: {described(error)}") from error
    if not isinstance(info, BackendInfo):
        raise broken(found, f"revstore_backend returned {type(info).__name__}, not a BackendInfo")
    _check_api(info, found)
    problem = _problem(info, found)
    if problem:
        raise broken(found, problem)
    return info, manager


def _check_api(info: BackendInfo, found: Found) -> None:
    version = info.api_version
    parts: Any = version
    if not isinstance(parts, tuple) or [type(part) for part in parts] != [int, int]:
        raise broken(found, f"api_version {version!r} is not a pair of numbers")
    if version[0] != API_VERSION[0] or version[1] > API_VERSION[1]:
        raise BackendIncompatible(
            found.name,
            distribution=found.distribution,
            plugin_api=version,
            host_api=API_VERSION,
        )


def _problem(info: Any, found: Found) -> str:
    if info.name != found.name:
        return f"its BackendInfo is named {info.name!r}"
    if not isinstance(info.capabilities, frozenset) or not info.capabilities <= set(Capability):
        return "capabilities is not a frozenset of Capability"
    if not callable(info.factory):
        return "factory cannot be called"
    if not isinstance(info.drivers, tuple):
        return "drivers is not a tuple of module names"
    return check_options_class(info.options_class)


def import_drivers(info: BackendInfo, found: Found) -> dict[str, str]:
    """Import the backend's drivers; return each with its version, "" if it has none."""
    versions = {}
    for name in info.drivers:
        trace(f"{found.name}: importing driver {name}")
        try:
            module = importlib.import_module(name)
        except PLUGIN_ERRORS as error:
            let_out(error)
            raise broken(
                found, f"importing the driver {name} failed: {described(error)}"
            ) from error
        versions[name] = str(getattr(module, "__version__", ""))
    return versions


def registrations(found: Found, hook: str) -> Callable[..., Any]:
    """Return the factory that the plugin registers under its own name in ``hook``."""
    manager = load(found, hook)
    factories: dict[str, Callable[..., Any]] = {}

    def register(name: str, factory: Callable[..., Any]) -> None:
        if name in factories:
            raise ValueError(f"{name!r} is registered twice")
        if not callable(factory):
            raise TypeError(f"the factory of {name!r} cannot be called")
        factories[name] = factory

    try:
        getattr(manager.hook, hook)(register=register)
    except PLUGIN_ERRORS as error:
        let_out(error)
        raise broken(found, f"{hook} failed: {described(error)}") from error
    if found.name not in factories:
        raise broken(found, f"{hook} registered {_listed(factories)}, not {found.name!r}")
    return guarded(found, factories[found.name], "its factory")


def guarded(found: Found, function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Return ``function`` of the plugin, so that its failure is one of the plugin.

    The errors of ``revstore.errors`` come out unchanged.
    """

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (StorageError, MemoryError):
            raise
        except PLUGIN_ERRORS as error:
            let_out(error)
            raise broken(found, f"{what} failed: {described(error)}") from error

    return call


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"
