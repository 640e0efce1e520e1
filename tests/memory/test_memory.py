"""The memory backend: the shared suites, and what only it can do."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from revstore.backend import Backend
from revstore.errors import BackendError, Closed, Compacted, InvalidArgument
from revstore.memory import MemoryBackend
from revstore.memory_plugin import revstore_backend
from revstore.testing import BackendTests
from revstore.testing.model import backend_machine
from revstore.values import Capability, WatchEventType


class TestMemoryBackend(BackendTests):
    """The shared suite."""

    starts_at_one = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend

    @pytest.fixture
    def wiped(self, backend):
        return MemoryBackend

    @pytest.fixture
    def declared(self):
        return revstore_backend().capabilities


class TestMemoryMachine(backend_machine(MemoryBackend).TestCase):
    """The memory backend beside a model that keeps every state (BASE-1, LISTRV-8, WATCH-2)."""

    settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


class Clock:
    """Seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(clock) -> Iterator[MemoryBackend]:
    with MemoryBackend(clock=clock) as backend:
        yield backend


def sweepers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "revstore-memory-sweeper"]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_capabilities():
    """The memory backend can all but survive, be seen by other processes, and lag."""
    missing = {Capability.DURABLE, Capability.CROSS_PROCESS_WATCH, Capability.LOCAL_READS}
    with MemoryBackend() as backend:
        assert backend.capabilities == frozenset(Capability) - missing


def test_every_store_has_its_own_id():
    """Two memory stores are two stores, so a cache notices the change."""
    with MemoryBackend() as one, MemoryBackend() as other:
        assert one.status().store_id != other.status().store_id


def test_expiry_by_the_given_clock(backend, clock):
    """A key stays to the last moment of its ttl and goes with the sweep after it (TTL-1)."""
    created = backend.put("/a", b"1", expected_revision=0, ttl=10).revision
    clock.now += 9.999
    assert backend.sweep() == 0
    assert backend.get("/a").kv is not None
    clock.now += 0.001
    assert backend.sweep() == 1
    assert backend.sweep() == 0
    assert backend.get("/a").kv is None
    assert backend.status().revision == created + 1


def test_expired_key_exists_until_it_is_swept(backend, clock):
    """Reads and writes treat an expired key as any other; a renewal saves it."""
    revision = backend.put("/a", b"1", expected_revision=0, ttl=10).revision
    clock.now += 100
    assert backend.get("/a").kv.lease == 10
    assert not backend.put("/a", b"2", expected_revision=0).succeeded
    assert backend.put("/a", b"2", expected_revision=revision, ttl=5).succeeded
    assert backend.sweep() == 0
    clock.now += 5
    assert backend.sweep() == 1


def test_keys_expire_together_in_one_revision(backend, clock):
    """What is due at one sweep goes in one revision, one batch, in key order (TTL-6)."""
    for name in ("c", "a", "b"):
        last = backend.put(f"/{name}", b"1", expected_revision=0, ttl=10).revision
    backend.put("/other", b"1", expected_revision=0, ttl=11)
    clock.now += 10
    with backend.watch("/", recursive=True, after_revision=last + 1) as watch:
        assert backend.sweep() == 3
        batch = watch.poll(0)
        assert watch.poll(0) is None

    assert batch.revision == last + 2
    assert [event.kv.key for event in batch.events] == ["/a", "/b", "/c"]
    assert {event.type for event in batch.events} == {WatchEventType.DELETED}
    assert {event.kv.revision for event in batch.events} == {last + 2}
    assert all(event.previous.value == b"1" for event in batch.events)
    with backend.watch("/b", recursive=False, after_revision=last + 1) as watch:
        assert [event.kv.key for event in watch.poll(0).events] == ["/b"]
    assert backend.count("/", revision=last).count == 3
    assert [kv.key for kv in backend.list("/").kvs] == ["/other"]


