"""The compactor: its election, what it forgets and when, and the life of its thread."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

import revstore.compactor
import revstore.threads
from revstore.backend import Backend
from revstore.compactor import Compactor, _Election, _judge
from revstore.config import StorageConfig
from revstore.errors import BackendError, Compacted, InvalidArgument, Timeout, Unsupported
from revstore.memory import MemoryBackend
from revstore.plugins import open_backend
from revstore.testing._support import Keyspace, promptly, run_threads, wait_until
from revstore.testing.interrupts import interrupt_every_line
from revstore.values import Capability, KeyValue, PutResult

KEY = "compact_rev_key"


@pytest.fixture(params=["memory", "sqlite"])
def stores(request, tmp_path):
    """Two handles of one store: for sqlite two backends on one file."""
    with ExitStack() as stack:
        if request.param == "memory":
            backend = stack.enter_context(MemoryBackend())
            yield backend, backend
        else:
            config = StorageConfig(type="sqlite", options={"path": str(tmp_path / "store.db")})
            yield tuple(stack.enter_context(open_backend(config)) for _ in range(2))


def by_hand(backend, **options):
    """A compactor whose rounds are called by the test."""
    return Compactor(backend, interval=0, **options)


def found(revision, value=b"7"):
    return KeyValue(KEY, value, revision)


@pytest.mark.parametrize(
    ("known", "result", "expected", "compact"),
    [
        # The first round of all: won, and there is nothing to compact yet.
        (_Election(), PutResult(True, 2), _Election(2, 2), 0),
        # A later one: compact what was noted, note again.
        (_Election(2, 2), PutResult(True, 9), _Election(9, 9), 2),
        (_Election(2, 2, 1), PutResult(True, 9), _Election(9, 9, 1), 2),
        # Lost: take over the winner's key and value, and note the store's revision.
        (_Election(), PutResult(False, 20, found(15)), _Election(15, 20, 7), 0),
        (_Election(9, 9, 8), PutResult(False, 20, found(15)), _Election(15, 20, 8), 0),
        (_Election(9, 9, 2), PutResult(False, 20, found(15, b"junk")), _Election(15, 20, 2), 0),
        (_Election(9, 9, 2), PutResult(False, 20, found(15, b"")), _Election(15, 20, 2), 0),
        (_Election(9, 9), PutResult(False, 20, found(15, b"9" * 5000)), _Election(15, 20), 0),
        # Somebody has deleted the key.
        (_Election(9, 9, 2), PutResult(False, 20), _Election(0, 20, 2), 0),
    ],
)
def test_judgement(known, result, expected, compact):
    """CMP-1, CMP-2: who wins compacts what it noted a round before, who loses adopts."""
    assert _judge(known, result) == (expected, compact)


def test_first_round_notes_later_ones_compact(stores):
    """CMP-1, CMP-2, CMP-4: history lives one to two rounds; each won round takes one revision, and
    the key's value is the revision compacted."""
    backend, _ = stores
    keys = Keyspace(backend, "/registry/")
    compactor = by_hand(backend)
    first = keys.create("a", b"1")
    assert compactor.run_once() == 0
    assert compactor.compact_revision == 0
    noted = backend.status().revision
    assert noted == first + 1
    second = keys.update("a", b"2")
    assert keys.read("a", first).value == b"1"

    assert compactor.run_once() == noted

    assert compactor.compact_revision == noted == backend.status().compacted_revision
    assert backend.get(KEY).kv.value == str(noted).encode()
    assert backend.status().revision == second + 1
    with pytest.raises(Compacted):
        backend.get("/registry/a", revision=first)
    assert keys.read("a", noted).value == b"1"
    assert compactor.run_once() == second + 1


def test_current_values_stay(stores):
    """CMP-6: what is stored now, however old, is read as before; a deletion is forgotten."""
    backend, _ = stores
    keys = Keyspace(backend, "/registry/")
    for name in ("old", "changed", "deleted"):
        keys.create(name, b"1")
    keys.update("changed", b"2")
    keys.delete("deleted")
    compactor = by_hand(backend)
    before = keys.list().kvs
    while not compactor.run_once():
        pass

    assert keys.list().kvs == before
    assert keys.find("deleted") is None


