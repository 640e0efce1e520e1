"""The functions that the configuration names as upgrades of stored objects."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Sequence

from revstore.codec import Upgrade
from revstore.errors import ConfigError
from revstore.raising import described, let_out

__all__ = ["load_upgrades"]


def load_upgrades(named: Sequence[str], resource: str) -> dict[str, Upgrade]:
    """Return the functions of a resource by version: "v1=myapp.widgets:to_v2" is ``to_v2`` of the
    module ``myapp.widgets``.

    Raises:
        ConfigError: one cannot be imported, or is no function.
    """
    upgrades: dict[str, Upgrade] = {}
    for text in named:
        version, _, where = text.partition("=")
        module, _, name = where.partition(":")
        field = f"resources.{resource}.upgrades"
        try:
            function = operator.attrgetter(name)(importlib.import_module(module))
        except Exception as error:
            let_out(error)
            message = f"invalid {field} {text!r}: {where} cannot be imported: {described(error)}"
            raise ConfigError(field, text, "a function", message=message) from error
        if not callable(function) or version in upgrades:
            expected = "a function" if version not in upgrades else "each version once"
            raise ConfigError(field, text, expected)
        upgrades[version] = function
    return upgrades
