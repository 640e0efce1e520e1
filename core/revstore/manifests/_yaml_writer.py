"""Values to YAML that every reader takes for the same values."""

from __future__ import annotations

from typing import Any

import yaml

from revstore.manifests._yaml_reader import reads_as_string

__all__ = ["write"]

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: Any, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif not reads_as_string(text):
        # PyYAML leaves off the quotes where only it reads a string: 1e3, y, 22:22.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)


def write(value: Any) -> str:
    """One document, keys sorted, without a marker in front."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=True,
        default_flow_style=False,
        allow_unicode=True,
        width=4096,
    )
    return text
