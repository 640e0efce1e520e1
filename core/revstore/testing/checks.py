"""One named check for each guarantee of the backend contract, over a recorded history.

Each returns the violations it found, a line each; none means that the history shows no breach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import attrs

from revstore.errors import StorageError
from revstore.testing.history import History, Operation, OperationType, WatchRecord
from revstore.testing.linearizability import Verdict, linearizable
from revstore.values import WatchEvent, WatchEventType

__all__ = [
    "CHECKS",
    "Violation",
    "check_history",
    "check_linearizable",
    "check_revisions",
    "check_watch_atomic",
    "check_watch_bookmarkable",
    "check_watch_end",
    "check_watch_filtered",
    "check_watch_ordered",
    "check_watch_previous",
    "check_watch_reliable",
    "check_watch_resumable",
    "check_watch_unique",
]


@attrs.frozen
class Violation:
    """``guarantee`` is the name of the check; ``detail`` says what was seen and what was to be."""

    guarantee: str
    detail: str

    def __str__(self) -> str:
        return f"{self.guarantee}: {self.detail}"


def check_linearizable(history: History) -> Iterator[str]:
    """For each key there is an order of all operations, each between its call and its answer, that
    explains every answer. An undecided search is no violation, but is told as one, since
    nothing was shown."""
    for key, verdict in linearizable(history.operations).items():
        if verdict is Verdict.ILLEGAL:
            yield f"no order of the operations on {key} explains their answers"
        elif verdict is Verdict.UNKNOWN:
            yield f"the search over the operations on {key} was given up: record fewer of them"


def check_revisions(history: History) -> Iterator[str]:
    """No revision is used by two writes, and revisions rise in the order in which writes were
    acknowledged; nobody is answered with a revision lower than one acknowledged before."""
    owners: dict[int, Operation] = {}
    for operation in history.operations:
        if operation.succeeded:
            other = owners.setdefault(operation.revision, operation)
            if other is not operation:
                yield (
                    f"revision {operation.revision} was given to writes of {other.key} and of "
                    f"{operation.key}"
                )
    highest, at = 0, 0.0
    ends = sorted((op for op in history.operations if op.succeeded), key=lambda op: op.end)
    done = iter(ends)
    coming = next(done, None)
    for operation in sorted(history.operations, key=lambda op: op.start):
        while coming is not None and coming.end < operation.start:
            if coming.revision > highest:
                highest, at = coming.revision, coming.end
            coming = next(done, None)
        if operation.succeeded is not None and operation.revision < highest:
            yield (
                f"{operation.type} of {operation.key} was answered at revision "
                f"{operation.revision}, though {highest} had been acknowledged "
                f"{operation.start - at:.6f} s before it was asked"
            )


def check_watch_ordered(history: History) -> Iterator[str]:
    """Batches come in the order of their revisions, all above where the watch began."""
    for watch in history.watches:
        last = watch.after_revision
        for batch in watch.batches:
            allowed = batch.revision > last or (not batch.events and batch.revision == last)
            if not allowed:
                yield f"{_name(watch)}: a batch at {batch.revision} came after one at {last}"
            last = max(last, batch.revision)


def check_watch_unique(history: History) -> Iterator[str]:
    """No event comes twice."""
    for watch in history.watches:
        seen = set()
        for event in _events(watch):
            mark = event.kv.key, event.kv.revision
            if mark in seen:
                yield f"{_name(watch)}: {mark[0]} at {mark[1]} came twice"
            seen.add(mark)


def check_watch_atomic(history: History) -> Iterator[str]:
    """All events of a revision come in one batch, and a batch has events of its revision only."""
    for watch in history.watches:
        seen: set[int] = set()
        for batch in watch.batches:
            revisions = {event.kv.revision for event in batch.events}
            if revisions - {batch.revision}:
                yield f"{_name(watch)}: a batch at {batch.revision} has events of {revisions}"
            for revision in revisions & seen:
                yield f"{_name(watch)}: the events of {revision} came in more than one batch"
            seen |= revisions


def check_watch_reliable(history: History) -> Iterator[str]:
    """Every acknowledged write that the watch covers, between its start and its position, was
    delivered with its content, and nothing that nobody wrote. Complete only if the recorded
    operations are all there were."""
    written, maybe = _written(history)
    for watch in history.watches:
        delivered = {(event.kv.key, event.kv.revision): event for event in _events(watch)}
        for mark, operation in written.items():
            covered = watch.covers(mark[0]) and watch.after_revision < mark[1] <= watch.position
            if covered and mark not in delivered:
                yield f"{_name(watch)}: {operation.type} of {mark[0]} at {mark[1]} never came"
        for mark, event in delivered.items():
            known = written.get(mark)
            if known is None and (mark[0], event.kv.value) not in maybe:
                yield f"{_name(watch)}: {mark[0]} at {mark[1]} came, which nobody wrote"
            elif known is not None and known.value != event.kv.value:
                yield f"{_name(watch)}: {mark[0]} at {mark[1]} came with another value"


def check_watch_resumable(history: History) -> Iterator[str]:
    """Watches with one scope, from wherever they began, agree on what lies in the span that both
    cover: who goes on from a position sees just what others see from there."""
    for at, watch in enumerate(history.watches):
        for other in history.watches[at + 1 :]:
            if (watch.key, watch.recursive) != (other.key, other.recursive):
                continue
            low = max(watch.after_revision, other.after_revision)
            high = min(watch.position, other.position)
            ours, theirs = _marks(watch, low, high), _marks(other, low, high)
            for mark in sorted(ours ^ theirs)[:3]:
                yield (
                    f"{_name(watch)} and {_name(other)} differ: {mark[0]} at {mark[1]} came to "
                    "one of them only"
                )


def check_watch_bookmarkable(history: History) -> Iterator[str]:
    """After a progress mark no event at or below it comes."""
    for watch in history.watches:
        mark = 0
        for batch in watch.batches:
            if not batch.events:
                mark = max(mark, batch.revision)
            for event in batch.events:
                if event.kv.revision <= mark:
                    yield (
                        f"{_name(watch)}: {event.kv.key} at {event.kv.revision} came after a "
                        f"progress mark at {mark}"
                    )


def check_watch_previous(history: History) -> Iterator[str]:
    """Each event has the key as it was just before: what the watch delivered last of it, or what
    was there before the watch began; none if the key was created."""
    for watch in history.watches:
        state = dict(_state_at(history, watch.after_revision))
        for event in _events(watch):
            key = event.kv.key
            before = None if event.previous is None else event.previous.revision
            if key in state and before != state[key]:
                yield (
                    f"{_name(watch)}: {key} at {event.kv.revision} has as its previous revision "
                    f"{before}, not {state[key]}"
                )
            deleted = event.type is WatchEventType.DELETED
            if deleted and event.previous is None:
                yield f"{_name(watch)}: the deletion of {key} has no previous content"
            state[key] = None if deleted else event.kv.revision


def check_watch_filtered(history: History) -> Iterator[str]:
    """A watch shows the keys it was opened for and no others."""
    for watch in history.watches:
        for event in _events(watch):
            if not watch.covers(event.kv.key):
                yield f"{_name(watch)}: {event.kv.key} came, which it does not cover"


def check_watch_end(history: History) -> Iterator[str]:
    """A watch that ended by itself ended with one of the errors of the contract."""
    for watch in history.watches:
        if watch.error is not None and not isinstance(watch.error, StorageError):
            yield f"{_name(watch)}: ended with {type(watch.error).__name__}"


#: By name.
CHECKS: Mapping[str, Callable[[History], Iterable[str]]] = MappingProxyType(
    {
        "linearizable": check_linearizable,
        "revisions": check_revisions,
        "ordered": check_watch_ordered,
        "unique": check_watch_unique,
        "atomic": check_watch_atomic,
        "reliable": check_watch_reliable,
        "resumable": check_watch_resumable,
        "bookmarkable": check_watch_bookmarkable,
        "previous": check_watch_previous,
        "filtered": check_watch_filtered,
        "end": check_watch_end,
    }
)


def check_history(history: History) -> list[Violation]:
    """All violations of all guarantees."""
    return [Violation(name, detail) for name, check in CHECKS.items() for detail in check(history)]


def _name(watch: WatchRecord) -> str:
    return f"watch of {watch.key}{'*' if watch.recursive else ''} after {watch.after_revision}"


def _events(watch: WatchRecord) -> Iterator[WatchEvent]:
    for batch in watch.batches:
        yield from batch.events


def _marks(watch: WatchRecord, low: int, high: int) -> set[tuple[str, int]]:
    return {
        (event.kv.key, event.kv.revision)
        for event in _events(watch)
        if low < event.kv.revision <= high
    }


def _written(
    history: History,
) -> tuple[dict[tuple[str, int], Operation], set[tuple[str, bytes]]]:
    """Acknowledged writes by key and revision; and keys and values of those that may have landed,
    of a deletion the value b""."""
    sure, maybe = {}, set()
    for operation in history.operations:
        if operation.succeeded:
            sure[operation.key, operation.revision] = operation
        elif operation.succeeded is None and operation.type is not OperationType.GET:
            maybe.add((operation.key, operation.value))
    return sure, maybe


def _state_at(history: History, revision: int) -> Iterator[tuple[str, int | None]]:
    """The revisions of keys at ``revision``, as far as acknowledged writes tell: a key with a write
    that may have landed is left out."""
    sure, maybe = _written(history)
    unclear = {key for key, _ in maybe}
    state: dict[str, int | None] = {}
    for (key, at), operation in sorted(sure.items(), key=lambda item: item[0][1]):
        if at <= revision:
            state[key] = None if operation.type is OperationType.DELETE else at
        else:
            state.setdefault(key, None)
    return ((key, at) for key, at in state.items() if key not in unclear)