def test_lease_is_the_ttl_last_written(backend):
    """lease says the seconds given; None keeps them, 0 removes them (GU-12)."""
    leases = []
    revision = 0
    for ttl in (10, None, 20, 0, None):
        revision = backend.put("/a", b"", expected_revision=revision, ttl=ttl).revision
        leases.append(backend.get("/a").kv.lease)

    assert leases == [10, 10, 20, 0, 0]


def test_renewals_leave_no_garbage(backend, clock):
    """A key that is renewed for ever takes the memory of one (a heartbeat)."""
    revision = 0
    for _ in range(5000):
        clock.now += 1
        revision = backend.put("/a", b"", expected_revision=revision, ttl=3600).revision

    assert len(backend._state._heap) < 100
    clock.now += 3600
    assert backend.sweep() == 1
    assert not backend._state._heap
    assert not backend._state._deadlines


def test_sweeper_runs_only_where_something_expires():
    """No thread without a ttl; one with; none after close."""
    before = len(sweepers())
    with MemoryBackend() as backend:
        backend.put("/a", b"", expected_revision=0)
        assert len(sweepers()) == before
        for name in "bc":
            backend.put(f"/{name}", b"", expected_revision=0, ttl=1000)
        assert len(sweepers()) == before + 1
    assert len(sweepers()) == before


def test_no_thread_no_write(monkeypatch):
    """Where the sweeper cannot start, the write that needs it is refused whole."""

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with MemoryBackend() as backend:
        with pytest.raises(BackendError) as caught:
            backend.put("/a", b"", expected_revision=0, ttl=5)

        assert isinstance(caught.value.__cause__, RuntimeError)
        assert backend.status().revision == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda backend: backend.put("/a", "text", expected_revision=0),
        lambda backend: backend.put("/a", bytearray(b"1"), expected_revision=0),
        lambda backend: backend.put("/a", b"", expected_revision=0, ttl=-1),
        lambda backend: backend.get("/a", revision=-1),
        lambda backend: backend.list("/a", limit=-1),
        lambda backend: backend.count("/a", revision=-1),
        lambda backend: backend.watch("/a", recursive=True, after_revision=-1),
    ],
)
def test_nonsense_is_refused(backend, call):
    """Values that mean nothing are refused with the argument's name, and nothing is written."""
    with pytest.raises(InvalidArgument):
        call(backend)
    assert backend.status().revision == 1


def test_progress_by_itself():
    """A quiet watch gets a mark once the interval has passed and the store has moved on, so
    that its position does not fall behind compaction (WATCH-19)."""
    with MemoryBackend(progress_interval=0.05) as backend:
        loud = backend.watch("/quiet", recursive=True, after_revision=1)
        mute = backend.watch("/quiet", recursive=True, after_revision=1, progress=False)
        assert loud.poll(0.12) is None
        written = backend.put("/other", b"", expected_revision=0).revision
        mark = loud.poll(10)

        assert (mark.revision, mark.events, loud.position) == (written, (), written)
        assert loud.poll(0.12) is None
        assert mute.poll(0.12) is None


def test_compaction_passes_by_a_watch_that_waits(backend):
    """A poll that waits for other keys has missed nothing, whatever is compacted meanwhile."""
    found = []
    watch = backend.watch("/quiet", recursive=True, after_revision=1)
    thread = threading.Thread(target=lambda: found.append(watch.poll(10)))
    thread.start()
    wait_for(lambda: backend._shared.waiting)
    for number in range(10):
        last = backend.put(f"/other/{number}", b"", expected_revision=0).revision
    backend.compact(last)
    written = backend.put("/quiet/a", b"", expected_revision=0).revision
    thread.join(10)

    assert [batch.revision for batch in found] == [written]


