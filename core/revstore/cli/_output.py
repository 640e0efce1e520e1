"""The output formats of ``-o``: table and wide, name, json, yaml."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import click

from revstore.cli._columns import columns_of
from revstore.cli._scope import Target, full_name, metadata_of, type_name
from revstore.cli._table import TableWriter, printable
from revstore.kinds import ResourceInfo

__all__ = [
    "FORMATS",
    "Found",
    "RowWriter",
    "as_list",
    "dump_json",
    "dump_yaml",
    "output_option",
    "print_found",
    "with_type",
]

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "wide", "name", "json", "yaml")


@attrs.frozen
class Found:
    """The objects that were found for a target."""

    target: Target
    objects: Sequence[dict[str, Any]]


def output_option(command: F) -> F:
    """Add the option ``-o``."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Output format.",
    )
    return option(command)


def dump_json(value: Any, *, indent: int | None = 4) -> str:
    """Return JSON as kubectl writes it: keys sorted, one line without ``indent``."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(
        value, indent=indent, sort_keys=True, ensure_ascii=False, separators=separators
    )


def dump_yaml(value: Any) -> str:
    """Return YAML that this project's reader and others read as the same value."""
    from revstore.manifests import to_yaml

    return to_yaml(value)


def with_type(info: ResourceInfo, obj: dict[str, Any]) -> dict[str, Any]:
    """Return ``obj`` with the apiVersion and kind of its resource, so that it can be applied, even
    if it was stored without them. A kind that is known only from its keys has none."""
    given = {"kind": "" if info.kind == info.resource else info.kind}
    given["apiVersion"] = f"{info.group}/v1" if info.group else "v1"
    missing = {name: value for name, value in given.items() if value and not obj.get(name)}
    return {**obj, **missing}


def as_list(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return several objects as one List, as kubectl does."""
    return {
        "apiVersion": "v1",
        "items": list(objects),
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


class RowWriter:
    """Prints objects of one resource as rows of a table; ``extra`` columns come first."""

    def __init__(
        self,
        info: ResourceInfo,
        *,
        namespaces: bool,
        extra: Sequence[str] = (),
        wide: bool = False,
        labels: bool = False,
        headers: bool = True,
        typed: bool = False,
    ) -> None:
        self._info = info
        self._namespaces = namespaces
        self._typed = typed
        self._columns = columns_of(info, wide=wide, labels=labels)
        titles = [*extra, *(["NAMESPACE"] if namespaces else []), "NAME"]
        self._table = TableWriter(
            [*titles, *(column.title for column in self._columns)],
            headers=headers,
            # The longest value that comes in front may come later: the longest type of an event.
            first_width=len("MODIFIED") if extra else 0,
        )

    def write(self, objects: Sequence[dict[str, Any]], extra: Sequence[Sequence[str]] = ()) -> None:
        """Print the rows; ``extra`` has the first cells for each."""
        now = datetime.datetime.now(datetime.UTC)
        rows = []
        for at, obj in enumerate(objects):
            metadata = metadata_of(obj)
            name = str(metadata.get("name", ""))
            front = list(extra[at]) if extra else []
            if self._namespaces:
                front.append(str(metadata.get("namespace") or ""))
            front.append(f"{type_name(self._info)}/{name}" if self._typed else name)
            rows.append([*front, *(column.cell(obj, now) for column in self._columns)])
        self._table.write(rows)


def print_found(
    found: Sequence[Found],
    output: str,
    *,
    single: bool,
    namespaces: bool,
    labels: bool = False,
    headers: bool = True,
) -> None:
    """Print the objects; ``single``: the user named exactly one object."""
    if output in ("json", "yaml"):
        objects = [with_type(each.target.info, obj) for each in found for obj in each.objects]
        if single and not objects:
            return
        value = objects[0] if single else as_list(objects)
        text = dump_json(value) + "\n" if output == "json" else dump_yaml(value)
        click.echo(text, nl=False)
    elif output == "name":
        for each in found:
            for obj in each.objects:
                click.echo(printable(full_name(each.target.info, obj)))
    else:
        shown = [each for each in found if each.objects]
        for at, each in enumerate(shown):
            if at:
                click.echo()
            writer = RowWriter(
                each.target.info,
                namespaces=namespaces and (each.target.info.namespaced or each.target.guessed),
                wide=output == "wide",
                labels=labels,
                headers=headers,
                typed=len(found) > 1,
            )
            writer.write(each.objects)
