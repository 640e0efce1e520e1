"""Selectors as one function over the attributes of an object that a cache knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from revstore.cacher._event_log import Item
from revstore.raising import let_out
from revstore.selectors import FieldRequirement, LabelRequirement, SelectionPredicate

__all__ = ["Match", "is_pure", "matcher"]

T = TypeVar("T")

#: Whether an object is selected; one whose attributes cannot be computed is not. (LIST-6, WATCH-13)
Match = Callable[[Item[T]], bool]


def matcher(predicate: SelectionPredicate[T], paths: Sequence[str]) -> Match[T]:
    """Return a function that answers as ``predicate`` does, without computing the fields in
    ``paths``."""
    checks: list[Match[T]] = [_label_check(each) for each in predicate.label.requirements]
    checks += [_field_check(each, predicate, paths) for each in predicate.field.requirements]

    if (
        predicate.label.empty
        and len(checks) == 1
        and predicate.field.requirements[0].field in paths
    ):
        return checks[0]  # uses only computed attributes: nothing can be raised

    def match(item: Item[T]) -> bool:
        try:
            for check in checks:
                if not check(item):
                    return False
        except Exception as error:  # noqa: BLE001 - attribute functions are the user's
            let_out(error)
            return False
        return True

    return match


def is_pure(predicate: SelectionPredicate[T], paths: Sequence[str]) -> bool:
    """Return whether equal attributes mean an equal answer."""
    return all(each.field in paths for each in predicate.field.requirements)


def _label_check(requirement: LabelRequirement) -> Match[T]:
    key, values = requirement.key, requirement.values
    if requirement.operator == "in":
        return lambda item: item.labels is not None and item.labels.get(key) in values
    return lambda item: item.labels is not None and requirement.matches(item.labels)


def _field_check(
    requirement: FieldRequirement, predicate: SelectionPredicate[T], paths: Sequence[str]
) -> Match[T]:
    value, equal = requirement.value, requirement.operator == "="
    if requirement.field not in paths:
        return lambda item: requirement.matches(predicate.fields(item.object))
    at = paths.index(requirement.field)
    if equal:
        return lambda item: item.fields[at] == value
    return lambda item: item.fields[at] not in (None, value)
