"""One named check for each guarantee of the backend contract, over a recorded history.

Each yields the violations that it found, a line each; if there are none, the history shows no
breach. The docstring of a check is its guarantee, which reports show.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType

import attrs

from revstore.errors import (
    AccessDenied,
    Compacted,
    CorruptStore,
    IncompatibleStore,
    Unreachable,
)
from revstore.testing.history import (
    History,
    Operation,
    OperationType,
    ReadingType,
    WatchRecord,
)
from revstore.testing.linearizability import Verdict, linearizable
from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = [
    "CHECKS",
    "Violation",
    "check_history",
    "check_linearizable",
    "check_revisions",
    "check_state",
    "check_watch_atomic",
    "check_watch_bookmarkable",
    "check_watch_end",
    "check_watch_filtered",
    "check_watch_ordered",
    "check_watch_previous",
    "check_watch_reliable",
    "check_watch_resumable",
    "check_watch_unique",
    "check_whole",
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
    explains every answer. If the search ends without a decision, this is reported like a violation,
    since nothing was shown."""
    for key, verdict in linearizable(history.operations).items():
        if verdict is Verdict.ILLEGAL:
            yield f"no order of the operations on {key} explains their answers"
        elif verdict is Verdict.UNKNOWN:
            yield f"the search over the operations on {key} was given up: record fewer of them"


def check_revisions(history: History) -> Iterator[str]:
    """No two writes use the same revision unless they were made in one step, and revisions rise in
    the order in which writes were acknowledged. No answer has a lower revision than any client was
    given before, whether by a write, a read, a list, a count or the status."""
    owners: dict[int, Operation] = {}
    for operation in history.operations:
        if operation.succeeded:
            other = owners.setdefault(operation.revision, operation)
            one_step = operation.transaction and operation.transaction == other.transaction
            if other is not operation and not one_step:
                yield (
                    f"revision {operation.revision} was given to writes of {other.key} and of "
                    f"{operation.key}"
                )
    highest, at = 0, 0.0
    answers = _answers(history)
    ends = iter(sorted(answers, key=lambda answer: answer.end))
    coming = next(ends, None)
    for answer in sorted(answers, key=lambda each: each.start):
        while coming is not None and coming.end < answer.start:
            if coming.revision > highest:
                highest, at = coming.revision, coming.end
            coming = next(ends, None)
        if answer.revision < highest:
            yield (
                f"{answer.what} was answered at revision {answer.revision}, though {highest} had "
                f"been told {answer.start - at:.6f} s before it was asked"
            )


@attrs.frozen
class _Answer:
    """A call that was answered with a revision of the store."""

    what: str
    start: float
    end: float
    revision: int


def _answers(history: History) -> list[_Answer]:
    """Return all answers: each has the store's revision, that of a successful write its own."""
    found = [
        _Answer(f"{each.type} of {each.key}", each.start, each.end, each.revision)
        for each in history.operations
        if each.succeeded is not None
    ]
    found += [
        _Answer(f"{each.type} of {each.prefix!r}", each.start, each.end, each.revision)
        for each in history.readings
    ]
    return found


def check_state(history: History) -> Iterator[str]:
    """A read shows the state at the revision that it names, and a list and a count show the whole
    of it: what acknowledged writes had left there, nothing older and nothing newer. Keys with a
    write that may have landed are left out."""
    states = _States(history)
    for operation in history.operations:
        if operation.type is not OperationType.GET or operation.key in states.unclear:
            continue
        there = states.at(operation.revision, operation.key).get(operation.key)
        shown_at = None if operation.current is None else operation.current.revision
        if shown_at != there:
            yield (
                f"get at {operation.revision} has {operation.key} {_at(shown_at)}, where it was "
                f"{_at(there)}"
            )
    for reading in history.readings:
        if reading.type is ReadingType.STATUS:
            continue
        expected = states.at(reading.revision, reading.prefix)
        what = f"{reading.type} of {reading.prefix!r} at {reading.revision}"
        if reading.type is ReadingType.COUNT:
            if not states.unclear and reading.count != len(expected):
                yield f"{what} gave {reading.count}, not {len(expected)}"
            continue
        shown = {kv.key: kv.revision for kv in reading.kvs if kv.key not in states.unclear}
        for key in sorted(shown.keys() | expected.keys()):
            if shown.get(key) != expected.get(key):
                yield (
                    f"{what} has {key} {_at(shown.get(key))}, where it was {_at(expected.get(key))}"
                )


def _at(revision: int | None) -> str:
    return "not at all" if revision is None else f"at {revision}"


class _States:
    """The state that acknowledged writes had left at a revision. ``unclear``: keys of which nobody
    knows."""

    def __init__(self, history: History) -> None:
        sure, maybe = _written(history)
        self.unclear = {key for key, _ in maybe}
        self._writes: dict[str, list[tuple[int, bool]]] = {}
        for (key, revision), operation in sorted(sure.items(), key=lambda item: item[0][1]):
            there = operation.type is OperationType.PUT
            self._writes.setdefault(key, []).append((revision, there))

    def at(self, revision: int, prefix: str) -> dict[str, int]:
        """Return the keys below ``prefix`` that existed, and their revisions."""
        found = {}
        for key, writes in self._writes.items():
            count = bisect_right(writes, revision, key=itemgetter(0))
            if count and writes[count - 1][1] and key.startswith(prefix):
                found[key] = writes[count - 1][0]
        return {key: at for key, at in found.items() if key not in self.unclear}


