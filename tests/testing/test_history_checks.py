"""The checks over recorded histories, on histories made by hand."""

from __future__ import annotations

import math

import pytest

from revstore.errors import OutcomeUnknown
from revstore.memory import MemoryBackend
from revstore.testing.checks import check_history
from revstore.testing.history import (
    History,
    Operation,
    OperationType,
    Recorder,
    WatchRecord,
    longest_stall,
)
from revstore.testing.linearizability import Verdict, linearizable_key
from revstore.values import KeyValue, WatchBatch, WatchEvent, WatchEventType

GET, PUT, DELETE = OperationType


def kv(revision: int, value: bytes) -> KeyValue:
    return KeyValue("/k", value, revision)


def call(kind, start, end=math.inf, **fields) -> Operation:
    return Operation(type=kind, key="/k", start=start, end=end, **fields)


def put(start, end, value, expected, revision) -> Operation:
    return call(
        PUT, start, end, value=value, expected_revision=expected, succeeded=True, revision=revision
    )


def refused(start, end, expected, current) -> Operation:
    return call(
        PUT, start, end, value=b"no", expected_revision=expected, succeeded=False, current=current
    )


def get(start, end, current) -> Operation:
    return call(GET, start, end, succeeded=False, current=current)


def unknown(start, value, expected) -> Operation:
    return call(PUT, start, value=value, expected_revision=expected)


