import attrs

from revstore.backend import BackendInfo
from revstore.errors import ConfigError
from revstore.hooks import hookimpl
from revstore.values import Capability


@attrs.frozen
class TinyOptions:
    """The fields of [options]. Each has a default, and a type that can be parsed from text."""

    max_value: int = 8_000_000


@hookimpl
def revstore_backend():
    return BackendInfo(
        name="tiny",
        api_version=(1, 0),
        capabilities=frozenset({Capability.NESTED_KEYS}),
        description="in a dict",
        options_class=TinyOptions,
        factory=_open,
    )


def _open(config, options):
    if config.server_list:
        expected = "none: tiny has no servers (a path has three slashes before it, as in tiny:///x)"
        raise ConfigError("server_list", config.server_list, expected)
    from revstore_tiny._store import TinyBackend

    return TinyBackend(options.max_value)
