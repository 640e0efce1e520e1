"""Plugin look-up: names from the configuration become open backends, codecs and transformers.

A backend's name is looked up first among those of ``register_backend`` in code, then among the
entry points of the group ``revstore.backends``. If it is in neither, the error has the pip line for
the backends of this project. Only the plugin that is asked for is imported, and only its failure is
an error. See ``revstore.hooks`` for how to write one.

Variables, with names of plugins or of distributions, separated by commas:
``REVSTORE_PLUGINS``          only these may be used besides the core's own; empty: none
``REVSTORE_DISABLE_PLUGINS``  these may not be used
``REVSTORE_STRICT_PLUGINS``   1: any installed backend that does not work is an error at opening
``REVSTORE_TRACE_PLUGINS``    1: report each step on standard error
"""

from __future__ import annotations

from revstore.plugins._plugins import (
    PluginState,
    PluginStatus,
    check_backend,
    command_names,
    has_command,
    list_backends,
    load_codec,
    load_command,
    load_transformer,
    open_backend,
    open_transformer,
    refusing_to_create,
    register_backend,
    run_doctor,
    unregister_backend,
    validate_options,
)

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
