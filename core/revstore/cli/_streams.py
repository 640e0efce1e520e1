"""The part of ``get -w`` and ``watch`` that follows changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from revstore.cli._failures import one_line
from revstore.cli._output import RowWriter, dump_json, dump_yaml, with_type
from revstore.cli._scope import Scope, Target, full_name, metadata_of
from revstore.cli._table import printable
from revstore.errors import Expired, WatchClosed

if TYPE_CHECKING:
    from revstore.cli._session import Session
    from revstore.registry import Registry

__all__ = ["Query", "follow"]


@attrs.frozen
class Query:
    """The selection of objects of a resource."""

    selector: str = ""
    field_selector: str = ""
    scope: Scope = attrs.field(factory=Scope)


class _Printer:
    """Prints events one by one, with the type of the event if ``typed``."""

    def __init__(
        self, target: Target, scope: Scope, output: str, *, typed: bool, headers: bool, labels: bool
    ) -> None:
        self._target = target
        self._output = output
        self._typed = typed
        self._rows = RowWriter(
            target.info,
            namespaces=not scope.namespace and (target.info.namespaced or target.guessed),
            extra=("EVENT",) if typed else (),
            wide=output == "wide",
            labels=labels,
            headers=headers,
        )

    def show(self, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Print events: their types and objects."""
        if self._output in ("table", "wide"):
            extra = [(kind,) for kind, _ in events] if self._typed else ()
            self._rows.write([obj for _, obj in events], extra)
            return
        for kind, obj in events:
            click.echo(self._text(kind, obj), nl=False)

    def _text(self, kind: str, obj: dict[str, Any]) -> str:
        if self._output == "name":
            name = printable(full_name(self._target.info, obj))
            return f"{kind} {name}\n" if self._typed else f"{name}\n"
        obj = with_type(self._target.info, obj)
        value = {"type": kind, "object": obj} if self._typed else obj
        if self._output == "json":
            return dump_json(value, indent=None if self._typed else 4) + "\n"
        return f"---\n{dump_yaml(value)}"


def follow(
    session: Session,
    targets: Sequence[Target],
    query: Query,
    *,
    output: str,
    typed: bool = False,
    resource_version: str = "",
    initial: bool = True,
    headers: bool = True,
    labels: bool = False,
) -> None:
    """Print the objects of the one target, then each change, until Ctrl-C or an error.

    With ``resource_version`` or without ``initial`` only changes are printed. If the history that
    it needs was compacted, it says so and begins again with all objects.
    """
    if len(targets) != 1 or len(targets[0].names) > 1:
        raise click.UsageError(
            "can watch only one resource, or one object", click.get_current_context()
        )
    target = targets[0]
    # The command asks again and again, so a cache follows for it. Not for one object, since it
    # reads all, nor for history, which it lacks.
    cached = not target.names and not resource_version
    if cached:
        session.factory.backend(target.info.qualified).status()  # fails at once, if it does
    registry = session.factory.registry(target.info, cached=cached)
    printer = _Printer(target, query.scope, output, typed=typed, headers=headers, labels=labels)
    version = resource_version
    while True:
        try:
            if not version:
                version = _list(session, registry, target, query, printer, show=initial)
            version = _changes(session, registry, target, query, printer, version=version)
        except Expired:
            session.warn("The history since then was compacted; listing again.")
            version, initial = "", True


def _list(
    session: Session,
    registry: Registry[Any],
    target: Target,
    query: Query,
    printer: _Printer,
    *,
    show: bool,
) -> str:
    listed = registry.list(
        query.scope.of(target),
        label_selector=query.selector,
        field_selector=query.field_selector,
        # Only the version counts, if nothing is shown.
        limit=0 if show else 1,
        even_if_corrupt=True,
    )
    if show and not target.names:
        for error in listed.errors:
            if query.scope.holds_key(target, error.key):
                session.complain(one_line(error))
    events = [("ADDED", obj) for obj in listed if _wanted(target, query.scope, obj)]
    if show and events:
        printer.show(events)
    return listed.resource_version


def _wanted(target: Target, scope: Scope, obj: dict[str, Any]) -> bool:
    return scope.holds(target, obj) and (
        not target.names or metadata_of(obj).get("name") in target.names
    )


def _changes(
    session: Session,
    registry: Registry[Any],
    target: Target,
    query: Query,
    printer: _Printer,
    *,
    version: str,
) -> str:
    """Print changes after ``version`` until the watch ends; return the version to go on from."""
    watch = registry.watch(
        query.scope.of(target),
        resource_version=version,
        label_selector=query.selector,
        field_selector=query.field_selector,
        even_if_corrupt=True,
    )
    with watch:
        while True:
            try:
                events = watch.poll(60)
            except WatchClosed as closed:
                return closed.resource_version or watch.resource_version
            for event in events or ():
                if event.error is None or not query.scope.holds_key(target, event.error.key):
                    continue
                if event.type == "DELETED":
                    session.warn(f"{event.error.key}, which was unreadable, was deleted")
                else:
                    session.complain(one_line(event.error))
            shown = [
                (str(event.type), event.object)
                for event in events or ()
                if event.object is not None
                and event.type != "BOOKMARK"
                and _wanted(target, query.scope, event.object)
            ]
            if shown:
                printer.show(shown)
