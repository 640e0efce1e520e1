"""Finding what a list asks for in a cache's state."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from revstore.cacher._event_log import Entry, revision_of
from revstore.cacher._state import CacheState, Range
from revstore.continue_token import encode_continue
from revstore.plans import ListPlan
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate, everything
from revstore.shared_log import SharedLog

__all__ = ["Candidates", "find", "select"]

T = TypeVar("T")


@attrs.frozen(slots=True)
class Candidates(Generic[T]):
    """Objects of which those that ``predicate`` matches are the answer. ``plain``: no selector was
    given, so that what follows a page can be counted. (LIST-9)"""

    found: Range[T]
    predicate: SelectionPredicate[T]
    plain: bool = True


def find(
    state: CacheState[T],
    segment: SharedLog[Entry[T]],
    scope: str,
    plan: ListPlan,
    predicate: SelectionPredicate[T],
    *,
    limit: int = 0,
    named: bool = False,
) -> Candidates[T] | None:
    """The candidates, under the cache's lock; None if the log does not reach back far enough,
    or to what could not be read.
    ``limit`` is kept where nothing is left to select; without it, keys may be missing, unless they
    are to be ``named``."""
    named = named or limit > 0
    if not scope.endswith("/"):
        obj = state.get(scope)
        return Candidates(Range((), ()) if obj is None else Range((scope,), (obj,)), predicate)
    page = limit if predicate.empty else 0
    if plan.revision:
        if plan.revision < segment.floor:
            return None
        later = segment.items[segment.after(plan.revision, revision_of) - segment.base :]
        then, unreadable = state.at(plan.revision, scope, later)
        return None if unreadable else Candidates(then.page(plan.start, page), predicate)
    if plan.start or predicate.empty:
        return Candidates(state.below(scope, plan.start, page, named=named), predicate)
    return _indexed(state, scope, predicate, named=named)


def _indexed(
    state: CacheState[T],
    scope: str,
    predicate: SelectionPredicate[T],
    *,
    named: bool,
) -> Candidates[T]:
    """What one index has for the selectors, and what they say besides. (CACHE-17)"""
    fields = predicate.field.requirements
    for at, field in enumerate(fields):
        if field.operator == "=" and field.field in state.paths:
            rest = FieldSelector(fields[:at] + fields[at + 1 :])
            found = state.with_field(field.field, field.value, scope, named=named)
            return Candidates(found, _with(predicate, predicate.label, rest), plain=False)
    labels = predicate.label.requirements
    for at, label in enumerate(labels):
        if label.operator == "in" and len(label.values) == 1:
            others = LabelSelector(labels[:at] + labels[at + 1 :])
            found = state.labelled(label.key, next(iter(label.values)), scope)
            return Candidates(found, _with(predicate, others, predicate.field), plain=False)
    return Candidates(state.below(scope, named=named), predicate)


def _with(
    predicate: SelectionPredicate[T], label: LabelSelector, field: FieldSelector
) -> SelectionPredicate[T]:
    if label.empty and field.empty:
        return everything()
    # Not by attrs.evolve, which takes longer than the look-up in the index.
    return SelectionPredicate(label, field, predicate.labels, predicate.fields)


def select(
    candidates: Candidates[T], scope: str, revision: int, limit: int
) -> tuple[tuple[T, ...], str, int | None]:
    """The items of an answer, its continue token, and how many follow. No lock is held: attribute
    functions are users'. (CACHE-16)"""
    found, predicate = candidates.found, candidates.predicate
    if predicate.empty:
        count = len(found.objects)
        end = min(limit, count) if limit else count
        items = tuple(found.objects if end == count else found.objects[:end])
        remaining = found.more + count - end
        if not remaining:
            return items, "", None
        token = encode_continue(found.keys[end - 1] + "\0", scope, revision)
        return items, token, remaining if candidates.plain else None
    chosen = []
    for at, obj in enumerate(found.objects):
        if predicate.selects(obj):
            chosen.append(obj)
            if len(chosen) == limit and at + 1 < len(found.objects) + found.more:
                return tuple(chosen), encode_continue(found.keys[at] + "\0", scope, revision), None
    return tuple(chosen), "", None