def check_whole(history: History) -> Iterator[str]:
    """Of what was done in one step all shows or nothing: a batch of a watch that has a part has all
    parts that the watch covers, and a list that has one is not from before another."""
    steps = _Steps(history)
    for watch in history.watches:
        for batch in watch.batches:
            there = {event.kv.key for event in batch.events}
            for name in sorted({steps.of_event(event) for event in batch.events} - {""}):
                for part in steps.parts[name]:
                    if watch.covers(part.key) and part.key not in there:
                        yield f"{_name(watch)}: {part.key} is missing at {batch.revision}"
    for reading in history.readings:
        shown = {kv.key: kv for kv in reading.kvs}
        for kv in reading.kvs:
            for part in steps.parts[steps.of_key(kv)]:
                other = shown.get(part.key)
                if other is None:
                    torn = part.key not in steps.deleted and part.key.startswith(reading.prefix)
                else:
                    torn = other.revision < kv.revision
                if torn:
                    at = _at(other.revision if other else None)
                    yield (
                        f"list of {reading.prefix!r} at {reading.revision} has {kv.key} at "
                        f"{kv.revision}, and {part.key}, of the same step, {at}"
                    )


class _Steps:
    """The writes of transactions and of leases that ended, also those that may have landed."""

    def __init__(self, history: History) -> None:
        #: By the name of the step, "" for none.
        self.parts: dict[str, list[Operation]] = {"": []}
        #: Keys that somebody deleted, or may have deleted.
        self.deleted: set[str] = set()
        self._sure, _ = _written(history)
        self._maybe: dict[tuple[str, bytes | int], list[Operation]] = {}
        for each in history.operations:
            if each.succeeded is False:
                continue
            if each.transaction:
                self.parts.setdefault(each.transaction, []).append(each)
            is_put = each.type is OperationType.PUT
            if not is_put:
                self.deleted.add(each.key)
            if each.succeeded is None:
                mark = each.value if is_put else each.expected_revision
                self._maybe.setdefault((each.key, mark), []).append(each)

    def of_key(self, kv: KeyValue) -> str:
        """Return the step that wrote ``kv``; "" if none did or it is unknown."""
        return self._of(kv, kv.value)

    def of_event(self, event: WatchEvent) -> str:
        """The step that an event is a part of, as far as it is known."""
        before = event.previous.revision if event.previous else 0
        return self._of(event.kv, event.kv.value if event.type is WatchEventType.PUT else before)

    def _of(self, kv: KeyValue, mark: bytes | int) -> str:
        sure = self._sure.get((kv.key, kv.revision))
        found = [sure] if sure else self._maybe.get((kv.key, mark), [])
        return found[0].transaction if len(found) == 1 else ""


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
    delivered with its content, and nothing was delivered that nobody wrote. This holds only if all
    operations on the keys were recorded."""
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
    """Watches with one scope, wherever they began, agree on the events that both cover: a watch
    that goes on from a position sees exactly what others see from there."""
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
    """Each event has the key as it was just before: what the watch delivered last of it, or its
    state before the watch began; none if the key was created."""
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
    """A watch shows the keys that it was opened for and no others."""
    for watch in history.watches:
        for event in _events(watch):
            if not watch.covers(event.kv.key):
                yield f"{_name(watch)}: {event.kv.key} came, which it does not cover"


# The errors with which a watch may end by itself.
_ENDS = (Compacted, Unreachable, AccessDenied, CorruptStore, IncompatibleStore)


def check_watch_end(history: History) -> Iterator[str]:
    """A watch that ended by itself ended with one of the errors that the contract allows; with
    ``Compacted`` only if it had not reached that revision."""
    for watch in history.watches:
        error = watch.error
        if error is None:
            continue
        if not isinstance(error, _ENDS):
            yield f"{_name(watch)}: ended with {type(error).__name__}: {error}"
        elif isinstance(error, Compacted) and 0 < error.compacted <= watch.position:
            yield (
                f"{_name(watch)}: ended as {error.compacted} was compacted, though it had "
                f"delivered up to {watch.position}"
            )


#: By name.
CHECKS: Mapping[str, Callable[[History], Iterable[str]]] = MappingProxyType(
    {
        "linearizable": check_linearizable,
        "revisions": check_revisions,
        "state": check_state,
        "whole": check_whole,
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
    """Return all violations of all guarantees."""
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
    """Return acknowledged writes by key and revision, and keys and values of writes that may have
    landed; the value of a deletion is b""."""
    sure, maybe = {}, set()
    for operation in history.operations:
        if operation.succeeded:
            sure[operation.key, operation.revision] = operation
        elif operation.succeeded is None and operation.type is not OperationType.GET:
            maybe.add((operation.key, operation.value))
    return sure, maybe


def _state_at(history: History, revision: int) -> Iterator[tuple[str, int | None]]:
    """Yield the revisions of keys at ``revision``, as far as acknowledged writes determine them.

    A key with a write that may have landed is left out.
    """
    sure, maybe = _written(history)
    unclear = {key for key, _ in maybe}
    state: dict[str, int | None] = {}
    for (key, at), operation in sorted(sure.items(), key=lambda item: item[0][1]):
        if at <= revision:
            state[key] = None if operation.type is OperationType.DELETE else at
        else:
            state.setdefault(key, None)
    return ((key, at) for key, at in state.items() if key not in unclear)