def test_slow_watch_is_overtaken(backend):
    """A watch that was not polled while its events were compacted says so, again and again."""
    watch = backend.watch("/", recursive=True, after_revision=1)
    last = backend.put("/a", b"", expected_revision=0).revision
    backend.compact(last)
    for _ in range(2):
        with pytest.raises(Compacted) as caught:
            watch.poll(0)
        assert (caught.value.compacted, caught.value.current) == (last, last)
    watch.close()
    with pytest.raises(Closed):
        watch.poll(0)


def test_watch_in_the_future_is_not_overtaken(backend):
    """A watch that begins after the compacted revision has nothing to lose."""
    watch = backend.watch("/", recursive=True, after_revision=4)
    revisions = [backend.put(f"/{n}", b"", expected_revision=0).revision for n in range(3)]
    backend.compact(revisions[-1])
    written = backend.put("/new", b"", expected_revision=0).revision

    assert written == 5
    assert watch.poll(0).revision == 5


def test_no_mark_before_the_watch_begins(backend):
    """A mark asked for by a watch in the future comes once the store is there, not before, for
    its revision would be one that nobody has seen (WATCH-20)."""
    watch = backend.watch("/quiet", recursive=True, after_revision=4)
    watch.request_progress()
    assert watch.poll(0) is None
    for number in range(3):
        backend.put(f"/{number}", b"", expected_revision=0)
    mark = watch.poll(0)

    assert (mark.revision, mark.events) == (4, ())


def test_writes_do_not_wake_watches_of_other_keys(backend):
    """Only a watch that an event concerns is woken."""
    watches = [backend.watch(f"/{name}/", recursive=True, after_revision=1) for name in "ab"]
    found = []
    threads = [
        threading.Thread(target=lambda watch=watch: found.append(watch.poll(10)))
        for watch in watches
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(backend._shared.waiting) == 2)
    written = backend.put("/a/1", b"", expected_revision=0).revision

    assert set(watches[1:]) <= backend._shared.waiting
    threads[0].join(10)
    assert [batch.revision for batch in found] == [written]
    backend.put("/b/1", b"", expected_revision=0)
    threads[1].join(10)
    assert len(found) == 2


def test_long_history_is_read_in_slices(backend):
    """A watch of a rare key finds it behind thousands of other events, and stands at the end."""
    for number in range(3000):
        backend.put(f"/other/{number}", b"", expected_revision=0)
    written = backend.put("/rare", b"", expected_revision=0).revision
    with backend.watch("/rare", recursive=False, after_revision=1) as watch:
        assert watch.poll(0).revision == written
        assert watch.poll(0) is None


def test_compaction_frees(backend):
    """After compacting everything no history is left, for keys that are gone none at all."""
    for number in range(200):
        revision = backend.put(f"/{number}", b"", expected_revision=0).revision
        if number % 2:
            backend.delete(f"/{number}", expected_revision=revision)
    backend.compact(backend.status().revision)
    state = backend._state

    assert (state.log.items, state._history, state._gone.count("")) == ([], {}, 0)
    assert state._keys.count("") == len(state.current) == 100


def lines_run(call):
    """How many lines of Python run in ``call``."""
    lines = 0

    def trace(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def test_get_put_and_delete_take_the_same_steps_however_much_is_stored(backend):
    """With a hundred objects and with many parts of keys. (How long they take, the benchmarks
    measure.)"""

    def steps():
        key = f"/pods/{random.Random(backend.status().revision).random()}"
        found = [lines_run(lambda: backend.put(key, b"x", expected_revision=0))]
        revision = backend.get(key).revision
        found.append(lines_run(lambda: backend.put(key, b"y", expected_revision=revision)))
        found.append(lines_run(lambda: backend.get(key)))
        found.append(lines_run(lambda: backend.delete(key, expected_revision=revision + 1)))
        return found

    for number in range(100):
        backend.put(f"/pods/{number}", b"x", expected_revision=0)
    steps()  # the first deletion makes what others find
    before = steps()
    for number in range(100, 10_000):
        backend.put(f"/pods/{number}", b"x", expected_revision=0)
    assert len(backend._state._keys._parts) > 2
    assert steps() == before
