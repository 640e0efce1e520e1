"""Which objects a command is about: "pods,services", "pod web", "pod/web svc/db", "all"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from revstore import kinds
from revstore.cli._failures import Failed
from revstore.errors import KeyNotFound
from revstore.kinds import ResourceInfo

if TYPE_CHECKING:
    from revstore.cli._session import Session

__all__ = [
    "DEFAULT_NAMESPACE",
    "Scope",
    "Target",
    "candidates",
    "full_name",
    "not_found",
    "parse_targets",
    "read_one",
    "resolve",
    "scope_option",
    "selection_options",
    "type_name",
]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NAMESPACE = "default"

# What kubectl means by "all": not everything, but what runs.
_ALL = (
    "pods",
    "replicationcontrollers",
    "services",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
)


@attrs.frozen
class Target:
    """A resource and the names asked for; no names means all of it. ``guessed`` tells that
    nobody has said whether it is namespaced: objects of both scopes may be there."""

    info: ResourceInfo
    names: tuple[str, ...] = ()
    guessed: bool = False


@attrs.frozen
class Scope:
    """The namespace that a command works in; "" for all of them."""

    namespace: str = DEFAULT_NAMESPACE

    def of(self, target: Target) -> str | None:
        """What to ask the registry for."""
        return (self.namespace or None) if target.info.namespaced and not target.guessed else None

    def holds(self, target: Target, obj: Any) -> bool:
        """Whether a listed object is in it."""
        if not target.guessed or not self.namespace:
            return True
        return obj["metadata"].get("namespace") in (None, "", self.namespace)


def scope_option(**arguments: Any) -> Callable[[F], F]:
    """The option ``-n``; ``default`` may be given."""
    settings = {"default": DEFAULT_NAMESPACE, "show_default": True, **arguments}
    return click.option("-n", "--namespace", metavar="NAMESPACE", **settings)


def selection_options(command: F) -> F:
    """The options that choose among the objects of a resource."""
    for option in (
        click.option("--field-selector", default="", metavar="FIELDS", help="As spec.nodeName=n1."),
        click.option("-l", "--selector", default="", metavar="LABELS", help="As app=web,tier!=db."),
        click.option("-A", "--all-namespaces", is_flag=True, help="In every namespace."),
    ):
        command = option(command)
    return command


def type_name(info: ResourceInfo, obj: Any = None) -> str:
    """ "pod", "deployment.apps": what stands before the name in `-o name`.

    ``obj``, where it is at hand, knows the kind of a resource that is only known by its keys.
    """
    kind = obj.get("kind") if isinstance(obj, dict) else None
    name = (kind if isinstance(kind, str) else info.kind).lower()
    return f"{name}.{info.group}" if info.group else name


def full_name(info: ResourceInfo, obj: Any) -> str:
    """ "pod/web": what `-o name` prints. What is stored by others may lack a name."""
    return f"{type_name(info, obj)}/{obj['metadata'].get('name') or ''}"


def not_found(target: Target, name: str, scope: Scope) -> str:
    """The message for an object that is not there."""
    where = (
        f" in namespace {scope.namespace!r}" if scope.namespace and target.info.namespaced else ""
    )
    return f'{target.info.qualified} "{name}" not found{where}'


def resolve(session: Session, name: str) -> Target:
    """The resource that people call ``name``: a known one, else one that the store holds."""
    overrides = session.config.resources
    info = kinds.lookup(name, overrides)
    if info is not None:
        configured = overrides.get(info.qualified)
        guessed = configured is not None and configured.namespaced is None
        return Target(info, guessed=guessed)
    stored = [kinds.for_prefix(prefix, overrides) for prefix in session.factory.stored_resources()]
    wanted = name.lower()
    for each in stored:
        plural, _, group = wanted.partition(".")
        names = {plural, kinds.plural_of(plural)}
        if each.resource in names and group in ("", each.group):
            return Target(each, guessed=True)
    known = [
        spelt for each in (*kinds.KINDS, *stored) for spelt in (each.resource, *each.short_names)
    ]
    close = difflib.get_close_matches(wanted, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else "no object of it is stored"
    raise Failed(f"unknown resource {name!r}: {hint}")


def parse_targets(session: Session, arguments: Sequence[str]) -> list[Target]:
    """The targets that a command line names, in its order."""
    if not arguments:
        raise _usage("name a resource, such as pods, pod/web, or all")
    if any("/" in argument for argument in arguments):
        return _slashed(session, arguments)
    types, *names = arguments
    wanted = [name for name in types.split(",") if name]
    if not wanted:
        raise _usage(f"{types!r} names no resource")
    expanded = [each for name in wanted for each in (_ALL if name.lower() == "all" else (name,))]
    if names and len(expanded) > 1:
        raise _usage("names go with a single resource; or write TYPE/NAME for each")
    targets = {each.info.prefix: each for each in (resolve(session, name) for name in expanded)}
    unique = tuple(dict.fromkeys(names))
    return [attrs.evolve(target, names=unique) for target in targets.values()]


def _slashed(session: Session, arguments: Sequence[str]) -> list[Target]:
    targets: dict[str, Target] = {}
    for argument in arguments:
        name, slash, item = argument.partition("/")
        if not slash or not name or not item or "/" in item:
            raise _usage(f"{argument!r} is not of the form TYPE/NAME, as the others are")
        target = resolve(session, name)
        before = targets.get(target.info.prefix, target).names
        names = before if item in before else (*before, item)
        targets[target.info.prefix] = attrs.evolve(target, names=names)
    return list(targets.values())


def read_one(session: Session, target: Target, name: str, scope: Scope) -> Any:
    """Get one object by name. Raises ``KeyNotFound``."""
    namespace = scope.namespace or DEFAULT_NAMESPACE
    for info in candidates(target):
        registry = session.factory.registry(info)
        try:
            return registry.get(name, namespace if info.namespaced else None)
        except KeyNotFound as error:
            missing = error
    raise missing


def candidates(target: Target) -> Iterator[ResourceInfo]:
    """The target's resource, of either scope if nobody has said which."""
    yield target.info
    if target.guessed:
        yield attrs.evolve(target.info, namespaced=not target.info.namespaced)


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context(silent=True))
