"""Answers to lists from a cache's state."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from revstore.cacher._event_log import Entry, revision_of
from revstore.cacher._ordered import Range
from revstore.cacher._state import CacheState, PastPage, Picked
from revstore.continue_token import encode_continue
from revstore.plans import ListPlan
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate, everything
from revstore.shared_log import SharedLog

__all__ = ["Candidates", "find", "select"]

T = TypeVar("T")


class Candidates(msgspec.Struct, Generic[T], frozen=True):
    """Objects of which those that match ``predicate`` are the answer; they are read without the
    cache's lock. ``plain``: there is no selector, so that the objects after a page can be counted.
    (LIST-9)"""

    found: Range[T] | Picked[T] | PastPage[T]
    predicate: SelectionPredicate[T]
    plain: bool = True


def find(
    state: CacheState[T],
    segment: SharedLog[Entry[T]],
    scope: str,
    plan: ListPlan,
    predicate: SelectionPredicate[T],
    *,
    revision: int,
    limit: int = 0,
    named: bool = False,
) -> Candidates[T] | None:
    """Return the candidates; None if the log does not reach back far enough.

    Call it under the cache's lock. The state is that of ``revision``, and is remembered for further
    pages, if there are any. If no selector remains to be applied, there are no more than ``limit``
    candidates. Without ``named``, the keys of the candidates may be missing.
    """
    named = named or limit > 0
    if not scope.endswith("/"):
        obj = state.get(scope)
        return Candidates(Range() if obj is None else Range([((scope,), (obj,))]), predicate)
    page = limit if predicate.empty else 0
    if plan.revision:
        if plan.revision < segment.floor:
            return None
        later = segment.items[segment.after(plan.revision, revision_of) - segment.base :]
        past = state.at(plan.revision, scope, later)
        return Candidates(PastPage(past, plan.start, page), predicate)
    if plan.start or predicate.empty:
        candidates = Candidates(state.below(scope, plan.start, page, named=named), predicate)
    else:
        candidates = _indexed(state, scope, predicate, named=named)
    found = candidates.found
    if limit and (not isinstance(found, Range) or found.more or len(found) > limit):
        state.remember_now(revision, scope)
    return candidates


def _indexed(
    state: CacheState[T],
    scope: str,
    predicate: SelectionPredicate[T],
    *,
    named: bool,
) -> Candidates[T]:
    """Return the objects that one index has for the selectors, and the rest of the selectors.
    (CACHE-17)"""
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
            labelled = state.labelled(label.key, next(iter(label.values)), scope)
            return Candidates(labelled, _with(predicate, others, predicate.field), plain=False)
    return Candidates(state.below(scope, named=named), predicate)


def _with(
    predicate: SelectionPredicate[T], label: LabelSelector, field: FieldSelector
) -> SelectionPredicate[T]:
    if label.empty and field.empty:
        return everything()
    # Not with attrs.evolve, which takes longer than the look-up in the index.
    return SelectionPredicate(label, field, predicate.labels, predicate.fields)


def select(
    candidates: Candidates[T], scope: str, revision: int, limit: int
) -> tuple[tuple[T, ...], str, int | None] | None:
    """Return the items of an answer, its continue token, and how many objects follow.

    Return None if an object could not be read at an earlier revision. No lock is held, since
    attribute functions belong to the user, and joining many objects takes a while. (CACHE-16)
    """
    found, predicate = candidates.found.read(), candidates.predicate
    if found is None:
        return None
    if predicate.empty:
        objects = found.objects
        count = len(objects)
        end = min(limit, count) if limit else count
        items = tuple(objects if end == count else objects[:end])
        remaining = found.more + count - end
        if not remaining:
            return items, "", None
        token = encode_continue(found.keys[end - 1] + "\0", scope, revision)
        return items, token, remaining if candidates.plain else None
    chosen: list[T] = []
    last = ""  # the key of a full page's last object
    for keys, objects in found.pieces:
        for at, obj in enumerate(objects):
            if last:  # there is another one
                return tuple(chosen), encode_continue(last + "\0", scope, revision), None
            if predicate.selects(obj):
                chosen.append(obj)
                if len(chosen) == limit:
                    last = keys[at]
    if last and found.more:
        return tuple(chosen), encode_continue(last + "\0", scope, revision), None
    return tuple(chosen), "", None