def test_one_of_two_wins_each_round(stores):
    """CMP-2: of two compactors one does the work, the other adopts what it wrote."""
    one, two = map(by_hand, stores)
    assert (one.run_once(), two.run_once()) == (0, 0)
    assert one.run_once() == 2
    assert two.run_once() == 0
    assert two.compact_revision == 2
    assert one.run_once() == 3
    version = stores[0].get(KEY).kv.version
    assert version == 3, "apiservers on etcd compare the key's version"


def test_failover_within_two_rounds(stores):
    """CMP-3: when the winner is gone, the other takes over in its second round at the latest."""
    one, two = map(by_hand, stores)
    one.run_once()
    two.run_once()
    one.run_once()
    one.close()
    assert two.run_once() == 0
    noted = stores[1].status().revision
    assert two.run_once() == noted


def test_a_restart_begins_with_a_note(stores):
    """CMP-1: a new process loses its first round to the key that is there, and goes on from it."""
    one = by_hand(stores[0])
    one.run_once()
    one.run_once()
    again = by_hand(stores[1])
    assert again.run_once() == 0
    assert again.compact_revision == one.compact_revision
    assert again.run_once() == stores[0].status().compacted_revision > one.compact_revision


def test_many_at_once(stores):
    """CMP-2, CMP-5: whatever number of compactors share a store, each round has at most one
    winner, and the compacted revision never falls."""
    compactors = [by_hand(stores[index % 2]) for index in range(6)]
    seen = 0
    for _ in range(5):
        before = stores[0].get(KEY).kv
        results = run_threads(6, lambda index: compactors[index].run_once())
        version = stores[0].get(KEY).kv.version
        done = [revision for revision in results if revision]

        assert version - (before.version if before else 0) >= 1
        assert len(done) == len(set(done)) <= version
        compacted = stores[0].status().compacted_revision
        assert compacted == max([seen, *done])
        seen = compacted
    assert seen > 0


def test_compacted_by_hand(stores):
    """CMP-3: that somebody has compacted more is no error, and is noted."""
    backend, _ = stores
    compactor = by_hand(backend)
    compactor.run_once()
    Keyspace(backend, "/registry/").create("a")
    backend.compact(3)
    assert compactor.run_once() == 0
    assert compactor.compact_revision == 3
    assert compactor.run_once() == 4


def test_the_key_was_deleted(stores):
    """CMP-2: the election starts again with the key; nothing fails."""
    backend, _ = stores
    compactor = by_hand(backend)
    compactor.run_once()
    backend.delete(KEY, expected_revision=backend.get(KEY).kv.revision)
    assert compactor.run_once() == 0
    assert compactor.run_once() == 3
    assert backend.get(KEY).kv.version == 1


class Troubled(MemoryBackend):
    """A store that can be told to fail, and counts its compactions."""

    trouble: Exception | None = None
    lacks: frozenset[Capability] = frozenset()
    attempts = 0

    @property
    def capabilities(self):
        return super().capabilities - self.lacks

    def put(self, *args, **options):
        self.attempts += 1
        if self.trouble is not None:
            raise self.trouble
        return super().put(*args, **options)

    def compact(self, revision, *, timeout=None):
        if Capability.COMPACTION in self.lacks:
            raise Unsupported("compaction")
        super().compact(revision, timeout=timeout)


def compactor_threads():
    return [thread for thread in threading.enumerate() if thread.name == "revstore-compactor"]


def test_the_thread_compacts_and_ends():
    """CMP-1: rounds come by themselves; close ends the thread at once, and may be repeated."""
    with MemoryBackend() as backend:
        compactor = Compactor(backend, interval=0.01)
        assert len(compactor_threads()) == 1
        wait_until(lambda: backend.status().compacted_revision >= 3, "rounds by the thread")
        compactor.close()
        compactor.close()
        assert compactor_threads() == []


