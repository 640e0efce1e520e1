"""The objects that a command selects: "pods,services", "pod web", "pod/web svc/db", "all"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from revstore import kinds
from revstore.cli._failures import Failed
from revstore.errors import InvalidArgument, KeyNotFound
from revstore.kinds import ResourceInfo

if TYPE_CHECKING:
    from revstore.cli._session import Session

__all__ = [
    "DEFAULT_NAMESPACE",
    "Scope",
    "Target",
    "full_name",
    "metadata_of",
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
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "horizontalpodautoscalers.autoscaling",
    "cronjobs.batch",
    "jobs.batch",
)


@attrs.frozen
class Target:
    """A resource and the names asked for; no names means all objects. ``guessed`` says that the
    resource was not declared as namespaced or not: there may be objects of both scopes."""

    info: ResourceInfo
    names: tuple[str, ...] = ()
    guessed: bool = False


@attrs.frozen
class Scope:
    """The namespace that a command works in: ``given`` by -n, "" for all namespaces.

    For a resource that may have objects of both scopes, -n means only those of the namespace. None,
    without -n, means those in the default namespace and those in none.
    """

    given: str | None = None

    @property
    def namespace(self) -> str:
        """The namespace of namespaced objects; "" for all namespaces."""
        return DEFAULT_NAMESPACE if self.given is None else self.given

    def of(self, target: Target) -> str | None:
        """Return the namespace to ask the registry for."""
        if not target.info.namespaced or (target.guessed and self.given is None):
            return None
        return self.namespace or None

    def holds(self, target: Target, obj: Any) -> bool:
        """Return whether a listed object is in the scope."""
        if not target.guessed or self.given is not None:
            return True
        return metadata_of(obj).get("namespace") in (None, "", self.namespace)

    def holds_key(self, target: Target, key: str) -> bool:
        """Return whether an unreadable object, listed under ``key``, is in the scope."""
        namespace, _, _ = key.removeprefix(f"{target.info.prefix}/").rpartition("/")
        return self.holds(target, {"metadata": {"namespace": namespace}})

    def candidates(self, target: Target) -> Iterator[ResourceInfo]:
        """Yield where an object of that name may be, in turn.

        For a resource of both scopes that is first no namespace, where ``apply`` puts it without
        -n, then the default one.
        """
        if target.guessed and self.given is None:
            yield attrs.evolve(target.info, namespaced=False)
        yield target.info


def scope_option(**arguments: Any) -> Callable[[F], F]:
    """Return the option ``-n``; None if it is not given."""
    settings = {"show_default": DEFAULT_NAMESPACE, "callback": _refuse_empty, **arguments}
    return click.option("-n", "--namespace", metavar="NAMESPACE", **settings)


def _refuse_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        # Such as -n "$UNSET": neither all namespaces nor the default one is intended.
        raise click.BadParameter("it is empty", ctx, param)
    return value


def selection_options(command: F) -> F:
    """Add the options that select among the objects of a resource."""
    for option in (
        click.option(
            "--field-selector", default="", metavar="FIELDS", help="Such as spec.nodeName=n1."
        ),
        click.option(
            "-l", "--selector", default="", metavar="LABELS", help="Such as app=web,tier!=db."
        ),
        click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces."),
    ):
        command = option(command)
    return command


def type_name(info: ResourceInfo) -> str:
    """Return the part before the name in `-o name`: "pod", "deployment.apps"."""
    return info.singular


def full_name(info: ResourceInfo, obj: Any) -> str:
    """Return what `-o name` prints: "pod/web". An object that others have stored may lack a
    name."""
    return f"{info.singular}/{metadata_of(obj).get('name') or ''}"


def metadata_of(obj: Any) -> dict[str, Any]:
    """Return the metadata of a stored object; empty if others have stored it without."""
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def not_found(target: Target, name: str, scope: Scope) -> str:
    """Return the message for an object that does not exist."""
    where = (
        f" in namespace {scope.namespace!r}" if scope.namespace and target.info.namespaced else ""
    )
    return f'{target.info.qualified} "{name}" not found{where}'


def resolve(session: Session, name: str) -> Target:
    """Return the resource that ``name`` means, among the known ones and those that the store
    holds."""
    overrides = session.config.resources
    known = kinds.known(overrides)
    # These have one meaning, whatever else is stored: a full name, and a name of the core group.
    names = {name: info for info in known for name in info.names if not info.group}
    names |= {info.qualified: info for info in known}
    info = names.get(name.lower())
    if info is None:
        prefixes = {info.prefix for info in known}
        stored = [
            kinds.for_prefix(prefix, overrides)
            for prefix in session.factory.stored_resources()
            if prefix not in prefixes
        ]
        info = _one_of(name, known, stored)
        if info in stored:
            return Target(_with_kind(session, info, stored), guessed=True)
    configured = overrides.get(info.qualified)
    return Target(info, guessed=configured is not None and configured.namespaced is None)


def _one_of(name: str, known: list[ResourceInfo], stored: list[ResourceInfo]) -> ResourceInfo:
    infos = [*known, *stored]
    found = kinds.find(name, infos)
    if all(info in stored and info.qualified != name.lower() for info in found):
        # A kind called Svc or Deploy that somebody stores does not take the name from others.
        shorts = [info for info in known if name.lower() in info.short_names]
        found = [info for info in shorts if not info.group] or [*found, *shorts]
    try:
        info = kinds.only(name, found)
    except InvalidArgument as error:
        raise Failed(str(error)) from error
    if info is not None:
        return info
    spelt = [each for info in infos for each in (info.resource, info.qualified, *info.short_names)]
    close = difflib.get_close_matches(name.lower(), spelt, 1)
    hint = f"did you mean {close[0]!r}?" if close else "no object of it is stored"
    raise Failed(f"unknown resource {name!r}: {hint}")


def _with_kind(session: Session, info: ResourceInfo, stored: list[ResourceInfo]) -> ResourceInfo:
    """Return ``info`` with the kind of its objects, if that kind belongs to it."""
    kind = session.stored_kind(info)
    named = attrs.evolve(info, kind=kind)
    return named if kind and kinds.find(named.singular, [*kinds.KINDS, *stored]) == [info] else info


def parse_targets(session: Session, arguments: Sequence[str]) -> list[Target]:
    """Return the targets that a command line names, in its order."""
    if not arguments:
        raise _usage("expected a resource, such as pods, pod/web, or all")
    if any("/" in argument for argument in arguments):
        return _slashed(session, arguments)
    types, *names = arguments
    wanted = [name for name in types.split(",") if name]
    if not wanted:
        raise _usage(f"{types!r} does not name a resource")
    expanded = [each for name in wanted for each in (_ALL if name.lower() == "all" else (name,))]
    if names and len(expanded) > 1:
        raise _usage("give names with a single resource only, or write TYPE/NAME for each")
    targets = {each.info.prefix: each for each in (resolve(session, name) for name in expanded)}
    unique = tuple(dict.fromkeys(names))
    return [attrs.evolve(target, names=unique) for target in targets.values()]


def _slashed(session: Session, arguments: Sequence[str]) -> list[Target]:
    targets: dict[str, Target] = {}
    for argument in arguments:
        name, slash, item = argument.partition("/")
        if not slash or not name or not item or "/" in item:
            raise _usage(f"{argument!r} must have the form TYPE/NAME, as the other arguments do")
        target = resolve(session, name)
        before = targets.get(target.info.prefix, target).names
        names = before if item in before else (*before, item)
        targets[target.info.prefix] = attrs.evolve(target, names=names)
    return list(targets.values())


def read_one(session: Session, target: Target, name: str, scope: Scope) -> Any:
    """Return one object by name.

    Raises:
        KeyNotFound: it does not exist.
    """
    for info in scope.candidates(target):
        registry = session.factory.registry(info)
        namespace = (scope.namespace or DEFAULT_NAMESPACE) if info.namespaced else None
        try:
            return registry.get(name, namespace)
        except KeyNotFound as error:
            missing = error
    raise missing


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context(silent=True))
