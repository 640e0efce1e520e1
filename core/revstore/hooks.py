"""The hooks that a plugin may implement, and the marker to do it with.

A plugin is a distribution with an entry point in one of these groups. The entry point leads to a
light module (``package.module``, no attribute needed) whose functions carry ``@hookimpl``:

===================== ============================= =====================================
group                 the entry point's name is     hooks called on it
===================== ============================= =====================================
revstore.backends     config ``type``, URL scheme   revstore_backend, revstore_doctor
revstore.wrappers     a name in config ``wrappers`` revstore_open_backend
revstore.codecs       config ``codec``              revstore_codecs
revstore.transformers config ``transformer``        revstore_transformers, revstore_doctor
revstore.commands     the subcommand                revstore_commands
===================== ============================= =====================================

Only what the configuration names is imported. The module must not import a driver (grpc,
sqlalchemy, ...): that belongs into the factory of its ``BackendInfo``. Hooks run when a store is
opened, never in its calls. A complete backend plugin::

    from revstore.backend import BackendInfo
    from revstore.hooks import hookimpl

    @hookimpl
    def revstore_backend():
        return BackendInfo(name="mine", api_version=(1, 0), capabilities=frozenset(),
                           description="my store", factory=_open)

    def _open(config, options):
        from mine.store import MyBackend  # the driver is imported here
        return MyBackend(config.server_list, options)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

if TYPE_CHECKING:
    from revstore.backend import Backend, BackendInfo
    from revstore.config import StorageConfig

__all__ = [
    "PROJECT",
    "CheckResult",
    "CodecFactory",
    "DoctorCheck",
    "TransformerFactory",
    "hookimpl",
    "hookspec",
    "revstore_backend",
    "revstore_codecs",
    "revstore_commands",
    "revstore_doctor",
    "revstore_open_backend",
    "revstore_transformers",
]

#: The name by which pluggy knows this project's markers.
PROJECT = "revstore"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Creates a codec for objects of the given type.
CodecFactory = Callable[[type[Any]], Any]
#: Creates a value transformer from the whole configuration.
TransformerFactory = Callable[["StorageConfig"], Any]


class CheckResult(enum.StrEnum):
    """The result of a check of ``revstore doctor``."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class DoctorCheck:
    """One line of ``revstore doctor``: what was checked, the result, and in ``detail``, if it is
    not ok, what to do. ``detail`` must not hold secrets."""

    name: str
    result: CheckResult
    detail: str = ""


@hookspec
def revstore_backend() -> BackendInfo:  # type: ignore[empty-body]
    """Describe the backend that this plugin provides.

    Each backend plugin implements it exactly once. ``BackendInfo.name`` must be the name of the
    entry point. It is called whenever the backend is looked up, so it must be cheap and have no
    side effects.
    """


@hookspec(firstresult=True)
def revstore_open_backend(info: BackendInfo, config: StorageConfig) -> Backend | None:
    """Open the store that ``config`` describes with the backend that ``info`` describes.

    The core's own implementation runs last: it validates ``config.options`` and calls
    ``info.factory``. A plugin of the group ``revstore.wrappers`` wraps it with a pluggy wrapper,
    which runs only if ``config.wrappers`` names it; the first name is outermost::

        @hookimpl(wrapper=True)
        def revstore_open_backend(info, config):
            backend = yield
            return ReadOnly(backend)
    """


@hookspec
def revstore_codecs(register: Callable[[str, CodecFactory], None]) -> None:
    """Call ``register(name, factory)`` for each codec that this plugin provides.

    ``factory(object_type)`` returns a codec for objects of that type. The name of the entry
    point must be among the names registered.
    """


@hookspec
def revstore_transformers(register: Callable[[str, TransformerFactory], None]) -> None:
    """Call ``register(name, factory)`` for each value transformer that this plugin provides.

    ``factory(config)`` returns a transformer, or a ``ResourceTransformers`` if the transformer
    depends on the resource; ``config.transformer_options`` holds the plugin's own options. The name
    of the entry point must be among the names registered.
    """


@hookspec
def revstore_commands(cli: Any) -> None:
    """Add this plugin's subcommand to ``cli``, the click group of the command line.

    It is called only when the subcommand or its help is needed. The command must have the name of
    the entry point.
    """


@hookspec
def revstore_doctor(config: StorageConfig) -> Iterable[DoctorCheck]:  # type: ignore[empty-body]
    """Check what this backend or transformer needs beyond an open store: file modes, driver
    versions, reachable hosts.

    It is called only for the plugins of the configured backend and transformers; for those,
    ``config`` has the transformer and its options alone. It should not raise: an error is shown as
    a failed check.
    """
