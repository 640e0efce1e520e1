"""The options of the sqlite backend."""

from __future__ import annotations

import attrs

from revstore.backend_tools import seconds
from revstore.errors import ConfigError

__all__ = ["SQLiteOptions"]

_SYNCHRONOUS = ("FULL", "NORMAL")


def _check_path(_: object, __: object, value: object) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError("options.path", value, "the path of a file")
    if value == ":memory:":
        raise ConfigError(
            "options.path", value, "the path of a file; for a store in memory use memory://"
        )
    if value.startswith("file:"):
        raise ConfigError("options.path", value, "a plain path, no file: URI")


def _check_synchronous(_: object, __: object, value: object) -> None:
    if value not in _SYNCHRONOUS:
        raise ConfigError("options.synchronous", value, 'one of "FULL", "NORMAL"')


@attrs.frozen(kw_only=True)
class SQLiteOptions:
    """The options of a sqlite store.

    ``path``: the file, created with mode 0600 if it does not exist; its folder must exist. A
    relative path starts at the working folder at the moment of opening.
    ``synchronous``: "FULL" survives a crash of the machine; "NORMAL" survives only one of the
    process, and is faster.
    ``create``: whether a file that does not exist is created; if not, it is refused.
    ``poll_interval``: seconds between two checks for the writes of other processes, 0.001 to 10.

    Raises:
        ConfigError: a value is not allowed; the error names the field.
    """

    path: str = attrs.field(default="revstore.db", validator=_check_path)
    synchronous: str = attrs.field(default="FULL", validator=_check_synchronous)
    create: bool = True
    poll_interval: float = attrs.field(default=0.05, validator=seconds(0.001, 10))
