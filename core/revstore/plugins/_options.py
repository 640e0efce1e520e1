"""A backend's own options: from raw values to an instance of its options class."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any

import attrs

from revstore.errors import ConfigError
from revstore.secret import Secret

if TYPE_CHECKING:
    from revstore.backend import BackendInfo
    from revstore.config import StorageConfig

__all__ = ["check_options_class", "secrets_of", "validate_options"]

_TYPES = (str, int, float, bool, tuple[str, ...], Secret)


def validate_options(info: BackendInfo, config: StorageConfig) -> Any:
    """Return ``config.options`` as an instance of ``info.options_class``.

    Raises:
        ConfigError: the class does not declare a name, a value has a wrong type, or the class
            refuses a value with ``ValueError``. The error names ``options.NAME``.
    """
    hints = typing.get_type_hints(info.options_class)
    fields = attrs.fields(info.options_class)
    wanted = {field.alias or field.name: hints[field.name] for field in fields}
    values = config.typed_options(wanted, f"backend {info.name!r}")
    try:
        return info.options_class(**values)
    except ConfigError as error:
        origin = config.sources.get(error.field)
        if origin is None or not origin.label:
            raise
        message = f"{origin.label}: {error}"
        raise ConfigError(error.field, error.value, error.expected, message=message) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "options",
            "",
            f"options of backend {info.name!r}",
            message=f"options: {error}",
        ) from error


def secrets_of(info: BackendInfo, config: StorageConfig) -> list[str]:
    """Return the secret texts that ``config`` holds, which no message may repeat."""
    hints = typing.get_type_hints(info.options_class)
    secrets: list[Any] = [config.password]
    for name, value in config.options.items():
        wanted = hints.get(name)
        if wanted is Secret or Secret in typing.get_args(wanted):
            secrets.append(value)
    texts = [each.reveal() if isinstance(each, Secret) else each for each in secrets]
    return [text for text in texts if isinstance(text, str) and text]


def check_options_class(options_class: Any) -> str:
    """Return why the class cannot be an options class, "" if it can (see
    ``BackendInfo.options_class``)."""
    if not isinstance(options_class, type) or not attrs.has(options_class):
        return "options_class is not an attrs class"
    try:
        hints = typing.get_type_hints(options_class)
    except NameError as error:
        return f"options_class has an annotation that does not resolve: {error}"
    for field in attrs.fields(options_class):
        if field.default is attrs.NOTHING:
            return f"option {field.name!r} has no default"
        wanted = hints.get(field.name)
        options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
        kinds = [option for option in options if option is not types.NoneType]
        if len(kinds) != 1 or kinds[0] not in _TYPES:
            return f"option {field.name!r} has a type that options cannot have: {wanted!r}"
    return ""
