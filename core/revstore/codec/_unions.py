"""To which member of a union a JSON value belongs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from revstore.codec._json import kind_of
from revstore.codec._shapes import PlainShape, Shape, UnionShape, ValuesShape
from revstore.errors import UnsupportedType

__all__ = ["union_shape"]


def union_shape(members: Sequence[Shape], where: str, checks: list[Callable[[], None]]) -> Shape:
    """Return the shape of a union.

    Its members are distinguished by their JSON kind, by a tag, or by required names. ``checks``
    collects what must run once all classes have their fields.

    Raises:
        UnsupportedType: two of them cannot be distinguished.
    """
    flat = [
        part
        for each in members
        for part in (each.members if isinstance(each, UnionShape) else (each,))
    ]
    flat = _one_literal(flat)
    unique = [each for index, each in enumerate(flat) if each not in flat[:index]]
    open_types = {cls for each in unique if each.values is None for cls in each.types}
    # Literal["a"] | str is str.
    kept = [each for each in unique if each.values is None or not each.types <= open_types]
    anything = next((each for each in kept if isinstance(each, PlainShape)), None)
    if anything is not None:  # Any | None is Any
        kept = [anything, *(x for x in kept if not x.check and not isinstance(x, PlainShape))]
    if len(kept) == 1:
        return kept[0]
    objects = [each for each in kept if "object" in each.kinds]
    for left, right in itertools.combinations(kept, 2):
        if left in objects and right in objects and _are_classes(left, right):
            if left.types & right.types - {dict}:
                raise UnsupportedType(
                    where,
                    f"{left.name} | {right.name}",
                    "classes whose instances differ in type: these are the same class",
                )
            continue
        _check_apart(left, right, where)
    chooser = _Chooser(kept)
    if len(objects) > 1:
        checks.append(lambda: chooser.set_objects(_by_names(objects, where)))
    return UnionShape(" or ".join(each.name for each in kept), tuple(kept), chooser.choose)


def _one_literal(members: list[Shape]) -> list[Shape]:
    """Return ``members`` with all Literals merged into one.

    It does not matter to which of them a value belongs, as long as no two have different values
    that are the same in JSON.
    """
    literals = [each for each in members if isinstance(each, ValuesShape) and each.literal]
    values: dict[tuple[str, Any], Any] = {}
    for each in literals:
        for json, value in each.values.items():
            if type(values.setdefault(json, value)) is not type(value):
                return members
    if len(literals) < 2:
        return members
    one = ValuesShape(f"one of {list(values.values())}", values, literal=True)
    return [*(each for each in members if each not in literals), one]


def _are_classes(*shapes: Shape) -> bool:
    return all(hasattr(each, "fields") for each in shapes)


def _check_apart(left: Shape, right: Shape, where: str) -> None:
    shared = left.kinds & right.kinds
    if "float" in left.kinds ^ right.kinds:
        shared -= {"int"}  # int | float: a number without a point is the int
    if left.values is not None and right.values is not None:
        shared = frozenset(kind for kind, _ in left.values.keys() & right.values.keys())
    if shared:
        raise UnsupportedType(
            where,
            f"{left.name} | {right.name}",
            f"types that differ in JSON: both are a {min(shared)} there; use one of them, or "
            "classes with a tag",
        )


class _Chooser:
    def __init__(self, members: Sequence[Shape]) -> None:
        self._values: dict[tuple[str, Any], Shape] = {}
        self._kinds: dict[str, Shape] = {}
        self._choose_object: Callable[[Any], Shape | None] | None = None
        # Floats last, so that an int is an int if both are members.
        for each in sorted(members, key=lambda each: "float" in each.kinds):
            if each.values is not None:
                self._values.update(dict.fromkeys(each.values, each))
            else:
                for kind in each.kinds:
                    self._kinds.setdefault(kind, each)

    def set_objects(self, choose: Callable[[Any], Shape | None]) -> None:
        """Set the function that chooses between several classes."""
        self._choose_object = choose

    def choose(self, value: Any) -> Shape | None:
        """Return the member for a JSON value, or None if no member fits."""
        kind = kind_of(value)
        if kind == "object" and self._choose_object is not None:
            return self._choose_object(value)
        if self._values and kind not in ("list", "object"):
            found = self._values.get((kind, value))
            if found is not None:
                return found
        return self._kinds.get(kind)


def _by_names(members: Sequence[Any], where: str) -> Callable[[Any], Shape | None]:
    tag = _common_tag(members)
    if tag:
        table = {
            (kind, value): each for each in members for kind, value in each.fields[tag].shape.values
        }
        return lambda value: table.get(_hashable(value.get(tag)))
    required = {each: frozenset(each.required) for each in members}
    for left, right in itertools.permutations(members, 2):
        # All fields are always stored, so names of one class may be optional in the other.
        if required[left] <= set(right.fields):
            raise UnsupportedType(
                where,
                f"{left.name} | {right.name}",
                f"classes that can be told apart: every required field of {left.name} is a field "
                f'of {right.name} too; give both a tag such as type: Literal["..."]',
            )

    def choose(value: Any) -> Shape | None:
        found = [each for each in members if required[each] <= value.keys()]
        return found[0] if len(found) == 1 else None

    return choose


def _hashable(value: Any) -> tuple[str, Any]:
    kind = kind_of(value)
    return (kind, None) if kind in ("", "list", "object") else (kind, value)


def _common_tag(members: Sequence[Any]) -> str:
    """Return the name of a field whose values differ between all members, or "" if there is no such
    field."""
    for name in members[0].fields:
        others = [each.fields.get(name) for each in members]
        if any(each is None or each.shape.values is None for each in others):
            continue
        values = [set(each.shape.values) for each in others]
        if all(not left & right for left, right in itertools.combinations(values, 2)):
            return str(name)
    return ""