def test_close_does_not_wait_for_the_interval():
    """CMP-1: nothing happens before the first interval has passed, and close cuts it short."""
    with MemoryBackend() as backend, promptly():
        with Compactor(backend, interval=float("inf")), Compactor(backend):
            assert len(compactor_threads()) == 2
        assert compactor_threads() == []
        assert backend.get(KEY).kv is None


@pytest.mark.parametrize("trouble", [Timeout("too slow"), ValueError("a plugin's own fault")])
def test_errors_wait_for_the_next_round(trouble, caplog):
    """CMP-3: a round that fails is logged and tried again; the thread lives on."""
    with Troubled() as backend:
        backend.trouble = trouble
        with Compactor(backend, interval=0.005):
            wait_until(lambda: backend.attempts >= 3, "it goes on trying")
            backend.trouble = None
            wait_until(lambda: backend.status().compacted_revision > 0, "it recovers")
    assert f"compaction failed, next try in 0.005 s: {trouble}" in caplog.messages


def test_an_error_leaves_what_was_known():
    """CMP-3: after a round whose write failed the next one compacts what would have been due."""
    with Troubled() as backend:
        compactor = by_hand(backend)
        compactor.run_once()
        backend.trouble = Timeout("too slow")
        with pytest.raises(BackendError):
            compactor.run_once()
        backend.trouble = None
        assert compactor.run_once() == 2


def test_closing_the_backend_ends_the_thread():
    """No thread goes on with a store that is closed."""
    backend = MemoryBackend()
    compactor = Compactor(backend, interval=0.005)
    backend.close()
    wait_until(lambda: compactor_threads() == [], "the thread ends by itself")
    compactor.close()


def test_off_and_unsupported():
    """CMP-1: interval 0 is off; so is a backend that cannot compact. Nothing is written."""
    with Troubled() as backend:
        Compactor(backend, interval=0).close()
        backend.lacks = frozenset({Capability.COMPACTION})
        compactor = Compactor(backend, interval=0.001)
        assert compactor_threads() == []
        assert compactor.run_once() == 0
        assert backend.get(KEY).kv is None


@pytest.mark.parametrize("interval", [-1, float("nan")])
def test_bad_interval(interval):
    """A negative interval is refused."""
    with MemoryBackend() as backend, pytest.raises(InvalidArgument, match="compaction_interval"):
        Compactor(backend, interval=interval)


def test_another_key():
    """The election key is the caller's choice; there is no prefix before it."""
    with MemoryBackend() as backend:
        by_hand(backend, key="elsewhere").run_once()
        assert [kv.key for kv in backend.list("").kvs] == ["elsewhere"]


def test_works_over_the_contract_alone():
    """Any backend will do; the compactor uses put, compact and capabilities only."""
    used = set()

    class Spy:
        def __init__(self, backend):
            self._backend = backend

        def __getattr__(self, name):
            used.add(name)
            return getattr(self._backend, name)

    with MemoryBackend() as backend:
        compactor = by_hand(Spy(backend))
        compactor.run_once()
        compactor.run_once()
    assert used == {"capabilities", "put", "compact"}
    assert all(hasattr(Backend, name) for name in used)


def test_an_interrupted_close_can_be_repeated():
    """At whatever line it was interrupted: the next one ends the thread."""
    files = {revstore.compactor.__file__, revstore.threads.__file__, threading.__file__}
    with MemoryBackend() as backend:
        compactors = [Compactor(backend)]

        def attempt() -> None:
            compactors[-1].close()

        def after(spot: str) -> None:
            with promptly():
                run_threads(1, lambda _: compactors[-1].close())
            wait_until(lambda: compactor_threads() == [], spot)
            compactors.append(Compactor(backend))

        assert interrupt_every_line(attempt, where=lambda c: c.co_filename in files, after=after)
        compactors[-1].close()