HISTORIES = {
    "nothing": (Verdict.LEGAL, []),
    "absent": (Verdict.LEGAL, [get(0, 1, None)]),
    "write, read": (Verdict.LEGAL, [put(0, 1, b"a", 0, 2), get(2, 3, kv(2, b"a"))]),
    "read of nothing": (Verdict.ILLEGAL, [get(0, 1, kv(2, b"a"))]),
    "stale read": (
        Verdict.ILLEGAL,
        [put(0, 1, b"a", 0, 2), put(2, 3, b"b", 2, 3), get(4, 5, kv(2, b"a"))],
    ),
    "read beside a write, before or after": (
        Verdict.LEGAL,
        [
            put(0, 1, b"a", 0, 2),
            put(2, 9, b"b", 2, 3),
            get(3, 4, kv(2, b"a")),
            get(5, 6, kv(3, b"b")),
        ],
    ),
    "reads that go back": (
        Verdict.ILLEGAL,
        [
            put(0, 1, b"a", 0, 2),
            put(2, 9, b"b", 2, 3),
            get(3, 4, kv(3, b"b")),
            get(5, 6, kv(2, b"a")),
        ],
    ),
    "two creations": (Verdict.ILLEGAL, [put(0, 5, b"a", 0, 2), put(1, 6, b"b", 0, 3)]),
    "one of two creations": (
        Verdict.LEGAL,
        [put(0, 5, b"a", 0, 2), refused(1, 6, 0, kv(2, b"a"))],
    ),
    "refused without a reason": (
        Verdict.ILLEGAL,
        [put(0, 1, b"a", 0, 2), refused(2, 3, 2, kv(2, b"a"))],
    ),
    "lost update": (
        Verdict.ILLEGAL,
        [put(0, 1, b"a", 0, 2), put(2, 3, b"b", 2, 3), put(2, 4, b"c", 2, 4)],
    ),
    "unknown, landed": (
        Verdict.LEGAL,
        [put(0, 1, b"a", 0, 2), unknown(2, b"b", 2), get(3, 4, kv(7, b"b"))],
    ),
    "unknown, never landed": (
        Verdict.LEGAL,
        [put(0, 1, b"a", 0, 2), unknown(2, b"b", 2), get(3, 4, kv(2, b"a"))],
    ),
    "unknown, landed late": (
        Verdict.LEGAL,
        [
            put(0, 1, b"a", 0, 2),
            unknown(2, b"b", 2),
            get(3, 4, kv(2, b"a")),
            get(5, 6, kv(3, b"b")),
        ],
    ),
    "unknown, landed and was undone": (
        Verdict.ILLEGAL,
        [
            put(0, 1, b"a", 0, 2),
            unknown(2, b"b", 2),
            get(3, 4, kv(3, b"b")),
            get(5, 6, kv(2, b"a")),
        ],
    ),
    "unknown, landed twice": (
        Verdict.ILLEGAL,
        [
            put(0, 1, b"a", 0, 2),
            unknown(2, b"b", 2),
            get(3, 4, kv(3, b"b")),
            call(
                DELETE, 5, 6, expected_revision=3, succeeded=True, revision=4, current=kv(3, b"b")
            ),
            get(7, 8, kv(3, b"b")),
        ],
    ),
    "unknown deletion": (
        Verdict.LEGAL,
        [put(0, 1, b"a", 0, 2), call(DELETE, 2, expected_revision=2), get(3, 4, None)],
    ),
    "deleted and back": (
        Verdict.ILLEGAL,
        [
            put(0, 1, b"a", 0, 2),
            call(
                DELETE, 2, 3, expected_revision=2, succeeded=True, revision=3, current=kv(2, b"a")
            ),
            get(4, 5, kv(2, b"a")),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_verdicts(name):
    """A table of histories of one key."""
    verdict, operations = HISTORIES[name]
    assert linearizable_key(operations) is verdict
    assert linearizable_key(operations[::-1]) is verdict


def test_a_search_that_is_given_up_shows_nothing():
    """Unknown is neither legal nor illegal."""
    operations = [put(0, 1, b"a", 0, 2), *[get(2, 3, kv(2, b"a")) for _ in range(5)]]
    assert linearizable_key(operations, budget=3) is Verdict.UNKNOWN
    assert linearizable_key(operations, budget=100) is Verdict.LEGAL


def test_a_long_history_is_searched_in_no_time():
    """Thousands of operations with some overlap take few steps each."""
    operations, revision = [], 0
    for number in range(3000):
        value = b"%d" % number
        operations.append(put(number, number + 1.5, value, revision, number + 2))
        revision = number + 2
        operations.append(get(number + 1.2, number + 1.4, kv(revision, value)))
    assert linearizable_key(operations, budget=20_000) is Verdict.LEGAL


def event(revision, *, key="/p/k", previous=None, kind=WatchEventType.PUT) -> WatchEvent:
    before = None if previous is None else KeyValue(key, b"v%d" % previous, previous)
    return WatchEvent(kind, KeyValue(key, b"v%d" % revision, revision), before)


def watch(*batches, after=1, recursive=True, key="/p/") -> WatchRecord:
    return WatchRecord(key=key, recursive=recursive, after_revision=after, batches=list(batches))


def write(revision, *, key="/p/k", expected=0) -> Operation:
    return Operation(
        type=PUT,
        key=key,
        start=revision,
        end=revision + 0.5,
        value=b"v%d" % revision,
        expected_revision=expected,
        succeeded=True,
        revision=revision,
    )


TWO = [write(2), write(3, key="/p/l")]
WATCHES = {
    "": [watch(WatchBatch(2, (event(2),)), WatchBatch(3, (event(3, key="/p/l"),)))],
    "atomic": [
        watch(WatchBatch(2, (event(2),)), WatchBatch(2, (event(2, key="/p/l"),)), WatchBatch(3, ()))
    ],
    "ordered": [watch(WatchBatch(3, (event(3, key="/p/l"),)), WatchBatch(2, (event(2),)))],
    "unique": [watch(WatchBatch(2, (event(2),)), WatchBatch(2, (event(2),)))],
    "reliable": [watch(WatchBatch(3, (event(3, key="/p/l"),)))],
    "bookmarkable": [watch(WatchBatch(3), WatchBatch(2, (event(2),)))],
    "previous": [watch(WatchBatch(2, (event(2, previous=1),)))],
    "filtered": [watch(WatchBatch(2, (event(2),)), key="/p/l", recursive=False)],
    "resumable": [
        watch(WatchBatch(2, (event(2),)), WatchBatch(3, (event(3, key="/p/l"),))),
        watch(WatchBatch(3), after=2),
    ],
    "end": [WatchRecord(key="/p/", recursive=True, after_revision=1, error=OSError("leaked"))],
}


@pytest.mark.parametrize("guarantee", WATCHES)
def test_breaches(guarantee):
    """WATCH-15: each guarantee of watches, broken by hand."""
    found = {each.guarantee for each in check_history(History(TWO, WATCHES[guarantee]))}
    assert (guarantee in found) if guarantee else not found


def test_unknown_outcomes_are_recorded_open():
    """A write whose answer never came has no end, and its error is raised."""

    class Breaks(MemoryBackend):
        def put(self, key, value, *, expected_revision, **options):
            super().put(key, value, expected_revision=expected_revision)
            raise OutcomeUnknown(key, expected_revision)

    with Breaks() as backend:
        recorder = Recorder(backend)
        with pytest.raises(OutcomeUnknown):
            recorder.put("/k", b"a", expected_revision=0)
        assert recorder.get("/k").kv is not None
        (operation, _) = recorder.history.operations
        assert operation.succeeded is None
        assert operation.end == math.inf
        assert check_history(recorder.history) == []


def test_a_transaction_over_one_whose_outcome_is_not_known():
    """What a body overwrites is seen, also if no other call reads it."""

    class Breaks(MemoryBackend):
        answers = False

        def transactions(self, bodies, **options):
            found = super().transactions(bodies, **options)
            return found if self.answers else [OutcomeUnknown("", 0)]

    with Breaks() as backend:
        recorder = Recorder(backend)
        with pytest.raises(OutcomeUnknown):
            recorder.transaction(lambda seen: [seen.put(key, b"1") for key in ("/k", "/l")])
        backend.answers = True
        recorder.transaction(lambda seen: (seen.put("/k", b"2"), seen.delete("/l")))
        with pytest.raises(ZeroDivisionError):
            recorder.transaction(lambda seen: seen.put("/k", b"3") and 1 / 0)
        assert [each.succeeded for each in recorder.history.operations] == [None] * 2 + [True] * 2
        assert len({each.transaction for each in recorder.history.operations}) == 2
        assert check_history(recorder.history) == []


def test_the_longest_stall():
    """The longest time without an acknowledged write, from the first call to the last answer: of
    all writers together; reads, refusals and outcomes that are not known do not end it."""
    assert longest_stall([]) == 0
    assert longest_stall([unknown(1, b"x", 0)]) == 0
    first, second = put(0, 1, b"a", 0, 2), put(3, 4, b"b", 2, 3)
    assert longest_stall([first]) == 1
    assert longest_stall([second, first]) == 3
    rest = [get(1, 2, None), refused(2, 3, 1, kv(2, b"a")), unknown(2, b"c", 2)]
    assert longest_stall([second, *rest, first]) == 3
    assert longest_stall([first, second, get(8, 9, None)]) == 5
